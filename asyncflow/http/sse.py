"""Server-sent events: bytes as they come in, events out.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        name: Its `event` field; `"message"` where it has none.
        data: Its `data` lines, joined with newlines.
    """

    name: str
    data: str


class EventDecoder:
    """Turns the pieces of a body into events, wherever the pieces are cut.

    Comments (`: keep-alive`) and fields that nobody here needs are passed over. An event that is not ended by
    an empty line when the body ends is no event, as the standard says.

    Example:
        >>> decoder = EventDecoder()
        >>> decoder.feed(b": hello\\n\\ndata: a\\nda"), decoder.feed(b"ta: b\\n\\n")
        ([], [Event(name='message', data='a\\nb')])
    """

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
        self._rest = ""
        self._name = ""
        self._data: list[str] = []

    @property
    def held(self) -> int:
        """Characters kept for an event that has not ended."""
        return len(self._rest) + sum(map(len, self._data))

    def feed(self, piece: bytes) -> list[Event]:
        """The events that end in this piece."""
        text = self._rest + self._decode(piece)
        # A \r at the very end may be half of a \r\n: what follows will tell.
        held = "\r" if text.endswith("\r") else ""
        lines = _LINE_END.split(text[: len(text) - len(held)])
        self._rest = lines.pop() + held
        events = []
        for line in lines:
            if line:
                self._field(line)
                continue
            if self._data:
                events.append(Event(self._name or "message", "\n".join(self._data)))
            self._name, self._data = "", []
        return events

    def _field(self, line: str) -> None:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
