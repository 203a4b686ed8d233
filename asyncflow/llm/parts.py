"""What images, sounds and files in a request are worth in tokens: guesses that stand until answers tell.

They travel as Base64, whose length says little: an image costs by its pixels, a sound by its seconds, a file
by its pages. So their bytes are not counted as text, and each is taken for what it mostly costs.

Source: the providers' own figures, as of 2026. Images: Anthropic, at most about 1,600 tokens, and up to 4,784
with models for fine detail (https://platform.claude.com/docs/en/build-with-claude/vision); OpenAI, 765 for
1024 × 1024 and up to 1,536 (https://platform.openai.com/docs/guides/images-vision). Sounds: OpenAI, ten a
second. PDF files: Anthropic, 1,500 to 3,000 a page for the text, and an image of each page
(https://platform.claude.com/docs/en/build-with-claude/pdf-support).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: Tokens of an image, of whatever size.
IMAGE = 1600
#: Bytes of Base64 for each token of a sound (60 kbit a second), and the tokens of one that is only named.
SOUND_BYTES, SOUND = 1000, 100
#: Bytes of Base64 for each token of a file, and the tokens of one that is only named: about a page.
FILE_BYTES, FILE = 25, 3000

#: Bytes of text that a token is taken for at first, as `TokenEstimate` does.
_TEXT_BYTES = 4

_IMAGES = frozenset({"image_url", "image", "input_image"})
_SOUNDS = frozenset({"input_audio", "audio_url", "audio"})
_FILES = frozenset({"file", "document", "input_file"})


def not_text(body: Mapping[str, Any]) -> int:
    """By how many bytes a request is longer than one with text of the same worth in place of its parts.

    Below 0 where parts are named by an address, and so are worth more than they are long.

    Example:
        >>> image = {"type": "image_url", "image_url": {"url": "x" * 10_000}}
        >>> not_text({"messages": [{"role": "user", "content": [image]}]})
        3600
        >>> not_text({"messages": [{"role": "user", "content": "x" * 10_000}]})
        0
    """
    messages = body.get("messages")
    if not isinstance(messages, list):
        return 0
    return sum(
        len(data) - _TEXT_BYTES * worth
        for message in messages
        if isinstance(message, Mapping)
        for data, worth in _parts(message.get("content"))
    )


def _parts(content: Any) -> Iterator[tuple[str, int]]:
    """What each part that is no text holds, and how many tokens it is taken for."""
    for part in content if isinstance(content, list) else ():
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "tool_result":
            yield from _parts(part.get("content"))
        elif kind in _IMAGES:
            yield _data(part, kind), IMAGE
        elif kind in _SOUNDS:
            data = _data(part, kind)
            yield data, max(SOUND, len(data) // SOUND_BYTES)
        elif kind in _FILES and not _is_text(part):
            data = _data(part, kind)
            yield data, max(FILE, len(data) // FILE_BYTES)


def _data(part: Mapping[str, Any], kind: str) -> str:
    """The Base64 of a part, or its address; whichever of the protocols' fields holds it."""
    inner = part.get(kind, part.get("source"))
    if isinstance(inner, Mapping):
        inner = next((inner[name] for name in ("data", "file_data", "url") if inner.get(name)), "")
    return inner if isinstance(inner, str) else ""


def _is_text(part: Mapping[str, Any]) -> bool:
    """Whether it is a document of Anthropic's that is text as it stands."""
    source = part.get("source")
    return isinstance(source, Mapping) and source.get("type") in ("text", "content")
