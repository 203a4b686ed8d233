"""Whether a text is the address of something that speaks HTTP: a pure function."""

from __future__ import annotations

import httpx

from asyncflow.http.failures import plain_url


def checked(text: str, name: str) -> str:
    """The text, if it is an address with a scheme and a host.

    Args:
        text: The address.
        name: What the caller calls it, for the error.

    Raises:
        ValueError: If it is none. User, password and query do not get into the text.

    Example:
        >>> checked("http://localhost:8000/v1", "base_url")
        'http://localhost:8000/v1'
    """
    try:
        url = httpx.URL(text)
        if is_usable(url):
            return text
        shown = plain_url(url) if url.host else text
    except (httpx.InvalidURL, TypeError):
        shown = str(text)
    shown = shown.rpartition("@")[2].partition("?")[0].partition("#")[0]
    raise ValueError(
        f"{name}={shown!r:.200}: an address starts with http:// or https:// and names a host; "
        "a port is at most 65535"
    )


def is_usable(url: httpx.URL) -> bool:
    """Whether requests can go there.

    Example:
        >>> is_usable(httpx.URL("http://a.b:8000")), is_usable(httpx.URL("http://a.b:99999"))
        (True, False)
    """
    return url.scheme in ("http", "https") and bool(url.host) and (url.port or 0) <= 65535
