"""`asyncflow simulate`: a server until a signal comes."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
import urllib.error
import urllib.request
from typing import Any

import pytest


def chat(base_url: str, text: str) -> Any:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
    with urllib.request.urlopen(urllib.request.Request(base_url + "/chat/completions", body)) as answer:
        return json.load(answer)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no POSIX signals")
def test_it_serves_until_ctrl_c(child: Any) -> None:
    """It prints its addresses, answers, keeps its quota, and ends at Ctrl-C with its counts and code 130."""
    running = child("simulate", "--latency", 0, "--requests-per-minute", 2)
    printed = "".join(running.stdout.readline() for _ in range(3))
    found = re.search(r"OPENAI_BASE_URL=(http://127\.0\.0\.1:\d+/v1)\n +ANTHROPIC_BASE_URL=(\S+)\n", printed)
    assert found and found[1] == found[2] + "/v1" and "no model" in printed
    assert chat(found[1], "Hi")["object"] == chat(found[1], "Ho")["object"] == "chat.completion"
    with pytest.raises(urllib.error.HTTPError) as refused:
        chat(found[1], "Hm")
    refused.value.close()
    assert refused.value.code == 429
    running.send_signal(signal.SIGINT)
    _, stderr = running.communicate(timeout=30)
    assert running.returncode == 130 and "3 requests: 2 answered, 1 refused" in stderr


def test_json_and_sigterm(child: Any) -> None:
    """--json prints the addresses as one line; SIGTERM ends it with code 143."""
    running = child("simulate", "--latency", 0, "--json", "--fault", "500=1", "--script", "-,400")
    urls = json.loads(running.stdout.readline())
    assert chat(urls["base_url"], "Hi")["object"] == "chat.completion"
    with pytest.raises(urllib.error.HTTPError) as refused:
        chat(urls["base_url"], "Hi")
    refused.value.close()
    assert refused.value.code == 400
    with pytest.raises(urllib.error.HTTPError) as failed:
        chat(urls["base_url"], "Hi")
    failed.value.close()
    assert failed.value.code == 500
    running.terminate()
    _, stderr = running.communicate(timeout=30)
    assert running.returncode == 143 and "2 met a fault" in stderr


def test_a_port_that_is_taken(here: Any) -> None:
    """It is said in one line; exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = here("simulate", "--port", taken.getsockname()[1])
    assert ran.returncode == 2 and "is in use by another program; name another" in ran.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("fault", "500"),
        ("fault", "500=much"),
        ("fault", "explode=0.5"),
        ("fault", "500=2"),
        ("script", "200"),
    ],
)
def test_wrong_faults(here: Any, option: str, value: str) -> None:
    """A fault that does not exist, or has no share, is said; exit code 2."""
    ran = here("simulate", f"--{option}", value)
    assert ran.returncode == 2 and "fault" in ran.stderr
