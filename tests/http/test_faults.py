# ruff: noqa: E501 - the table reads better with a case a row
"""Everything a server can do wrong, a case a row, over every way that requests travel.

The numbers are those of the project's fault catalogue (part C, HTTP and provider: 41 to 70). What concerns lanes or
the meaning of an answer is tested where lanes and models are: `ELSEWHERE` says where.
"""

from __future__ import annotations

import asyncio
import errno
import gzip
import json
import os
import re
import ssl
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from asyncflow import errors
from asyncflow.http import HTTPClient, SlotTransport, Timeouts
from asyncflow.http.endpoint import UnusableAnswerError
from asyncflow.policy.retry import Retry
from tests.http.raw import Conversation, Script, answer, raw_server, replies


@dataclass(frozen=True)
class Case:
    """One fault.

    Attributes:
        number: Its number in the catalogue.
        what: What the server does.
        script: How.
        kind: The error that it becomes.
        says: What its text holds.
        asked: How often the server is asked by a client with two attempts; None where it cannot count.
        fields: Fields that the error must have.
        timeouts: Where the fault needs them short.
        body_size_bytes: Of the request.
    """

    number: int
    what: str
    script: Script
    kind: type[errors.HTTPError]
    says: str = ""
    asked: int | None = 2
    fields: dict[str, Any] = field(default_factory=dict)
    timeouts: Timeouts = Timeouts(connect=5, read=5, total=10)
    body_size_bytes: int = 2


def status(code: int, body: bytes = b"{}", headers: str = "") -> Script:
    return replies(answer(body, f"{code} X", headers))


def error(message: str, code: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "code": code, "type": "t"}}).encode()


async def never_answers(talk: Conversation) -> None:
    await talk.request()
    await talk.server.hang(talk)


async def never_reads(talk: Conversation) -> None:
    talk.writer.transport.pause_reading()
    await asyncio.Event().wait()


async def headers_then_silence(talk: Conversation) -> None:
    await talk.request()
    await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
    await talk.server.hang(talk)


async def drips(talk: Conversation) -> None:
    await talk.request()
    await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        await talk.send(b"x")
        await asyncio.sleep(0.02)


def cut(data: bytes) -> Script:
    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(data)

    return script


def reset_after(data: bytes) -> Script:
    async def script(talk: Conversation) -> None:
        await talk.request()
        if data:
            await talk.send(data)
        talk.reset()

    return script


async def refuses_early(talk: Conversation) -> None:
    """Answers before the body has come, and closes."""
    await talk.reader.readuntil(b"\r\n\r\n")
    talk.server.requests.append(b"")
    await talk.send(answer(b"{}", "413 Too Large", "Connection: close\r\n"))
    await talk.server.hang(talk)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
SQUEEZED = gzip.compress(b'{"a": 1}')
BOMB = gzip.compress(b"\0" * 20_000_000)
SHORT = Timeouts(connect=5, read=0.1, total=5)

CASES = [
    Case(42, "429 with whole seconds", status(429, b"", "Retry-After: 0\r\n"), errors.RateLimitedError, "429", None,
         {"retry_after": 0.0}),
    Case(42, "429 with nonsense", status(429, b"", "Retry-After: inf\r\nRetry-After-Ms: 1\r\n"),
         errors.RateLimitedError, "429", None, {"retry_after": 0.001}),
    Case(44, "500 that must not be retried", status(500, b"", "X-Should-Retry: false\r\n"), errors.ServerError,
         asked=1, fields={"should_retry": False}),
    Case(44, "400 that may be retried", status(400, b"", "X-Should-Retry: true\r\n"), errors.RequestRefusedError,
         asked=2, fields={"should_retry": True}),
    Case(45, "500", status(500, error("down")), errors.ServerError, "500 Internal|500 X: down",
         fields={"status": 500, "attempts": 2, "exhausted": True}),
    Case(45, "502 in HTML", status(502, b"<html><h1>Bad gateway</h1></html>"), errors.ServerError, "Bad gateway"),
    Case(45, "529 overloaded", status(529, error("busy", "overloaded_error")), errors.ServerError,
         fields={"code": "overloaded_error"}),
    Case(45, "408", status(408), errors.ServerError),
    Case(45, "409", status(409), errors.ServerError),
    Case(47, "401", status(401, error("no such key")), errors.AccessDeniedError, "no such key", 1),
    Case(47, "403", status(403), errors.AccessDeniedError, "check the key", 1),
    Case(47, "429 without credit", status(429, error("pay", "insufficient_quota")), errors.AccessDeniedError,
         "pay", 1, {"code": "insufficient_quota", "status": 429}),
    Case(48, "400", status(400, error("bad field")), errors.RequestRefusedError, "bad field", 1),
    Case(48, "404", status(404, b'"no model"'), errors.RequestRefusedError, "no model", 1),
    Case(48, "413", status(413), errors.RequestTooLargeError, "", 1),
    Case(48, "context length by code", status(400, error("x", "context_length_exceeded")),
         errors.RequestTooLargeError, "", 1),
    Case(48, "context length by text", status(400, error("prompt is too long: 300000 tokens")),
         errors.RequestTooLargeError, "", 1),
    Case(49, "never answers", never_answers, errors.HTTPTimeoutError, "sent nothing", 2, {"phase": "read"}, SHORT),
    Case(50, "trickles for ever", drips, errors.HTTPTimeoutError, "total", 2, {"phase": "total"},
         Timeouts(connect=5, read=1, total=0.15)),
    Case(52, "headers, then silence", headers_then_silence, errors.HTTPTimeoutError, "sent nothing", 2,
         {"phase": "read"}, SHORT),
    Case(52, "never reads a large body", never_reads, errors.HTTPTimeoutError, "took nothing", None,
         {"phase": "write"}, Timeouts(connect=5, write=0.1, read=5, total=5), 30_000_000),
    Case(53, "less than Content-Length", cut(HEAD + b"Content-Length: 9\r\n\r\n{}"), errors.HTTPConnectionError,
         "cut off"),
    Case(53, "chunks cut", cut(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n"),
         errors.HTTPConnectionError, "cut off"),
    Case(53, "chunk size is no number", cut(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}"),
         errors.HTTPConnectionError, "cut off"),
    Case(53, "gzip cut", replies(answer(SQUEEZED[:-12], headers="Content-Encoding: gzip\r\n")),
         errors.HTTPConnectionError, "cut off"),
    Case(53, "gzip cut after the last word", replies(answer(SQUEEZED[:-1], headers="Content-Encoding: gzip\r\n")),
         errors.HTTPConnectionError, "cut off"),
    Case(53, "gzip cut by a close", cut(HEAD + b"Content-Encoding: gzip\r\n\r\n" + SQUEEZED[:-8]),
         errors.HTTPConnectionError, "cut off"),
    Case(53, "deflate cut", replies(answer(zlib.compress(b'{"a": 1}')[:-1], headers="Content-Encoding: deflate\r\n")),
         errors.HTTPConnectionError, "cut off"),
    Case(53, "gzip that is none", replies(answer(b"{}", headers="Content-Encoding: gzip\r\n")), errors.HTTPError),
    Case(53, "brotli, which was not asked for", replies(answer(b"x", headers="Content-Encoding: br\r\n")),
         errors.BadAnswerError),
    Case(54, "invalid JSON", replies(answer(b'{"a": ')), errors.BadAnswerError, "not JSON"),
    Case(54, "nothing", replies(answer(b"")), errors.BadAnswerError, "not JSON"),
    Case(54, "JSON too deep", replies(answer(b"[" * 200_000)), errors.BadAnswerError, "not JSON"),
    Case(55, "wrong shape", replies(answer(b'{"choices": []}')), errors.BadAnswerError, "no a"),
    Case(56, "a proxy's page with 200", replies(answer(b"<html>Please <b>log in</b></html>")), errors.BadAnswerError,
         "Please log in"),
    Case(56, "an error told with 200", replies(answer(error("later"))), errors.ServerError, "later",
         fields={"status": 200}),
    Case(56, "a refusal told with 200", replies(answer(b'{"error": {"code": 401, "message": "key"}}')),
         errors.AccessDeniedError, "key", 1),
    Case(57, "not UTF-8", replies(answer(b"\xff\xfe\x00")), errors.BadAnswerError, "not JSON"),
    Case(58, "a gigabyte announced", cut(HEAD + b"Content-Length: 1000000000\r\n\r\n{"), errors.AnswerTooLargeError,
         "max_body_size_bytes", 1),
    Case(58, "a body without end", cut(HEAD + b"\r\n" + b" " * 1_500_000), errors.AnswerTooLargeError, "", 1),
    Case(58, "a gzip bomb", replies(answer(BOMB, headers="Content-Encoding: gzip\r\n")), errors.AnswerTooLargeError,
         "", 1),
    Case(59, "RST before the answer", reset_after(b""), errors.HTTPConnectionError),
    Case(59, "RST in the answer", reset_after(HEAD + b"Content-Length: 9\r\n\r\n{"), errors.HTTPConnectionError),
    Case(59, "closed before the answer", cut(b""), errors.HTTPConnectionError),
    Case(59, "not HTTP", cut(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), errors.HTTPConnectionError),
    Case(59, "a header without end", cut(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2_000_000), errors.HTTPConnectionError),
    Case(63, "redirects in a circle", status(307, b"", "Location: /v1\r\n"), errors.RedirectError, "6 in a row", None),
    Case(63, "a redirect to nowhere", status(302), errors.RedirectError, "no address", 1),
    Case(63, "a redirect that would lose the body", status(301, b"", "Location: /v2\r\n"), errors.RedirectError,
         "the right address is probably .*/v2", 1),
    Case(47, "400 without credit", status(400, error("Your credit balance is too low to access the API")),
         errors.AccessDeniedError, "credit balance", 1),
    Case(67, "refused before the body was sent", refuses_early, errors.HTTPError, "", None,
         body_size_bytes=10_000_000),
]  # fmt: skip

#: Numbers of the catalogue that are tested in another place.
ELSEWHERE = {
    41: ("policy/test_proofs.py::test_a_storm_cuts_once_and_is_sat_out",
         "policy/test_lane.py::test_one_pause_for_a_wave_of_refusals",
         "policy/test_wired.py::test_a_storm_costs_no_call"),
    42: ("http/test_hints.py::test_retry_after", "http/test_client.py::test_a_wait_past_all_patience"),
    43: ("http/test_hints.py::test_retry_after",),
    45: ("policy/test_proofs.py::test_server_errors_do_not_cut", "llm/test_outage.py::test_an_outage_burns_nothing"),
    46: ("llm/test_outage.py::test_one_payload_that_always_fails_is_given_up",),
    47: ("policy/test_lane.py::test_a_refused_key_stops_the_lane_once",
         "policy/test_wired.py::test_a_refused_key_is_asked_about_once"),
    55: ("llm/test_client.py::test_answers_that_are_none", "llm/test_client.py::test_answers_out_of_the_ordinary"),
    61: ("http/test_client.py::test_certificates",),
    62: ("http/test_client.py::test_proxies", "http/test_client.py::test_a_proxy_that_wants_a_password"),
    63: ("http/test_client.py::test_redirects",),
    64: ("http/test_cancel.py::test_cancelled", "http/test_cancel.py::test_cancelled_connects_do_not_poison",
         "policy/test_lane.py::test_nothing_leaks_under_cancellation"),
    65: ("http/test_transport.py::test_many_at_once",),
    66: ("llm/test_stream.py::test_faults_after_the_first_piece_are_told", "llm/test_stream.py::test_odd_streams",
         "llm/test_stream.py::test_silence_in_the_middle"),
    68: ("policy/test_lane.py::test_ten_thousand_waiters_are_one_timer_and_a_wake_each",),
    69: ("policy/test_rate.py::test_more_than_reserved_is_paid_later",
         "policy/test_lane.py::test_what_an_attempt_reports_is_what_it_used",
         "llm/test_accounts.py::test_a_stream_cancelled_before_its_answer_gives_all_back"),
    70: ("http/test_transport.py::test_a_second_event_loop_is_told", "policy/test_lane.py::test_two_loops_at_once_are_told",
         "llm/test_client.py::test_a_second_event_loop_is_told"),
}  # fmt: skip


def test_every_number_of_the_catalogue_has_its_test() -> None:
    """41 to 70 without a gap: a row above, a test of this file, or one elsewhere that exists."""
    here = Path(__file__)
    named = {int(number) for number in re.findall(r"def test_(\d\d)_", here.read_text(encoding="utf-8"))}
    assert {case.number for case in CASES} | named | set(ELSEWHERE) == set(range(41, 71))
    for test in (test for tests in ELSEWHERE.values() for test in tests):
        file, _, name = test.partition("::")
        assert re.search(rf"def {name}\(", (here.parents[1] / file).read_text(encoding="utf-8")), test


WIRES: dict[str, Callable[[], dict[str, Any]]] = {
    "aiohttp": dict,
    "slots": lambda: {"transport": SlotTransport()},
    "own httpx client": lambda: {"client": httpx.AsyncClient(trust_env=False)},
}


def read(answer: Any, request_id: str | None) -> Any:
    """Stands for a provider's translation."""
    if not isinstance(answer, dict) or "a" not in answer:
        raise UnusableAnswerError("no a")
    return answer["a"]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.number} {case.what}")
@pytest.mark.asyncio
async def test_fault(case: Case, wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault becomes its error after as many attempts as it deserves, and leaves nothing behind."""
    options = WIRES[wire]()
    retry = Retry(attempts=2, wait=0)
    async with raw_server(case.script) as server:
        async with HTTPClient(
            timeout=case.timeouts, retry=retry, max_body_size_bytes=1_000_000, **options
        ) as http:
            endpoint = http.endpoint("POST", server.url + "/v1", {"authorization": "Bearer canary"})
            call = endpoint.send({"x": "y" * case.body_size_bytes}, read=read)
            with pytest.raises(case.kind, match=case.says or None) as caught:
                await asyncio.wait_for(call, 30) if case.kind is not errors.RateLimitedError else await _once(
                    call
                )
            assert http.statistics().running == 0
            for name, value in case.fields.items():
                assert getattr(caught.value, name) == value, name
            assert server.url in str(caught.value) and "canary" not in str(caught.value)
            if case.asked is not None:
                assert len(server.requests) == case.asked
        for opened in options.values():
            await opened.aclose()


async def _once(call: Any) -> None:
    """Refusals have twenty attempts; the waits between them are of no interest here."""
    from asyncflow.http import attempts

    before = attempts.REFUSALS, attempts.REFUSALS_TOLD
    attempts.REFUSALS = attempts.REFUSALS_TOLD = Retry(attempts=2, wait=0, on=errors.RateLimitedError)
    try:
        await call
    finally:
        attempts.REFUSALS, attempts.REFUSALS_TOLD = before


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.asyncio
async def test_59_a_kept_connection_that_was_closed(wire: str) -> None:
    """A server that closes a kept connection as the next request arrives costs a retry and no error."""

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(answer(b'{"a": 1}'))
        if talk.number == 1:
            await talk.request()
            talk.reset()
        else:
            await talk.server.hang(talk)

    options = WIRES[wire]()
    async with raw_server(script) as server:
        async with HTTPClient(retry=Retry(attempts=2, wait=0), **options) as http:
            endpoint = http.endpoint("POST", server.url)
            assert [await endpoint.send({}, read=read) for _ in range(2)] == [1, 1]
        for opened in options.values():
            await opened.aclose()
    assert len(server.requests) == 3


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.asyncio
async def test_60_nobody_there(wire: str) -> None:
    """A refused connection says so, and that the request was not sent."""
    options = WIRES[wire]()
    async with HTTPClient(retry=None, **options) as http:
        with pytest.raises(errors.HTTPConnectionError, match="no connection") as caught:
            await http.post("http://127.0.0.1:1/", content=b"x")
        assert not caught.value.sent and "is the server running" in str(caught.value)
        if wire == "aiohttp":
            assert f"no connection: 127.0.0.1:1: {os.strerror(errno.ECONNREFUSED)} –" in str(caught.value)
    for opened in options.values():
        await opened.aclose()


@pytest.mark.asyncio
async def test_60_no_such_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that does not resolve is a connection error that may pass."""
    import socket

    async def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    async with HTTPClient(retry=None) as http:
        with pytest.raises(errors.HTTPConnectionError, match="no connection.*nowhere.test"):
            await http.get("http://nowhere.test/")


@pytest.mark.asyncio
async def test_60_a_name_that_resolves_too_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking a name up counts as connecting, and ends with it."""

    async def slow(*_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", slow)
    async with HTTPClient(retry=None, timeout=Timeouts(connect=0.1, total=5)) as http:
        with pytest.raises(errors.HTTPTimeoutError, match="no connection in time") as caught:
            await http.get("http://slow.test/")
        assert caught.value.phase == "connect" and not caught.value.sent


async def _nothing(stream: Any) -> None:
    pass


@pytest.mark.parametrize("wire", ["aiohttp", "aiohttp streaming"])
@pytest.mark.asyncio
async def test_60_a_name_that_moves(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry after a refused connection goes to the name's new address."""
    import socket

    loop = asyncio.get_running_loop()
    asked = []

    async def moved(host: str, port: int, **_: Any) -> Any:
        asked.append(host)
        address = "127.0.0.2" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    async with raw_server(replies(answer(b'{"a": 1}'))) as server:
        monkeypatch.setattr(loop, "getaddrinfo", moved)
        async with HTTPClient(retry=Retry(attempts=3, wait=0)) as http:
            endpoint = http.endpoint("POST", f"http://moves.test:{server.port}/v1")
            if wire == "aiohttp":
                assert await endpoint.send({}, read=read) == 1
            else:
                stream, _ = await endpoint.open({}, _nothing)
                await stream.aclose()
    assert asked == ["moves.test"] * 2
    assert len(server.requests) == 1


@pytest.mark.parametrize("wire", ["aiohttp", "slots"])
@pytest.mark.parametrize("wrong", ["expired", "elsewhere"])
@pytest.mark.asyncio
async def test_61_a_certificate_that_is_none(wrong: str, wire: str) -> None:
    """One that has run out, or is another host's, is refused, though its authority is trusted; not retried."""
    certificate = str(Path(__file__).with_name(f"{wrong}.pem"))
    of_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    of_server.load_cert_chain(certificate)
    trusted = ssl.create_default_context(cafile=certificate)
    options: dict[str, Any] = {"tls": trusted}
    if wire == "slots":
        options = {"transport": SlotTransport(tls=trusted)}
    async with raw_server(replies(answer(b'{"a": 1}')), of_server) as server:
        async with HTTPClient(retry=Retry(attempts=3, wait=0), **options) as http:
            endpoint = http.endpoint("POST", server.url.replace("http:", "https:"))
            with pytest.raises(errors.RequestRefusedError, match="certificate is not trusted") as caught:
                await endpoint.send({}, read=read)
            assert caught.value.attempts == 1 and not caught.value.sent
        if wire == "slots":
            await options["transport"].aclose()


@pytest.mark.asyncio
async def test_57_odd_but_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte order mark, half a surrogate pair, and white space around are no faults."""
    bodies = [b'\xef\xbb\xbf{"a": "bom"}', b'{"a": "\\ud83d"}', b' \r\n{"a": "space"}\n']
    async with raw_server(replies(*(answer(body) for body in bodies))) as server, HTTPClient() as http:
        endpoint = http.endpoint("POST", server.url)
        assert [await endpoint.send({}, read=read) for _ in bodies] == ["bom", "\ud83d", "space"]


@pytest.mark.asyncio
async def test_65_a_full_pool_is_no_fault_of_the_server() -> None:
    """A user's own client whose pool is full gives a connect timeout: not sent, and worth another try."""

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.server.hang(talk)

    limits = httpx.Limits(max_connections=1)
    async with raw_server(script) as server:
        async with httpx.AsyncClient(limits=limits, trust_env=False) as own:
            async with HTTPClient(client=own, retry=None, timeout=Timeouts(connect=0.2)) as http:
                holds = asyncio.create_task(http.get(server.url))
                await server.reached.wait()
                with pytest.raises(errors.HTTPTimeoutError, match="no connection in time") as caught:
                    await http.get(server.url)
                assert caught.value.phase == "connect" and not caught.value.sent
                holds.cancel()
                await asyncio.gather(holds, return_exceptions=True)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.asyncio
async def test_51_tls_handshake_hangs(wire: str) -> None:
    """A server that accepts and never speaks TLS is left after the connect timeout."""

    async def script(talk: Conversation) -> None:
        await talk.server.hang(talk)

    options = WIRES[wire]()
    async with raw_server(script) as server:
        async with HTTPClient(retry=None, timeout=Timeouts(connect=0.2, total=5), **options) as http:
            with pytest.raises(errors.HTTPTimeoutError, match="no connection in time") as caught:
                await http.get(server.url.replace("http:", "https:"))
            assert caught.value.phase == "connect" and not caught.value.sent
        for opened in options.values():
            await opened.aclose()
