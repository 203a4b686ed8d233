"""Which proxy an origin is reached through, from the environment (`HTTPS_PROXY`, `NO_PROXY`, …)."""

from __future__ import annotations

from collections.abc import Callable
from urllib.request import getproxies, proxy_bypass

import httpx

#: Takes a URL, gives the proxy's address, or None for a direct connection.
ProxyRule = Callable[[httpx.URL], str | None]


def direct(url: httpx.URL) -> str | None:
    """No proxy, whatever the environment says."""
    return None


def from_environment() -> ProxyRule:
    """Read the environment once, and return the rule it describes.

    Returns:
        A function that remembers its answer per origin, so a hot path may call it for each request.
    """
    settings = getproxies()
    if not any(scheme in settings for scheme in ("http", "https", "all")):
        return direct
    known: dict[tuple[str, str], str | None] = {}

    def rule(url: httpx.URL) -> str | None:
        origin = (url.scheme, url.netloc.decode("ascii"))
        if origin not in known:
            proxy = settings.get(url.scheme) or settings.get("all")
            host = url.host if url.port is None else f"{url.host}:{url.port}"
            known[origin] = None if proxy is None or proxy_bypass(host) else _whole(proxy)
        return known[origin]

    return rule


def _whole(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"
