"""asyncflow/testing: a provider on loopback that people test their own flows with."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from typing import Any

import pytest
import trio

from asyncflow import errors
from asyncflow.llm import LLMClient, ToolCall
from asyncflow.testing import Asked, SimulatedProvider
from asyncflow.testing.judging import judge, judge_prompt
from asyncflow.testing.translation import language_asked, pseudo_translate, text_of

README = """# My project

Runs **fast**. See [docs](https://example.org/a_b).
Second line.

- one
- two

1. first

> quoted

```python
# not a heading
print("translate to German:")
```

| a | b |
|---|---|

![logo](x.png)
"""

TRANSLATE = """Please translate the following markdown file into {language}.
But keep the original markdown format, links and code blocks.
Directly return the translated text, without any other text or comments.

Original:
{text}

Translated:"""

JUDGE = """Evaluate the following resume and determine if the candidate qualifies for an advanced role.
Criteria for qualification:
- At least a bachelor's degree in a relevant field
- At least 3 years of relevant work experience

Resume:
{resume}

Return your evaluation in YAML format:
```yaml
candidate_name: [Name of the candidate]
qualifies: [true/false]
reasons:
  - [First reason for qualification/disqualification]
```
"""

GOOD = """# Ada Lovelace
## Education
M.Sc. Computer Science, University of London, 2008 - 2013
## Experience
Engineer at Analytical, 2015 - 2022: Python, SQL, Docker
"""
POOR = 'John Smith\nCashier, 2019 - 2021. Friendly: "people person".'


def test_translation_marks_text_and_keeps_markdown() -> None:
    """Headings, lists and quotations keep their signs; code, tables and images stay as they were."""
    prompt = TRANSLATE.format(language="Chinese", text=README)
    assert language_asked(prompt) == "Chinese" and text_of(prompt) == README.strip("\n")
    lines = pseudo_translate(README, "Chinese").split("\n")
    before = README.split("\n")
    assert len(lines) == len(before)
    changed = {i: line for i, line in enumerate(lines) if line != before[i]}
    assert list(changed.values()) == [
        "# [Chinese] My project",
        "[Chinese] Runs **fast**. See [docs](https://example.org/a_b).",
        "- [Chinese] one",
        "- [Chinese] two",
        "1. [Chinese] first",
        "> [Chinese] quoted",
    ]


def test_judging_by_rules() -> None:
    """A degree, years and skills qualify; studies are no work; the answer is in the form asked for."""
    good, poor = judge(GOOD), judge(POOR)
    assert good.qualifies and good.candidate_name == "Ada Lovelace"
    assert not poor.qualifies and poor.candidate_name == "John Smith"
    assert "experience: 7 years, 3 needed" in good.reasons
    text = judge_prompt(JUDGE.format(resume=GOOD))
    assert text.startswith('```yaml\ncandidate_name: "Ada Lovelace"\nqualifies: true\nreasons:\n  - ')
    assert (
        json.loads(judge_prompt(JUDGE.format(resume=POOR).replace("YAML", "JSON").replace("yaml", "")))[
            "qualifies"
        ]
        is False
    )


@pytest.mark.asyncio
async def test_stand_in_over_the_wire() -> None:
    """The three kinds of answer, through the real client."""
    async with SimulatedProvider(latency=0) as provider:
        async with LLMClient("m", base_url=provider.base_url, api_key="") as llm:
            translated = await llm.complete(TRANSLATE.format(language="French", text=README))
            by_system = await llm.complete("# Hi", system="Translate what the user sends to German.")
            judged = await llm.complete(JUDGE.format(resume=POOR))
            other = await llm.complete("What is the capital of France?")
    first, _, rest = translated.text.partition("\n")
    assert "stand-in, not a translation" in first and rest.startswith("# [French] My project")
    assert "# [German] Hi" in by_system.text
    assert "qualifies: false" in judged.text
    assert "no model was asked" in other.text
    assert translated.usage.input_tokens > 100 and translated.usage.output_tokens > 50


@pytest.mark.asyncio
async def test_log_and_own_reply() -> None:
    """A reply of the user's own sees what was asked; the log keeps it, without the key."""

    async def reply(asked: Asked) -> str:
        return f"{asked.model} {asked.system} {asked.prompt} {asked.occurrence}"

    async with SimulatedProvider(reply=reply, latency=0) as provider:
        async with LLMClient("m", base_url=provider.base_url, api_key="sk-canary") as llm:
            texts = [(await llm.complete("x", system="s")).text for _ in range(2)]
            cut = await llm.complete("x" * 100, max_tokens=2)
        assert texts == ["m s x 0", "m s x 1"]
        assert (len(cut.text), cut.finish_reason, cut.usage.output_tokens) == (8, "length", 2)
        assert [asked.index for asked in provider.log] == [0, 1, 2]
        assert "sk-canary" not in repr([asked.headers for asked in provider.log])
        assert "asked=3" in repr(provider)


@pytest.mark.asyncio
async def test_bad_requests_are_refused() -> None:
    """What the real provider refuses is refused, and not repeated."""
    async with SimulatedProvider(latency=0) as provider:
        async with LLMClient("m", base_url=provider.base_url, api_key="") as llm:
            with pytest.raises(errors.RequestRefusedError, match="messages"):
                await llm.complete("x", extra={"messages": "no list"})
            assert llm.statistics().attempts == 1


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.asyncio
async def test_tools_there_and_back(kind: str) -> None:
    """A reply may want tools called; their results come back in the next request, as the client has them."""

    def reply(asked: Asked) -> str | list[ToolCall]:
        if len(asked.messages) == 1:
            return [ToolCall("call-1", "weather", '{"city": "Rome"}'), ToolCall("call-2", "now", "")]
        return "Sunny"

    question = {"role": "user", "content": "Weather in Rome?"}
    async with SimulatedProvider(reply=reply, latency=0) as provider:
        url = provider.base_url if kind == "openai" else provider.anthropic_base_url
        async with LLMClient("m", provider=kind, base_url=url, api_key="", retry=None) as llm:
            wanted = await llm.complete([question], tools=[{"name": "weather"}])
            if kind == "openai":
                said = wanted.raw["choices"][0]["message"]
                result = {"role": "tool", "tool_call_id": "call-1", "content": "25"}
            else:
                said = {"role": "assistant", "content": wanted.raw["content"]}
                block = {"type": "tool_result", "tool_use_id": "call-1", "content": "25"}
                result = {"role": "user", "content": [block]}
            assert (await llm.complete([question, said, result])).text == "Sunny"
            streamed = llm.stream([question])
            assert [text async for text in streamed] == []
    assert [(call.id, call.name) for call in wanted.tool_calls] == [("call-1", "weather"), ("call-2", "now")]
    assert json.loads(wanted.tool_calls[0].arguments) == {"city": "Rome"} and wanted.text == ""
    assert wanted.finish_reason == streamed.completion.finish_reason == "tool_calls"
    assert wanted.usage.output_tokens > 0 and len(provider.log[1].messages) == 3


@pytest.mark.parametrize("returned", [None, {"a": 1}, [], ["text"], KeyError("mine")])
@pytest.mark.asyncio
async def test_a_reply_that_goes_wrong(returned: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What the user's function raises, or returns by mistake, is told in a short status 500, and logged."""

    def reply(asked: Asked) -> Any:
        if isinstance(returned, Exception):
            raise returned
        return returned

    says = "raised KeyError: 'mine'" if isinstance(returned, Exception) else "a reply is a text, a ToolCall"
    async with SimulatedProvider(reply=reply, latency=0) as provider:
        async with LLMClient("m", base_url=provider.base_url, api_key="", retry=None) as llm:
            with pytest.raises(errors.ServerError, match=f"the reply function .*{says}"):
                await llm.complete("x")
    assert "in reply" in caplog.text or "TypeError" in caplog.text


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.asyncio
async def test_a_schema_that_is_none(kind: str) -> None:
    """The real provider refuses it, and so does this one."""
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}}
    form: dict[str, Any] = {"format": {"type": "json_schema", "schema": schema}}
    extra: dict[str, Any] = {"output_config": form}
    if kind == "openai":
        extra = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
    async with SimulatedProvider(latency=0) as provider:
        url = provider.base_url if kind == "openai" else provider.anthropic_base_url
        async with LLMClient("m", provider=kind, base_url=url, api_key="") as llm:
            with pytest.raises(errors.RequestRefusedError, match="Invalid schema"):
                await llm.complete("x", extra=extra)


def test_latencies_follow_the_seed() -> None:
    """The same seed, content and occurrence give the same latency; each of them changes it."""
    one, again, other = SimulatedProvider(seed=1), SimulatedProvider(seed=1), SimulatedProvider(seed=2)
    assert one.latency_of(b"x") == again.latency_of(b"x") != other.latency_of(b"x")
    assert one.latency_of(b"x") != one.latency_of(b"x", 1) and one.latency_of(b"x") != one.latency_of(b"y")
    many = sorted(one.latency_of(str(i).encode()) for i in range(2001))
    assert 0.045 < many[1000] < 0.055 and many[-1] > 0.1


def test_on_a_thread_for_synchronous_code() -> None:
    """`with` serves on a thread, and leaves none behind."""
    with SimulatedProvider(latency=0) as provider:
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]}).encode()
        request = urllib.request.Request(provider.base_url + "/chat/completions", body)
        with urllib.request.urlopen(request) as response:
            assert json.load(response)["object"] == "chat.completion"
    with pytest.raises(RuntimeError, match="not open"):
        SimulatedProvider().base_url


@pytest.mark.asyncio
async def test_two_at_once_have_ports_of_their_own() -> None:
    """Nothing is shared between two providers."""
    async with SimulatedProvider(latency=0) as a, SimulatedProvider(latency=0) as b:
        assert a.base_url != b.base_url
        await asyncio.sleep(0)


def test_import_needs_no_pytest() -> None:
    """People import it in programs."""
    code = "import sys, asyncflow.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="latency"):
        SimulatedProvider(latency=float("nan"))


def test_on_trio_it_says_how() -> None:
    """`async with` serves in an asyncio loop; on trio the plain `with` is named, which serves on a thread."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="on trio write `with`"):
            async with SimulatedProvider():
                pass

    trio.run(main)


def test_a_reply_that_is_no_function_is_refused() -> None:
    """A text in its place is told at once, with the function that says it."""
    with pytest.raises(TypeError, match="give a function, such as lambda asked: 'hello'"):
        SimulatedProvider(reply="hello")
