"""What has come of one streamed answer, and what that costs, however it ends."""

from __future__ import annotations

from collections.abc import Callable

from asyncflow.http import Stream
from asyncflow.llm.completion import Usage
from asyncflow.llm.spending import CallMeter, tokens_of
from asyncflow.policy.ending import Ending, ending_of

#: How an answer ends that the provider itself ended. Where nothing had come of it, nothing is paid.
_BY_PROVIDER = frozenset({Ending.REFUSED, Ending.DENIED, Ending.FAILED, Ending.ANSWERED})


class Received:
    """Counts a streamed answer when it is left: read to its end, cut, cancelled, or let go.

    An answer that tells its usage counts as that. One that was left before counts as what had come of it by
    then; so a lane gets back what was reserved for the rest. One that was cut counts as an answer of its kind
    does, if less had come: its provider may have gone on. One that the provider refuses before its first text
    counts as nothing.

    Args:
        meter: What its call may use; learns from answers that came whole.
        size_bytes: The size of its request.
        spend: Takes what it used, once for each attempt.
    """

    __slots__ = ("_meter", "_size_bytes", "_spend", "release", "texts", "usage", "whole")

    def __init__(self, meter: CallMeter, size_bytes: int, spend: Callable[[Usage], None]) -> None:
        self._meter = meter
        self._size_bytes = size_bytes
        self._spend = spend
        self.texts: list[str] = []
        self.usage = Usage(reported=False)
        self.whole = False
        #: Gives back what the stream holds, once it is open.
        self.release: Callable[[], None] | None = None

    def begin(self, stream: Stream) -> None:
        """A new attempt starts from nothing."""
        self.texts, self.usage, self.whole = [], Usage(reported=False), False

        def left(kind: object, exc: BaseException | None, tb: object) -> None:
            self._left(stream, ending_of(exc))

        stream.leave.push(left)

    def take(self, usage: Usage) -> None:
        """An event tells of usage: the largest numbers count."""
        old = self.usage
        self.usage = Usage(
            max(old.input_tokens, usage.input_tokens),
            max(old.output_tokens, usage.output_tokens),
            max(old.cached_input_tokens, usage.cached_input_tokens),
            old.reported or usage.reported,
            max(old.cache_write_input_tokens, usage.cache_write_input_tokens),
        )

    def _left(self, stream: Stream, ending: Ending) -> None:
        used = Usage()
        if self.texts or ending not in _BY_PROVIDER:
            used = self._meter.counted(self._size_bytes, self.usage, "".join(self.texts), whole=self.whole)
        if ending is Ending.CUT:  # the provider may have gone on
            used = max(used, self._meter.probable(self._size_bytes), key=lambda usage: usage.output_tokens)
        stream.ticket.used(tokens_of(used))
        self._spend(used)
        if self.release is not None:
            self.release()
