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
        self._line: list[str] = []  # pieces of the line that has not ended
        self._name = ""
        self._data: list[str] = []
        self.held = 0  #: Characters kept for an event that has not ended.

    def feed(self, piece: bytes) -> list[Event]:
        """The events that end in this piece."""
        text = self._decode(piece)
        self.held += len(text)
        if self._line and self._line[-1] == "\r":
            text = self._line.pop() + text
        # A \r at the very end may be half of a \r\n: what follows will tell.
        half = text.endswith("\r")
        lines = _LINE_END.split(text[:-1] if half else text)
        last = lines.pop()
        if lines:
            lines[0] = "".join(self._line) + lines[0]
            self._line.clear()
        self._line += [last, "\r"] if half else [last]
        return [event for line in lines for event in self._take(line)]

    def _take(self, line: str) -> list[Event]:
        if line:
            self._field(line)
            return []
        found = [Event(self._name or "message", "\n".join(self._data))] if self._data else []
        self._name, self._data, self.held = "", [], 0
        return found

    def _field(self, line: str) -> None:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
