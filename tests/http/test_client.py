"""asyncflow/http/client.py: one HTTP call done well, to any endpoint."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from asyncflow import errors
from asyncflow.clock import FakeClock
from asyncflow.http import HTTPClient, SlotTransport, Timeouts
from asyncflow.http.body import encode_json
from asyncflow.http.call import Call, Target
from asyncflow.http.stream import Stream
from asyncflow.http.timeouts import TOTAL
from asyncflow.llm import LLMClient
from asyncflow.policy.retry import Retry
from asyncflow.testing import SimulatedProvider
from tests.http.raw import Conversation, answer, raw_server, replies

CERTIFICATE = Path(__file__).with_name("loopback.pem")
AGAIN = Retry(attempts=3, wait=0)


def lines(request: bytes) -> list[str]:
    return request.partition(b"\r\n\r\n")[0].decode().lower().split("\r\n")


@pytest.mark.asyncio
async def test_get_and_post() -> None:
    """Addresses, parameters and the three kinds of body; the answer is an httpx.Response that is read."""
    async with raw_server(replies(answer(b'{"a": 1}'))) as server:
        async with HTTPClient(base_url=server.url + "/v1", headers={"x-me": "1"}) as http:
            response = await http.get("items", params={"q": "a b"})
            assert isinstance(response, httpx.Response) and response.json() == {"a": 1}
            assert response.is_closed and response.text == '{"a": 1}' and list(response.iter_lines())
            await http.post("/items", json={"b": "é"})
            await http.post(server.url + "/x", data={"c": "d e"})
            await http.request("put", "y", content="raw", headers={"content-type": "text/plain"})
            with pytest.raises(ValueError, match="use one"):
                await http.post("", json=1, content=b"")
            assert http.statistics().calls == 4 and "calls=4" in repr(http)
    got = server.requests
    method, target, version = lines(got[0])[0].split()
    assert (method, version) == ("get", "http/1.1") and "x-me: 1" in lines(got[0])
    asked = httpx.URL(target)  # a blank is `+` or `%20`, as the version of httpx has it
    assert (asked.path, dict(asked.params)) == ("/v1/items", {"q": "a b"})
    assert got[1].endswith('{"b":"é"}'.encode()) and "content-type: application/json" in lines(got[1])
    assert dict(httpx.QueryParams(got[2].partition(b"\r\n\r\n")[2])) == {"c": "d e"} and lines(got[2])[
        0
    ].startswith("post /x ")
    assert got[3].endswith(b"raw") and "content-type: text/plain" in lines(got[3])


@pytest.mark.parametrize("wire", ["aiohttp", "slots"])
@pytest.mark.asyncio
async def test_answers_without_a_body(wire: str) -> None:
    """HEAD of something huge, 204 and 304 are read at once, and their connection is kept."""

    async def script(talk: Conversation) -> None:
        for head in ("200 OK\r\nContent-Length: 999999999999", "204 No Content", "304 Not Modified"):
            await talk.request()
            await talk.send(f"HTTP/1.1 {head}\r\n\r\n".encode())
        await talk.server.hang(talk)

    transport = SlotTransport() if wire == "slots" else None
    async with raw_server(script) as server:
        async with HTTPClient(retry=None, transport=transport) as http:
            answers = [await http.request(method, server.url) for method in ("HEAD", "GET", "GET")]
        if transport is not None:
            await transport.aclose()
    assert [answer.status_code for answer in answers] == [200, 204, 304]
    assert [answer.content for answer in answers] == [b""] * 3 and server.connections == 1


@pytest.mark.parametrize("wire", ["aiohttp", "slots"])
@pytest.mark.asyncio
async def test_no_repeats_but_ours(wire: str) -> None:
    """What is under the client repeats nothing by itself, a GET neither: attempts are what was sent."""

    async def script(talk: Conversation) -> None:
        await talk.request()
        talk.reset()

    transport = SlotTransport() if wire == "slots" else None
    async with raw_server(script) as server:
        for retry, asked in ((None, 1), (Retry(attempts=2, wait=0), 2)):
            server.requests.clear()
            async with HTTPClient(retry=retry, transport=transport) as http:
                with pytest.raises(errors.HTTPConnectionError):
                    await http.get(server.url)
                assert http.statistics().attempts == asked == len(server.requests)
    if transport is not None:
        await transport.aclose()


@pytest.mark.asyncio
async def test_accepted_statuses() -> None:
    """A status that the caller expects is an answer, not an error."""
    async with raw_server(replies(answer(b"", "404 No"))) as server:
        async with HTTPClient() as http:
            assert (await http.get(server.url, accept={404})).status_code == 404
            with pytest.raises(errors.RequestRefusedError):
                await http.get(server.url)


@pytest.mark.parametrize(
    ("method", "headers", "asked"),
    [
        ("GET", {}, 3),
        ("PUT", {}, 3),
        ("POST", {}, 1),
        ("PATCH", {}, 1),
        ("POST", {"Idempotency-Key": "1"}, 3),
    ],
)
@pytest.mark.asyncio
async def test_what_may_not_arrive_twice_is_not_repeated(
    method: str, headers: dict[str, str], asked: int
) -> None:
    """A POST that the server may have carried out is left to the caller, unless marked as repeatable."""
    async with raw_server(replies(answer(b"", "500 X"))) as server:
        async with HTTPClient(retry=AGAIN) as http:
            with pytest.raises(errors.ServerError):
                await http.request(method, server.url, headers=headers)
    assert len(server.requests) == asked


@pytest.mark.asyncio
async def test_a_refused_post_is_repeated() -> None:
    """429 says that it was not carried out; and a connection that never stood carried nothing."""
    refused = answer(b"", "429 X", "retry-after-ms: 1\r\n")
    async with raw_server(replies(refused, answer())) as server:
        async with HTTPClient(retry=AGAIN) as http:
            assert (await http.post(server.url)).status_code == 200
            with pytest.raises(errors.HTTPConnectionError) as caught:
                await http.post("http://127.0.0.1:1")
            assert caught.value.attempts == 3


@pytest.mark.asyncio
async def test_a_wait_past_all_patience() -> None:
    """A server that asks for more than an hour has the call fail now, with the wait in the error."""
    async with raw_server(replies(answer(b"", "429 X", "retry-after: 7200\r\n"))) as server:
        async with HTTPClient() as http:
            with pytest.raises(errors.RateLimitedError) as caught:
                await http.get(server.url)
    assert caught.value.retry_after == 7200 and caught.value.attempts == 1


@pytest.mark.asyncio
async def test_redirects() -> None:
    """Followed; 303 turns into GET without the body, 307 keeps both; credentials stay with their origin."""
    async with raw_server(replies(answer(b"end"))) as other:

        async def script(talk: Conversation) -> None:
            while True:
                asked = await talk.request()
                code, place = (303, "/there") if b" /see " in asked else (307, other.url + "/elsewhere")
                if b" /there" in asked:
                    await talk.send(answer(b"there"))
                else:
                    await talk.send(answer(b"", f"{code} X", f"Location: {place}\r\n"))

        async with raw_server(script) as server:
            secrets = {"authorization": "Bearer k", "x-api-key": "k", "cookie": "c=1", "x-other": "1"}
            async with HTTPClient(headers=secrets) as http:
                assert (await http.post(server.url + "/see", json=1)).content == b"there"
                assert (await http.post(server.url + "/move", json=1)).content == b"end"
    followed = server.requests[1]
    assert lines(followed)[0].startswith("get /there") and "authorization: bearer k" in lines(followed)
    assert not followed.endswith(b"1")
    moved = other.requests[0]
    assert lines(moved)[0].startswith("post /elsewhere") and moved.endswith(b"1")
    assert "x-other: 1" in lines(moved) and f"host: 127.0.0.1:{other.port}" in lines(moved)
    assert not any(line.startswith(("authorization", "x-api-key", "cookie")) for line in lines(moved))


@pytest.mark.parametrize("by", ["headers", "auth"])
@pytest.mark.asyncio
async def test_redirects_through_a_client_of_ones_own(by: str) -> None:
    """What it adds to every request stays with the origin too; cookies go where its jar sends them."""
    options: dict[str, Any] = {"headers": {"authorization": "Bearer k", "x-other": "1"}}
    if by == "auth":
        options = {"auth": ("me", "k"), "headers": {"x-other": "1"}}
    async with raw_server(replies(answer(b"end"))) as other:

        async def script(talk: Conversation) -> None:
            while True:
                asked = await talk.request()
                place = "/there" if b" /see" in asked else other.url.replace("127.0.0.1", "localhost")
                await talk.send(answer(b"", "302 X", f"Location: {place}\r\nSet-Cookie: c=1\r\n"))

        async with raw_server(script) as server, httpx.AsyncClient(**options) as own:
            async with HTTPClient(client=own) as http:
                assert (await http.get(server.url + "/see")).content == b"end"
    first, second, away = lines(server.requests[0]), lines(server.requests[1]), lines(other.requests[0])
    assert any(line.startswith("authorization") for line in first)
    assert any(line.startswith("authorization") for line in second) and "cookie: c=1" in second
    assert not any(line.startswith(("authorization", "cookie")) for line in away) and "x-other: 1" in away


@pytest.mark.asyncio
async def test_an_address_may_hold_another() -> None:
    """A path that has `://` in its query continues `base_url`, as any path does."""
    async with raw_server(replies(answer(b"in"))) as server:
        async with HTTPClient(base_url=server.url) as http:
            assert (await http.get("/login?next=http://a.b/")).content == b"in"
    assert lines(server.requests[0])[0].startswith("get /login?next=http://a.b/ ")


def tls() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    return context


@pytest.mark.parametrize("wire", ["aiohttp", "slots"])
@pytest.mark.asyncio
async def test_certificates(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown authority is refused and not retried; SSL_CERT_FILE makes it known."""

    def options() -> dict[str, Any]:
        return {} if wire == "aiohttp" else {"transport": SlotTransport(trust_env=False)}

    async with raw_server(replies(answer()), tls()) as server:
        url = server.url.replace("http:", "https:")
        async with HTTPClient(**options()) as http:
            with pytest.raises(errors.RequestRefusedError, match="certificate.*SSL_CERT_FILE") as caught:
                await http.get(url)
            assert caught.value.attempts == 1
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        opened = options()
        async with HTTPClient(**opened) as http:
            assert (await http.get(url)).status_code == 200
        for one in opened.values():
            await one.aclose()


@pytest.mark.asyncio
async def test_a_redirect_from_https_to_http_is_not_followed() -> None:
    """What was private stays private."""
    reply = answer(b"", "302 X", "Location: http://127.0.0.1:1/\r\n")
    trusted = ssl.create_default_context(cafile=str(CERTIFICATE))
    async with raw_server(replies(reply), tls()) as server:
        async with HTTPClient(tls=trusted) as http:
            with pytest.raises(errors.RedirectError, match="from https to http"):
                await http.get(server.url.replace("http:", "https:"))


@pytest.mark.parametrize("wire", ["aiohttp", "slots"])
@pytest.mark.asyncio
async def test_proxies(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY is used, NO_PROXY respected, a proxy's refusal told, and trust_env=False ignores them."""
    for name in ("HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with (
        raw_server(replies(answer(b"via proxy"))) as proxy,
        raw_server(replies(answer(b"direct"))) as server,
    ):
        monkeypatch.setenv("http_proxy", proxy.url)

        async def get(trust_env: bool = True) -> bytes:
            options: dict[str, Any] = {"trust_env": trust_env}
            if wire == "slots":
                options = {"transport": SlotTransport(trust_env=trust_env)}
            async with HTTPClient(retry=None, **options) as http:
                try:
                    return (await http.get(server.url + "/x")).content
                finally:
                    if "transport" in options:
                        await options["transport"].aclose()

        assert await get() == b"via proxy"
        assert lines(proxy.requests[0])[0] == f"get {server.url}/x http/1.1"
        assert await get(trust_env=False) == b"direct"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert await get() == b"direct"
        monkeypatch.delenv("no_proxy")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        with pytest.raises(errors.HTTPConnectionError):
            await get()
        if wire == "aiohttp":
            monkeypatch.setenv("http_proxy", "socks5://me:canary@127.0.0.1:1")
            with pytest.raises(errors.RequestRefusedError, match="a socks5 proxy") as caught:
                await get()
            assert "canary" not in str(caught.value)


@pytest.mark.parametrize("wire", ["aiohttp", "slots"])
@pytest.mark.asyncio
async def test_a_proxy_that_wants_a_password(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused CONNECT is a connection error that names the status."""
    reply = answer(b"", "407 Proxy Authentication Required")
    async with raw_server(replies(reply)) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        transport = SlotTransport() if wire == "slots" else None
        async with HTTPClient(retry=None, transport=transport) as http:
            with pytest.raises(errors.HTTPConnectionError, match="407"):
                await http.get("https://example.test/")
        if transport is not None:
            await transport.aclose()


@pytest.mark.asyncio
async def test_errors_hold_no_secret() -> None:
    """User, password and query of an address do not get into the error's text or fields."""
    async with raw_server(replies(answer(b"nope", "400 X"))) as server:
        async with HTTPClient() as http:
            with pytest.raises(errors.RequestRefusedError) as caught:
                await http.get(server.url.replace("//", "//me:canary@") + "/x?key=canary#canary")
    assert "canary" not in str(caught.value) + repr(vars(caught.value))
    assert caught.value.url == server.url + "/x"


@pytest.mark.parametrize("wire", ["aiohttp", "slots"])
@pytest.mark.asyncio
async def test_user_and_password_in_an_address(wire: str) -> None:
    """They are sent as the header that they stand for, and not in the address."""
    transport = SlotTransport() if wire == "slots" else None
    async with raw_server(replies(answer())) as server:
        async with HTTPClient(transport=transport) as http:
            await http.get(server.url.replace("//", "//me:p%40w@") + "/x")
    if transport is not None:
        await transport.aclose()
    assert lines(server.requests[0])[0] == "get /x http/1.1"
    assert b"uthorization: Basic bWU6cEB3" in server.requests[0] and b"p%40w" not in server.requests[0]


@pytest.mark.asyncio
async def test_json_that_is_none() -> None:
    """What JSON does not know is told before anything is sent; half a surrogate pair is escaped."""
    with pytest.raises(ValueError, match="JSON compliant"):
        encode_json({"a": float("nan")})
    assert encode_json("\ud83d") == b'"\\ud83d"'


@pytest.mark.asyncio
async def test_timeouts_are_checked() -> None:
    """Zero, negative, NaN and text are no durations; infinity switches a limit off."""
    for value in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="above 0"):
            Timeouts(read=value)
    with pytest.raises(TypeError, match="number"):
        Timeouts(total="5")  # type: ignore[arg-type]
    assert Timeouts(total=float("inf")).as_httpx()["read"] == 300
    async with raw_server(replies(answer())) as server:
        async with HTTPClient(timeout=Timeouts(*[float("inf")] * 4)) as http:
            assert (await http.get(server.url)).status_code == 200


@pytest.mark.asyncio
async def test_two_ways_at_once() -> None:
    """client= and transport= exclude each other."""
    async with httpx.AsyncClient() as own:
        with pytest.raises(ValueError, match="give one"):
            HTTPClient(client=own, transport=SlotTransport())


@pytest.mark.asyncio
async def test_opening_costs_nothing_without_a_call() -> None:
    """A client that was never used has nothing to close, and may be closed twice."""
    http = HTTPClient()
    await http.aclose()
    await http.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.asyncio
async def test_a_closed_client() -> None:
    """Calls under way fail when it closes, later ones too, nothing is opened again; entering opens it."""

    async def script(talk: Conversation) -> None:
        await talk.request()
        if b" /hang" in talk.server.requests[-1]:
            await talk.server.hang(talk)
        await talk.send(answer())

    async with raw_server(script) as server:
        http = HTTPClient(retry=Retry(attempts=2, wait=0))
        async with http:
            under_way = asyncio.create_task(http.get(server.url + "/hang"))
            await server.reached.wait()
        with pytest.raises(RuntimeError, match="this client is closed"):
            await under_way
        with pytest.raises(RuntimeError, match="inside its `async with`"):
            await http.get(server.url)
        assert server.connections == 1 and http.statistics().failed == 2
        async with http:
            assert (await http.get(server.url)).status_code == 200


@pytest.mark.parametrize(
    "text",
    [
        *("localhost:8000/v1", "127.0.0.1:8000", "http://", "ftp://a.b/", "/v1", "example.com"),
        "http://127.0.0.1:99999",
    ],
)
@pytest.mark.asyncio
async def test_addresses_that_are_none(text: str) -> None:
    """Told when the client is made, or before anything is sent, and without what may be secret in it."""
    for make in (lambda: HTTPClient(base_url=text), lambda: LLMClient("m", base_url=text, api_key="")):
        with pytest.raises(ValueError, match="base_url=.*an address starts with http://"):
            make()
    async with HTTPClient() as http:
        with pytest.raises(ValueError, match="url=.*an address starts with http://"):
            await http.get(text)
    with pytest.raises(ValueError) as caught:
        HTTPClient(base_url="me:canary@host/v1?canary")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("cancel", [False, True])
def test_on_trio(cancel: bool) -> None:
    """The same client works on trio, concurrently, and after a cancelled call."""

    async def main(url: str) -> list[str]:
        texts = []

        async def ask(llm: LLMClient, number: int) -> None:
            texts.append((await llm.complete(f"number {number}")).text)

        async with LLMClient("m", base_url=url, api_key="", concurrency=4) as llm:
            if cancel:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(llm.complete, "hang")
                    while not provider.statistics().running:
                        await trio.sleep(0.001)
                    nursery.cancel_scope.cancel()
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(ask, llm, number)
            assert llm.statistics().running == 0
        return sorted(texts)

    async def reply(asked: Any) -> str:
        if asked.prompt == "hang":
            await asyncio.Event().wait()
        return str(asked.prompt)

    with SimulatedProvider(reply=reply, latency=0) as provider:
        assert trio.run(main, provider.base_url) == sorted(f"number {number}" for number in range(10))


@pytest.mark.parametrize("status", ["200 OK", "500 X"])
@pytest.mark.asyncio
async def test_the_total_ends_an_open_answer_that_is_read_whole(status: str) -> None:
    """On the way of streams too, for what is no stream, and for what an error says."""

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(f"HTTP/1.1 {status}\r\nContent-Length: 9\r\n\r\n{{".encode())
        await talk.server.hang(talk)

    timeouts = Timeouts(read=30, total=0.3)
    async with raw_server(script) as server:
        async with HTTPClient(retry=None) as http:
            call = Call(Target("GET", httpx.URL(server.url), httpx.Headers()), timeouts=timeouts)
            with pytest.raises(errors.HTTPTimeoutError) as caught:
                await asyncio.wait_for(http.open(call, Stream.read_json), 10)
            await server.left.wait()
    assert caught.value.phase == "total"


@pytest.mark.asyncio
async def test_redirects_share_one_total() -> None:
    """Each request that an attempt leads to has what those before it have left of the total."""
    totals: list[float] = []

    def serve(request: httpx.Request) -> httpx.Response:
        totals.append(request.extensions[TOTAL])
        clock.jump(4.0)
        return httpx.Response(302, headers={"location": "/again"})

    with FakeClock(autojump=False) as clock:
        async with HTTPClient(retry=None, timeout=10.0, transport=httpx.MockTransport(serve)) as http:
            with pytest.raises(errors.HTTPTimeoutError) as caught:
                await http.get("http://a.test/")
    assert totals == [10.0, 6.0, 2.0] and caught.value.phase == "total"
