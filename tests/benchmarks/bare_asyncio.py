"""What the number of connections alone costs: asyncio's own protocol, no HTTP library, no garbage to collect.

    python -m tests.benchmarks.bare_asyncio [--seconds 1] [--repeat 5] [--at 64 500 1000]

The same server and size of request as `http_calls`, and one connection, one task and one future for each call
under way. What falls here from 64 to 1,000 falls in every client on asyncio.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys

from tests.benchmarks import http_calls

REQUEST = b"POST / HTTP/1.1\r\ncontent-length: 300\r\n\r\n" + b"x" * 300


class Asking(asyncio.Protocol):
    """Sends a request, and takes the first data that comes for its answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.waiting: asyncio.Future[bytes] | None = None

    def ask(self) -> asyncio.Future[bytes]:
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(REQUEST)
        return self.waiting

    def data_received(self, data: bytes) -> None:
        waiting, self.waiting = self.waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(data)


async def compare(port: int, at: list[int], seconds: float, repeat: int) -> None:
    loop = asyncio.get_running_loop()
    print(f"{'at once':>8}{'req/s':>9}{'CPU µs':>9}")
    for at_once in at:
        connections = [(await loop.create_connection(Asking, "127.0.0.1", port))[1] for _ in range(at_once)]

        async def call() -> object:
            connection = connections.pop()
            answer = await connection.ask()
            connections.append(connection)
            return answer

        turns = [await http_calls.measure(call, at_once, seconds) for _ in range(repeat)]
        for connection in connections:
            connection.transport.close()
        rate, cpu = max(turns)
        print(f"{at_once:>8}{rate:>9,.0f}{cpu:>9,.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--at", type=int, nargs="+", default=[64, 500, 1000])
    options = parser.parse_args()
    server = subprocess.Popen(
        [sys.executable, http_calls.__file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdout is not None and server.stdin is not None
    try:
        asyncio.run(compare(int(server.stdout.readline()), options.at, options.seconds, options.repeat))
    finally:
        server.stdin.close()
        server.wait(5)


if __name__ == "__main__":
    main()
