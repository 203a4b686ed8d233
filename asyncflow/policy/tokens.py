"""How many tokens a call will use, guessed before it is made, from what the calls before it reported.

`max_tokens` is what a call may write, not what it will: a quota that is reserved at a `max_tokens` twenty
times too high is used to a twentieth. So the output is reserved at the 95th percentile of those observed, and
the prompt at so many tokens a byte as prompts turned out to have. Both are settled when the answer says what
it used.
"""

from __future__ import annotations

import bisect
import math
from collections import deque

#: Answers that the percentile is taken over.
_WINDOW = 512
#: Below so many, the percentile of a sample is no better than its largest, with something added.
_FEW = 20
#: What an answer is taken to be before any was seen, where the call sets no limit of its own.
_UNSEEN = 1024
_PERCENTILE = 0.95
#: What the first guess at tokens per byte weighs, in bytes; and what each call leaves of the older ones.
_PRIOR_BYTES = 200.0
_KEEP = 0.99


class Tokens(int):
    """So many tokens in all, which know what they are made of: what a call is to reserve, or has used.

    Args:
        read, written: Tokens of the prompt, and of the answer.
        cached: Those of the prompt that come from the provider's prompt cache.
        longest: The longest that the answer may be; by default `written`.
        weight: How long the answer is likely to be, beside the other answers of its model.

    Example:
        >>> tokens = Tokens(100, 20, cached=80)
        >>> tokens, tokens.read, tokens.written, tokens.cached
        (120, 100, 20, 80)
    """

    read: int
    written: int
    cached: int
    longest: int
    weight: float

    def __new__(
        cls, read: int, written: int = 0, *, cached: int = 0, longest: int | None = None, weight: float = 1.0
    ) -> Tokens:
        self = super().__new__(cls, read + written)
        self.read, self.written, self.cached = read, written, cached
        self.longest = written if longest is None else longest
        self.weight = weight if self.longest else 0.0
        return self


class TokenEstimate:
    """Learns what calls use. One for each model: what it has seen is what the next guess rests on.

    Args:
        tokens_per_byte: The first guess, until answers tell.

    Example:
        >>> estimate = TokenEstimate()
        >>> estimate.reserve(400, max_tokens=4000)
        4100
        >>> for _ in range(50):
        ...     estimate.learn(400, input_tokens=100, output_tokens=200)
        >>> estimate.reserve(400, max_tokens=4000)
        300
    """

    __slots__ = ("_bytes", "_cached", "_input", "_newest", "_sorted")

    def __init__(self, tokens_per_byte: float = 0.25) -> None:
        if not 0 < tokens_per_byte < math.inf:
            raise ValueError(
                f"TokenEstimate(tokens_per_byte={tokens_per_byte!r}): a number above 0 is needed"
            )
        self._bytes = _PRIOR_BYTES
        self._input = _PRIOR_BYTES * tokens_per_byte
        self._cached = 0.0
        self._newest: deque[int] = deque(maxlen=_WINDOW)
        self._sorted: list[int] = []

    @property
    def answers(self) -> int:
        """Answers that it has learnt from, of those that still count."""
        return len(self._newest)

    def input_tokens(self, size_bytes: int) -> int:
        """Tokens that a prompt of this size has, on average."""
        return math.ceil(size_bytes * self._input / self._bytes - 1e-9)

    def most_input_tokens(self, size_bytes: int) -> int:
        """Tokens that a prompt of this size has at most: one a byte, or twice the average once known."""
        if len(self._newest) < _FEW:
            return size_bytes
        return min(size_bytes, 2 * self.input_tokens(size_bytes))

    def output_tokens(self, max_tokens: int | None = None) -> int:
        """Tokens that nineteen of twenty answers stay within, and never more than `max_tokens`."""
        seen = self._sorted
        if not seen:
            guess = _UNSEEN if max_tokens is None else max_tokens
        elif len(seen) < _FEW:
            guess = math.ceil(seen[-1] * 1.25)
        else:
            guess = seen[math.ceil(_PERCENTILE * len(seen)) - 1]
        return guess if max_tokens is None else min(guess, max_tokens)

    def reserve(self, size_bytes: int, max_tokens: int | None = None) -> Tokens:
        """What to reserve for a call before it is made.

        Args:
            size_bytes: The size of its prompt, measured in the same way in every call.
            max_tokens: The longest answer that it asks for.
        """
        seen = self._sorted[-1] if self._sorted else 0
        return Tokens(
            self.input_tokens(size_bytes),
            self.output_tokens(max_tokens),
            cached=math.floor(size_bytes * self._cached / self._bytes),
            longest=max(_UNSEEN, math.ceil(seen * 1.25)) if max_tokens is None else max_tokens,
            weight=1.0 if max_tokens is None or max_tokens >= seen else self._share_within(max_tokens),
        )

    def _share_within(self, max_tokens: int) -> float:
        """What answers come to that end there, as a share of what they came to."""
        longer = len(self._sorted) - (within := bisect.bisect_left(self._sorted, max_tokens))
        return (sum(self._sorted[:within]) + longer * max_tokens) / sum(self._sorted)

    def learn(
        self, size_bytes: int, input_tokens: int, output_tokens: int, cached_input_tokens: int = 0
    ) -> None:
        """What a call of this size turned out to use. Answers that report nothing teach nothing."""
        if input_tokens > 0 and size_bytes > 0:
            self._bytes = self._bytes * _KEEP + size_bytes
            self._input = self._input * _KEEP + input_tokens
            self._cached = self._cached * _KEEP + cached_input_tokens
        if output_tokens > 0:
            if len(self._newest) == _WINDOW:
                del self._sorted[bisect.bisect_left(self._sorted, self._newest[0])]
            self._newest.append(output_tokens)
            bisect.insort(self._sorted, output_tokens)

    def __repr__(self) -> str:
        return (
            f"<TokenEstimate {self._input / self._bytes:.3f} tokens/byte, output {self.output_tokens()} "
            f"after {len(self._newest)} answers>"
        )
