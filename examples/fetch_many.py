"""Fetch and parse many pages, with limits, retries and one broken page in twenty.

    python examples/fetch_many.py            300 pages from a server that it starts itself
    python examples/fetch_many.py 2000

The server runs on this machine and fails now and then on purpose. `HTTPClient` repeats what may be repeated,
`stream` hands pages on as they come, and what stays broken is counted and named, not lost.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from html.parser import HTMLParser

from aiohttp import web

from asyncflow import Ok, stream
from asyncflow.http import HTTPClient


class Links(HTMLParser):
    """The title of a page and the addresses that it links to."""

    def __init__(self) -> None:
        super().__init__()
        self.title = ""
        self.links: list[str] = []
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_title = tag == "title"
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
            self._in_title = False


async def serve(pages: int) -> tuple[web.AppRunner, str]:
    """A small site: every fifth page fails at its first request, every twentieth is not there at all."""
    asked: Counter[int] = Counter()

    async def page(request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        asked[number] += 1
        if number % 20 == 7:
            return web.Response(status=404, text="no such page")
        if number % 5 == 0 and asked[number] == 1:
            return web.Response(status=503, text="busy", headers={"retry-after": "0"})
        following = "".join(f'<a href="/page/{(number + step) % pages}">next</a>' for step in (1, 2, 3))
        return web.Response(
            text=f"<title>Page {number}</title><body>{following}</body>", content_type="text/html"
        )

    app = web.Application()
    app.router.add_get("/page/{number}", page)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


async def fetch_all(pages: int) -> dict[str, object]:
    runner, base = await serve(pages)
    titles, links, errors = [], 0, Counter()
    try:
        async with HTTPClient(base_url=base, timeout=10) as client:

            async def fetch(number: int) -> Links:
                response = await client.get(f"/page/{number}")
                parser = Links()
                parser.feed(response.text)
                return parser

            async for outcome in stream(fetch, range(pages), concurrency=32, on_error="continue"):
                if isinstance(outcome, Ok):
                    titles.append(outcome.value.title)
                    links += len(outcome.value.links)
                else:
                    errors[type(outcome.error).__name__] += 1
            attempts = client.statistics().attempts
    finally:
        await runner.cleanup()
    return {"pages": len(titles), "links": links, "errors": dict(errors), "attempts": attempts}


def main(pages: int = 300) -> dict[str, object]:
    found = asyncio.run(fetch_all(pages))
    print(f"{found['pages']} pages with {found['links']} links, in {found['attempts']} requests")
    print(f"failed: {found['errors']}")
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
