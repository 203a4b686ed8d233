"""Fixtures of tests on PostgreSQL: one server for the session, an empty database for each test.

Where there is none, the tests that need it are left out, and the end of the report says so in red.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.postgres_server import NoServerError, Server

_CONNECTED = "SELECT query FROM pg_stat_activity WHERE application_name = 'asyncflow'"
_missing: list[str] = []
_left_out: list[str] = []


@pytest.fixture(scope="session")
def _postgres_server() -> Iterator[Server | None]:
    try:
        server = Server()
    except NoServerError as exc:
        _missing.append(str(exc))
        yield None
        return
    yield server
    server.remove()


@pytest.fixture
def postgres(_postgres_server: Server | None, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A running server whose database `postgres` is empty."""
    if _postgres_server is None:
        _left_out.append(request.node.nodeid)
        pytest.skip(f"PostgreSQL: {_missing[0]}")
    yield _postgres_server
    until = time.monotonic() + 5  # the server's part of a closed connection ends a moment later
    while (connected := _postgres_server.ask(_CONNECTED)) and time.monotonic() < until:
        time.sleep(0.005)
    _postgres_server.ask("DROP SCHEMA IF EXISTS asyncflow CASCADE")
    assert not connected, f"connections were left behind: {connected}"


@pytest.fixture
def postgres_url(postgres: Server) -> str:
    """The URL of an empty database."""
    return postgres.url()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _left_out:
        terminalreporter.section("PostgreSQL was NOT tested", sep="!", red=True, bold=True)
        terminalreporter.line(f"{len(_left_out)} tests did not run: {_missing[0]}", red=True)
