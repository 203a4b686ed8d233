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


@pytest.mark.parametrize("page", PAGES)
def test_page(
    page: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its blocks run, one after the other, and print what their comments say."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in re.findall(r"```python\n(.*?)```", (HOWTO / page).read_text(), re.S):
        exec(compile(block, page, "exec"), names)
        printed = capsys.readouterr().out
        for said in re.findall(r"print\(.*\)  # (.*)", block):
            assert said in printed
