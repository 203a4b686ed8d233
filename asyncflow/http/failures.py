"""Answers and httpx errors as our error tree, once, at the border: pure functions."""

from __future__ import annotations

import json
import re
import ssl
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

import httpx

from asyncflow import errors
from asyncflow.http import hints
from asyncflow.http.messages import BodyTooLargeError
from asyncflow.http.told import Told, error_fields, fields_text, kind_of, told

#: Header names whose values are credentials. Their values are struck out of every text.
SECRET_HEADERS = frozenset(
    {"authorization", "x-api-key", "api-key", "proxy-authorization", "cookie", "x-goog-api-key"}
)

_ADVICE = {
    errors.AccessDeniedError: "check the key, its permissions and the account's credit",
    errors.RateLimitedError: "lower concurrency or the rate, or wait",
    errors.RequestTooLargeError: "send less at once",
}


def from_status(response: httpx.Response, advice: Mapping[int, str] | None = None) -> errors.HTTPError | None:
    """The error that a response's status stands for, or None if it is a success.

    Args:
        response: Its body must have been read; what the server says in it goes into the text, shortened and
            without credentials.
        advice: What to do about a status, where the class has no advice of its own.
    """
    status = response.status_code
    if status < 300 or status == 304:
        return None
    headers = response.headers
    said, what, text = _what_it_says(response)
    wait = hints.retry_after(headers)
    if wait is None:
        wait = what.retry_after
    kind = kind_of(status, what, text, comes_back=wait is not None)
    if wait is None and kind is errors.RateLimitedError:
        wait = hints.quota_reset(hints.rate_limits(headers))
    return _build(
        kind,
        response.request,
        f"{status} {response.reason_phrase}".rstrip() + (f": {said}" if said else ""),
        status=status,
        code=what.code,
        request_id=hints.request_id(headers),
        retry_after=wait,
        should_retry=hints.should_retry(headers),
        advice="" if advice is None else advice.get(status, ""),
    )


def from_httpx(exc: httpx.HTTPError | httpx.InvalidURL, request: httpx.Request) -> errors.HTTPError:
    """Our error for what a transport or an httpx client raised, which stands below it without credentials."""
    said = str(exc) or type(exc).__name__
    untrusted = _certificate_refused(exc)
    _without_secrets(exc, request)
    match exc:
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return _build(
                errors.HTTPTimeoutError, request, "no connection in time", sent=False, phase="connect"
            )
        case httpx.ReadTimeout():
            return _build(
                errors.HTTPTimeoutError, request, "the server sent nothing for too long", phase="read"
            )
        case httpx.WriteTimeout():
            return _build(
                errors.HTTPTimeoutError, request, "the server took nothing for too long", phase="write"
            )
        case httpx.TimeoutException():
            return _build(
                errors.HTTPTimeoutError, request, "the call took longer than its total", phase="total"
            )
        case httpx.ConnectError() if untrusted:
            return _build(
                errors.RequestRefusedError,
                request,
                f"the server's certificate is not trusted: {said} (a company's own authority is named with "
                "SSL_CERT_FILE)",
                sent=False,
            )
        case httpx.ConnectError() | httpx.ProxyError():
            advice = "is the server running, and the address right?"
            return _build(
                errors.HTTPConnectionError, request, f"no connection: {said}", advice=advice, sent=False
            )
        case httpx.NetworkError():
            return _build(errors.HTTPConnectionError, request, f"the connection broke: {said}")
        case httpx.RemoteProtocolError():
            return _build(
                errors.HTTPConnectionError, request, f"the answer was cut off or is not HTTP: {said}"
            )
        case BodyTooLargeError():
            return _build(
                errors.AnswerTooLargeError, request, f"{said}; the largest allowed is max_body_size_bytes"
            )
        case httpx.DecodingError():
            return _build(errors.BadAnswerError, request, f"the body cannot be decompressed: {said}")
        case httpx.TooManyRedirects():
            return _build(errors.RedirectError, request, "too many redirects")
        case _:
            return _build(errors.RequestRefusedError, request, said, sent=False)


def too_late(exc: TimeoutError, request: httpx.Request) -> errors.HTTPError:
    """Our error where the total was over, which stands below it without credentials."""
    _without_secrets(exc, request)
    return from_httpx(httpx.TimeoutException("total"), request)


def bad_answer(response: httpx.Response, why: str) -> errors.BadAnswerError:
    """A response with a good status and a body that is not what was promised."""
    error = _build(
        errors.BadAnswerError,
        response.request,
        why,
        status=response.status_code,
        request_id=hints.request_id(response.headers),
        should_retry=hints.should_retry(response.headers),
    )
    assert isinstance(error, errors.BadAnswerError)
    return error


def reported(response: httpx.Response, error: Any) -> errors.HTTPError:
    """A failure that a server tells of in an answer whose status is good (some gateways do).

    The status that it names, as a number or by a code or type that stands for one, counts as its status; 500
    where it names none.
    """
    fields = error if isinstance(error, dict) else {"message": str(error)}
    what, text = told(fields), fields_text(fields)
    wait = hints.retry_after(response.headers)
    if wait is None:
        wait = what.retry_after
    said = shorten(text if what.message is None else what.message)
    return _build(
        kind_of(what.status or 500, what, text, comes_back=wait is not None),
        response.request,
        f"the answer reports a failure: {said}",
        status=response.status_code,
        code=what.code,
        request_id=hints.request_id(response.headers),
        retry_after=wait,
        should_retry=hints.should_retry(response.headers),
    )


def json_of(response: httpx.Response) -> Any:
    """The body as JSON.

    Raises:
        BadAnswerError: If it is not JSON, with its beginning in the text (a proxy's HTML page, often).
    """
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        kind = response.headers.get("content-type", "no content type")
        start = scrub(shorten(response.content.decode("utf-8", "replace")), response.request)
        raise bad_answer(response, f"the body is not JSON ({kind}): {start!r}") from None


def scrub(text: str, request: httpx.Request) -> str:
    """The text without the request's credentials.

    Example:
        >>> r = httpx.Request("GET", "http://a.b", headers={"authorization": "Bearer sk-12345678"})
        >>> scrub("bad key sk-12345678", r)
        'bad key [key]'
    """
    for secret in secrets_of(request):
        text = text.replace(secret, "[key]")
    return text


def secrets_of(request: httpx.Request) -> set[str]:
    """The request's credentials, whole and in their parts."""
    values = [value for name, value in request.headers.items() if name.lower() in SECRET_HEADERS]
    found = {part for value in values for part in (value, value.partition(" ")[2], _password(value))}
    return {secret for secret in found if len(secret) >= 4}


def _without_secrets(exc: BaseException, request: httpx.Request) -> None:
    """Take from an error, and from what caused it, what may hold the request's credentials.

    Those are the frames that it came through, whose locals some tools print (the bytes that were sent are
    among them), and words of an answer that says them. What has such words is no longer told as a cause. An
    error that whoever calls is dealing with meanwhile stands there as a context too, and is left as it is.
    """
    exc.__traceback__ = None
    exc.args = tuple(scrub(arg, request) if isinstance(arg, str) else arg for arg in exc.args)
    if exc.__suppress_context__ and exc.__context__ is not exc.__cause__:
        exc.__context__ = None
    beneath = exc.__cause__ or exc.__context__
    said = f"{beneath} {beneath!r}"
    if scrub(said, request) != said:
        exc.__cause__ = exc.__context__ = None
    elif beneath is not None and (exc.__cause__ is not None or not isinstance(beneath, Exception)):
        _without_secrets(beneath, request)


def _password(value: str) -> str:
    """The password in a `Basic` authorization, or nothing."""
    kind, _, named = value.partition(" ")
    if kind.lower() != "basic":
        return ""
    try:
        return b64decode(named).decode("utf-8", "replace").partition(":")[2]
    except ValueError:
        return ""


def shorten(text: str, length: int = 300) -> str:
    """The text in one line, without tags, and not longer than `length`.

    Example:
        >>> shorten("<h1>Bad</h1> gateway")
        'Bad gateway'
    """
    text = text[: 20 * length]
    if "<" in text:
        text = re.sub(r"(?s)<(script|style)\b.*?</\1>|<[^>]*>", " ", text)
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def plain_url(url: httpx.URL) -> str:
    """The address without user, query and fragment, where keys travel.

    Example:
        >>> plain_url(httpx.URL("https://me:pw@host:8/a?key=1"))
        'https://host:8/a'
    """
    port = "" if url.port is None else f":{url.port}"
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{url.scheme}://{host}{port}{url.path}"


def _build(
    kind: type[errors.HTTPError], request: httpx.Request, what: str, advice: str = "", **fields: Any
) -> errors.HTTPError:
    url = scrub(plain_url(request.url), request)
    message = f"{request.method} {url}: {scrub(what, request)}"
    for name in ("code", "request_id"):
        if fields.get(name):
            fields[name] = scrub(fields[name], request)
    if fields.get("request_id"):
        message += f" (request id {fields['request_id']})"
    advice = _ADVICE.get(kind, advice)
    if advice:
        message += f" – {advice}"
    return kind(message, method=request.method, url=url, **fields)


def _what_it_says(response: httpx.Response) -> tuple[str, Told, str]:
    """The server's own words in short, what its fields say, and all of it as text."""
    text = response.content[:65536].decode("utf-8", "replace")
    try:
        inner = error_fields(json.loads(text))
    except (ValueError, RecursionError):
        return shorten(text), told({"message": text}), text
    if not isinstance(inner, dict):
        inner = {"message": inner if isinstance(inner, str) else text}
    what = told(inner)
    return shorten(text if what.message is None else what.message), what, text


def _certificate_refused(exc: BaseException) -> bool:
    seen: BaseException | None = exc
    for _ in range(8):
        if isinstance(seen, ssl.SSLCertVerificationError):
            return True
        inner = getattr(seen, "certificate_error", None)  # aiohttp keeps it there
        if isinstance(inner, ssl.SSLError):
            return True
        seen = None if seen is None else seen.__cause__ or seen.__context__
    return False
