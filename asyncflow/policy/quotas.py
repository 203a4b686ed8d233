"""All quotas of one lane together, given or reported: requests, and tokens in all, read, and written. Pure.

Each kind of quota has the same two rules: a rate (`rate`), and what the provider reports of it (`follow`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from asyncflow.policy.follow import KINDS, Amounts, Reports
from asyncflow.policy.rate import Charge, Quota, Rate
from asyncflow.policy.settings import LaneSettings
from asyncflow.policy.tokens import Tokens
from asyncflow.policy.window import Cost

#: What an answer is taken for until answers tell, as a share of the longest that it may be: the average where
#: each order of size down to a twentieth is as likely. That sets only the pace; `longest` is what counts.
_FIRST = (1 - 1 / 20) / math.log(20)


class Charged(NamedTuple):
    """What one call was charged, by kind of quota.

    Attributes:
        tokens: What was reserved.
        amounts: The same by kind.
        position: What all calls until then had reserved, this one included.
        charges: In the rates that there were.
    """

    tokens: int
    amounts: Amounts
    position: Amounts
    charges: list[tuple[int, Rate, Charge]]


class Quotas:
    """When the next call fits into all of them, and what is used.

    Example:
        >>> quotas = Quotas(LaneSettings(requests_per_minute=60, tokens_per_minute=1000))
        >>> charged = quotas.take(0.0, Tokens(100, 200, longest=900))
        >>> quotas.settle(1.0, charged, Tokens(100, 150), sent=True)
        >>> quotas.used(1.0, "requests"), quotas.used(1.0, "tokens"), quotas.used(1.0, "input_tokens")
        (1.0, 250.0, 0.0)
    """

    __slots__ = ("_position", "_rates", "_under_way", "reports")

    def __init__(self, settings: LaneSettings) -> None:
        self.reports = Reports()
        self._rates: dict[int, Rate] = {}  # by kind
        self._position: Amounts = (0.0, 0.0, 0.0, 0.0)
        self._under_way: dict[float, Charged] = {}  # by the number of the call
        self.keep(settings)

    def keep(self, settings: LaneSettings) -> None:
        """Keep to these from now on; what was counted so far stays counted."""
        for kind, name in enumerate(KINDS):
            per_minute = getattr(settings, f"{name}_per_minute")
            if per_minute is None:
                self._rates.pop(kind, None)
            elif kind not in self._rates:
                self._rates[kind] = Rate(Quota(per_minute))
            elif self._rates[kind].quota.amount != per_minute:
                self._rates[kind].requote(per_minute)

    def ready_at(self, now: float, tokens: int) -> float:
        """When to ask again whether the rates let such a call start; `now` or before: they do."""
        ready = -math.inf
        for rate in self._rates.values():
            ready = max(ready, rate.due)
        if ready > now:
            return ready
        for kind, rate in self._rates.items():
            ready = max(ready, rate.ready_at(now, _cost(kind, tokens)))
            if ready > now:
                break
        return ready

    def left_at(self, now: float, tokens: int) -> float:
        """When what is left, by the provider's reports, lets it start."""
        return self.reports.ready_at(now, _amounts(tokens), self._position)

    def take(self, now: float, tokens: int) -> Charged:
        """Charge a call that starts now. Does not ask whether it may."""
        amounts = _amounts(tokens)
        a, b, c, d = self._position
        self._position = (a + amounts[0], b + amounts[1], c + amounts[2], d + amounts[3])
        charges = [(kind, rate, rate.take(now, _cost(kind, tokens))) for kind, rate in self._rates.items()]
        charged = self._under_way[self._position[0]] = Charged(tokens, amounts, self._position, charges)
        return charged

    def settle(self, now: float, charged: Charged, used: int | None, *, sent: bool) -> None:
        """The call has ended.

        Args:
            now: The moment.
            charged: What `take` returned.
            used: Tokens that it used; None: as many as were reserved.
            sent: Whether its request counts.
        """
        self._under_way.pop(charged.position[0], None)
        amounts = charged.amounts if used is None else _amounts(used)
        for kind, rate, charge in charged.charges:
            if kind:
                rate.settle(now, charge, amounts[kind])
            elif not sent:
                rate.settle(now, charge, 0.0)

    def heard(self, now: float, charged: Charged, headers: Mapping[str, str]) -> bool:
        """An answer has come to a call. True: what the provider allows a minute has changed."""
        return self.reports.heard(now, charged.position, headers)

    def follow(self, now: float, charged: Charged, settings: LaneSettings) -> None:
        """Keep to what an answer to this call reported; a new rate begins with what was used before."""
        before = set(self._rates)
        self.keep(settings)
        for kind in self._rates.keys() - before:
            rate = self._rates[kind]
            rate.seen(now, self.reports.quotas[kind].used)
            for call in self._under_way.values():
                if call.position[0] > charged.position[0]:  # the report does not know of it
                    call.charges.append((kind, rate, rate.take(now, _cost(kind, call.tokens))))

    def used_up(self, charged: Charged) -> bool:
        """Whether a refusal of that call was for a quota, by its own report."""
        return self.reports.used_up(charged.amounts, charged.position)

    def used(self, now: float, name: str) -> float:
        """What the last minute has used of one kind; 0 where there is no rate."""
        rate = self._rates.get(KINDS.index(name))
        return 0.0 if rate is None else rate.used(now)


def _amounts(tokens: int) -> Amounts:
    """By kind. Tokens of which it is not known whether they are read or written may be either."""
    if isinstance(tokens, Tokens):
        return 1.0, float(tokens), float(tokens.read - tokens.cached), float(tokens.written)
    return 1.0, float(tokens), float(tokens), float(tokens)


def _cost(kind: int, tokens: int) -> Cost:
    if kind == 0:
        return Cost(1.0)
    if not isinstance(tokens, Tokens):
        return Cost.about(float(tokens))
    if KINDS[kind] == "input_tokens" or not tokens.weight:
        return Cost.about(_amounts(tokens)[kind])
    read = float(tokens.read) if KINDS[kind] == "tokens" else 0.0
    return Cost(read, tokens.weight, float(tokens.longest), tokens.longest * _FIRST)
