"""The how-to pages of these rooms: every Python block runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
PAGES = (
    "http.md",
    "structured-output.md",
    "cost-and-cache.md",
    "openai-compatible-servers.md",
    "testing-with-the-simulator.md",
    "limits.md",
)
BLOCKS = [
    pytest.param(block, id=f"{page}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", (HOWTO / page).read_text(), re.S))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_block(
    block: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It runs, and prints what its comments say."""
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "howto", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    for said in re.findall(r"print\(.*\)  # (.*)", block):
        assert said in printed
