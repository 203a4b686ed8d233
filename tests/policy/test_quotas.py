"""asyncflow/policy/quotas.py: all quotas of one lane together."""

from __future__ import annotations

import pytest

from asyncflow.policy.quotas import Quotas
from asyncflow.policy.settings import LaneSettings
from asyncflow.policy.tokens import Tokens


def test_each_kind_counts_its_own() -> None:
    """Read, written and all: what comes from the prompt cache counts in all of them but the first."""
    quotas = Quotas(LaneSettings(600, 9000, input_tokens_per_minute=9000, output_tokens_per_minute=9000))
    charged = quotas.take(0.0, Tokens(1000, 100, longest=500))
    quotas.settle(1.0, charged, Tokens(1000, 50, cached=800), sent=True)
    kinds = ("requests", "tokens", "input_tokens", "output_tokens")
    assert [quotas.used(1.0, kind) for kind in kinds] == [1, 1050, 200, 50]


def test_tokens_of_an_unknown_kind_may_be_either() -> None:
    """A plain number counts in each quota: who gives one knows no more."""
    quotas = Quotas(LaneSettings(input_tokens_per_minute=900, output_tokens_per_minute=900))
    quotas.take(0.0, 300)
    assert quotas.used(0.0, "input_tokens") == quotas.used(0.0, "output_tokens") == 300


@pytest.mark.parametrize(
    ("tokens", "held"),
    [(Tokens(10, 900), True), (Tokens(900, 10), False), (Tokens(0, 10, longest=900), True), (900, True)],
)
def test_the_quota_that_is_short_holds_back(tokens: int, held: bool) -> None:
    """Of 1,000 that may be written 500 are under way: a call waits if it may write more than is left."""
    quotas = Quotas(LaneSettings(input_tokens_per_minute=10**6, output_tokens_per_minute=1000))
    quotas.take(0.0, Tokens(10, 500))
    assert (quotas.ready_at(40.0, tokens) > 40.0) is held


def test_a_new_rate_knows_of_calls_under_way() -> None:
    """A quota that the first answer tells of holds what was used by then, and calls that came after it."""
    quotas = Quotas(LaneSettings())
    first, second = (quotas.take(0.0, Tokens(100, 20)) for _ in range(2))
    headers = {
        "anthropic-ratelimit-input-tokens-limit": "1000",
        "anthropic-ratelimit-input-tokens-remaining": "700",
        "anthropic-ratelimit-input-tokens-reset": "18",
    }
    assert quotas.heard(1.0, first, headers)
    quotas.follow(1.0, first, quotas.reports.learnt)
    assert quotas.used(1.0, "input_tokens") == 400
    quotas.settle(2.0, second, Tokens(150, 20), sent=True)
    assert quotas.used(2.0, "input_tokens") == 450


def test_what_was_not_sent_is_given_back() -> None:
    """A call that never left gives back its tokens and its request; one that was cancelled, its tokens."""
    for sent, left in ((False, 0), (True, 1)):
        quotas = Quotas(LaneSettings(600, 9000))
        quotas.settle(1.0, quotas.take(0.0, Tokens(100, 100)), 0, sent=sent)
        assert (quotas.used(1.0, "requests"), quotas.used(1.0, "tokens")) == (left, 0)
