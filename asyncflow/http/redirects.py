"""Where a redirect leads, and what must not travel there: a pure function."""

from __future__ import annotations

from urllib.parse import unquote

import httpx

from asyncflow import errors
from asyncflow.http.address import is_usable
from asyncflow.http.call import Target
from asyncflow.http.failures import SECRET_HEADERS, plain_url, scrub, secrets_of

#: Statuses that point elsewhere.
STATUSES = frozenset({301, 302, 303, 307, 308})

_ABOUT_THE_BODY = ("content-length", "content-type", "transfer-encoding")


def following(response: httpx.Response) -> tuple[Target, bytes]:
    """Method, address and headers of the request that follows a redirect, and its body.

    301, 302 and 303 turn anything but HEAD into GET, without the body; 307 and 308 keep both. Credentials go
    only to the origin they were meant for.

    Raises:
        RedirectError: If there is no usable address, it holds a credential, or it leads from https to http.

    Example:
        >>> asked = httpx.Request("GET", "https://a.b/x", headers={"authorization": "Bearer k"})
        >>> answer = httpx.Response(302, headers={"location": "https://c.d/y"}, request=asked)
        >>> target, _ = following(answer)
        >>> str(target.url), "authorization" in target.headers
        ('https://c.d/y', False)
    """
    request = response.request
    here = request.url
    location = response.headers.get("location", "")
    try:
        there = here.join(location)
        usable = bool(location) and is_usable(there)
    except (httpx.InvalidURL, ValueError):
        usable = False
    if not usable:
        raise refused(response, "it names no address that can be followed")
    if any(secret in unquote(str(there)) for secret in secrets_of(request)):
        raise refused(response, "its address is made of the credentials that it was sent")
    if here.scheme == "https" and there.scheme == "http":
        raise refused(response, f"it leads from https to http ({plain_url(there)})")
    headers = request.headers.copy()
    headers.pop("host", None)
    if (here.scheme, here.host, here.port) != (there.scheme, there.host, there.port):
        for name in SECRET_HEADERS:
            headers.pop(name, None)
    method, content = request.method, request.content
    if response.status_code in (301, 302, 303) and method not in ("GET", "HEAD"):
        method, content = "GET", b""
        for name in _ABOUT_THE_BODY:
            headers.pop(name, None)
    return Target(method, there, headers), content


def refused(response: httpx.Response, why: str) -> errors.RedirectError:
    """The error of a redirect that is not followed."""
    request = response.request
    url = scrub(plain_url(request.url), request)
    return errors.RedirectError(
        scrub(f"{request.method} {url}: {response.status_code} redirect not followed: {why}", request),
        method=request.method,
        url=url,
        status=response.status_code,
    )
