"""Where a client's calls go, and the key that they take along: checks and parts, pure functions."""

from __future__ import annotations

from urllib.parse import urlsplit

from asyncflow.http.address import checked as checked_address
from asyncflow.llm.provider import Provider


def checked_url(url: str, provider: Provider) -> str:
    """The base URL, if calls can go below it.

    Raises:
        ValueError: If it is no address, or that of the calls themselves.
    """
    url = checked_address(url, "base_url").rstrip("/")
    for path in (provider.path(), provider.embeddings_path or provider.path()):
        if url.partition("?")[0].endswith(path):
            raise ValueError(f"base_url: leave {path!r} out at its end, it is added")
    return url


def below(address: str, path: str) -> str:
    """The address of a call: a query, such as Azure's `api-version`, stays at its end."""
    base, mark, query = address.partition("?")
    return f"{base.rstrip('/')}{path}{mark}{query}"


def shown(address: str) -> str:
    """The address without user, password and query, where keys travel."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def checked_key(key: str | None) -> str:
    """The key without what surrounds it.

    Raises:
        ValueError: If a character in it is one that no header takes.

    Example:
        >>> checked_key(" sk-1\\n"), checked_key(None)
        ('sk-1', '')
    """
    key = (key or "").strip()
    if not key.isascii() or not key.isprintable():  # the key itself stays out of the text
        raise ValueError("api_key holds a character that no key has: was it copied whole, and nothing else?")
    return key
