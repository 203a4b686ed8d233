"""The small rules of asyncflow/policy: tokens, breaker, pause, retries, settings, ending. No loop."""

from __future__ import annotations

import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow import errors
from asyncflow.policy.breaker import Breaker
from asyncflow.policy.ending import Ending, ending_of, refused_unsent
from asyncflow.policy.pause import Pause
from asyncflow.policy.retries import RetryBudget
from asyncflow.policy.settings import LaneSettings
from asyncflow.policy.tokens import TokenEstimate


def never() -> float:
    return 0.0


# tokens ----------------------------------------------------------------------------------------------------


def test_output_is_reserved_at_the_95th_percentile() -> None:
    """Nineteen of twenty answers stay within what is reserved, which is far from max_tokens."""
    estimate, sizes = TokenEstimate(), random.Random(1)
    seen = [int(200 * sizes.lognormvariate(0, 0.5)) for _ in range(400)]
    for tokens in seen:
        estimate.learn(400, 100, tokens)
    reserved = estimate.output_tokens(max_tokens=8000)
    assert reserved == sorted(seen)[379]
    assert reserved < 600


def test_the_longest_answer_is_an_upper_bound() -> None:
    """No more is reserved than max_tokens, before answers are seen and after."""
    estimate = TokenEstimate()
    assert estimate.output_tokens(50) == 50
    assert estimate.output_tokens() == 1024
    estimate.learn(10, 3, 700)
    assert estimate.output_tokens(50) == 50
    assert estimate.output_tokens() == 875


def test_prompts_are_calibrated() -> None:
    """A language with two tokens a byte is soon estimated so; answers without usage teach nothing."""
    estimate = TokenEstimate()
    estimate.learn(1000, 0, 0)
    assert estimate.input_tokens(1000) == 250
    for _ in range(20):
        estimate.learn(1000, 2000, 10)
    assert 1900 <= estimate.input_tokens(1000) <= 2000
    assert "after 20 answers" in repr(estimate)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=1500))
def test_the_sample_forgets_the_oldest(answers: list[int]) -> None:
    """The percentile is that of the newest 512 answers, however many came before."""
    estimate = TokenEstimate()
    for tokens in answers:
        estimate.learn(1, 1, tokens)
    newest = sorted(answers[-512:])
    if len(newest) >= 20:
        assert estimate.output_tokens() == newest[-(-95 * len(newest) // 100) - 1]


# breaker ---------------------------------------------------------------------------------------------------


def test_what_comes_from_the_prompt_cache_is_known_apart() -> None:
    """A reservation tells how much of the prompt is likely to come from the cache, by the calls before."""
    estimate = TokenEstimate()
    assert estimate.reserve(4000, 100).cached == 0
    for _ in range(400):
        estimate.learn(4000, 1000, 100, 900)
    reserved = estimate.reserve(4000, 100)
    assert (reserved.read, reserved.written, reserved.longest) == (1000, 100, 100)
    assert 880 <= reserved.cached <= 900


def test_a_short_max_tokens_weighs_what_such_answers_come_to() -> None:
    """Of answers of 10 to 1,000 tokens those that are cut at 100 come to less, and a reservation says so."""
    estimate = TokenEstimate()
    for tokens in (10, 100, 1000):
        estimate.learn(400, 100, tokens)
    assert estimate.reserve(400, 100).weight == pytest.approx(210 / 1110)
    assert estimate.reserve(400, 1000).weight == estimate.reserve(400).weight == 1.0
    assert estimate.reserve(400).longest == 1250


def test_twenty_failures_in_a_row_open_it() -> None:
    """Nineteen and an answer do not, twenty do; then one call goes after five seconds."""
    breaker = Breaker()
    for call in range(1, 20):
        assert not breaker.failed(0.0, call)
    assert not breaker.answered(20)
    for call in range(21, 40):
        assert not breaker.failed(0.0, call)
    assert breaker.failed(1.0, 40)
    assert (breaker.state, breaker.ready_at()) == ("open", 6.0)
    assert breaker.started() and breaker.state == "probing" and breaker.ready_at() == float("inf")


def test_probes_come_less_and_less_often() -> None:
    """Each probe that fails doubles the wait, up to a minute; one that is answered closes it."""
    breaker = Breaker(failures=1)
    breaker.failed(0.0, 1)
    now, waits = 0.0, []
    for call in range(2, 8):
        waits.append(breaker.ready_at() - now)
        now = breaker.ready_at()
        assert breaker.started()
        assert breaker.failed(now, call, probe=True)
    assert waits == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    breaker.started()
    assert breaker.answered(9) and breaker.state == "closed"


def test_answers_to_older_calls_do_not_close_it() -> None:
    """What started before the failures began says nothing about them."""
    breaker = Breaker(failures=2)
    breaker.failed(0.0, 5)
    assert not breaker.answered(4)
    assert breaker.failed(0.1, 6)
    assert not breaker.answered(3) and breaker.state == "open"
    assert not breaker.failed(0.2, 2)  # nor does an older failure count as the probe's


def test_an_abandoned_probe_is_replaced() -> None:
    """A probe that was cancelled lets the next call be the probe."""
    breaker = Breaker(failures=1)
    breaker.failed(0.0, 1)
    breaker.started()
    breaker.abandoned()
    assert breaker.ready_at() == 5.0 and breaker.started()


# pause -----------------------------------------------------------------------------------------------------


def test_forty_refusals_are_one_wave() -> None:
    """Refusals of calls that started before the first was heard of make one pause, as long as was asked."""
    pause = Pause(never)
    waves = [pause.refused(1.0, call=n, newest=40, asked=3.0) for n in range(1, 41)]
    assert sum(wave is not None for wave in waves) == 1
    assert pause.until == 4.0 and pause.waves == 1


def test_the_longest_wait_asked_for_counts() -> None:
    """A later refusal of the same wave may ask for more."""
    pause = Pause(never)
    pause.refused(0.0, call=1, newest=2, asked=1.0)
    assert pause.refused(0.5, call=2, newest=2, asked=30.0) is None
    assert pause.until == 30.5


@pytest.mark.parametrize(("round_trip", "seconds"), [(None, 0.5), (3.0, 0.5), (0.2, 0.2), (0.001, 0.05)])
def test_a_first_pause_is_no_longer_than_a_call(round_trip: float | None, seconds: float) -> None:
    """One refusal among calls that are served in no time holds the lane for about as long as they take."""
    wave = Pause(never).refused(0.0, call=5, newest=9, asked=None, round_trip=round_trip)
    assert wave is not None and wave.seconds == seconds


def test_a_storm_without_advice_pauses_longer_each_time() -> None:
    """With nothing served in between each pause is twice the last, up to 15 s; then it starts afresh."""
    pause, now, seconds = Pause(never), 0.0, []
    for call in range(1, 11):
        wave = pause.refused(now, call=call, newest=call, asked=None)
        assert wave is not None and wave.first == (call == 1)
        seconds.append(wave.seconds)
        now = pause.until
    assert seconds == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0, 15.0, 15.0]
    pause.served(1)  # it started before the episode
    again = pause.refused(now, call=11, newest=11, asked=None)
    assert again is not None and not again.first
    pause.served(11)
    again = pause.refused(now, call=12, newest=12, asked=None)
    assert again is not None and again.first and again.seconds == 0.5


@given(asked=st.floats(0.001, 1e6), now=st.floats(0, 1e6), luck=st.floats(0, 0.999))
def test_never_earlier_than_asked(asked: float, now: float, luck: float) -> None:
    """Jitter lengthens a pause, by a tenth and a second at most, and never shortens it. An hour is enough."""
    pause = Pause(lambda: luck)
    pause.refused(now, call=1, newest=1, asked=asked)
    meant = min(asked, 3600.0)
    assert now + meant <= pause.until <= now + meant + min(1.0, 0.1 * meant) + 1e-6


# retries ---------------------------------------------------------------------------------------------------


def test_retries_are_a_share_of_what_is_new() -> None:
    """Spent, the budget allows one retry for five new calls, and two a second whatever happens."""
    budget = RetryBudget(share=0.2, per_second=2.0, most=5)
    for _ in range(5):
        assert budget.ready_at(0.0) == 0.0
        budget.take(0.0)
    assert budget.ready_at(0.0) == 0.5
    for _ in range(5):
        budget.started()
    assert budget.ready_at(0.0) == 0.0
    budget.take(0.0)
    assert budget.ready_at(10.0) == 10.0


# settings --------------------------------------------------------------------------------------------------


def test_the_stricter_of_two_settings() -> None:
    """Of each limit the lower counts; none is no limit; auto stays below a number."""
    one = LaneSettings(500, None, 8)
    assert one.stricter(LaneSettings(400, 1e6, 16)) == LaneSettings(400, 1e6, 8)
    assert one.stricter(LaneSettings()) == one == LaneSettings().stricter(one)
    auto = LaneSettings(concurrency="auto", highest=50)
    assert auto.stricter(one) == one.stricter(auto) == LaneSettings(500, None, "auto", 8)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"requests_per_minute": 0}, ValueError),
        ({"requests_per_minute": float("nan")}, ValueError),
        ({"tokens_per_minute": float("inf")}, ValueError),
        ({"tokens_per_minute": "10"}, TypeError),
        ({"tokens_per_minute": True}, TypeError),
        ({"concurrency": 0}, ValueError),
        ({"concurrency": 1.5}, TypeError),
        ({"concurrency": "fast"}, TypeError),
        ({"concurrency": True}, TypeError),
        ({"highest": 0}, ValueError),
        ({"highest": 1.5}, TypeError),
    ],
)
def test_wrong_settings_are_told(wrong: dict[str, object], kind: type[Exception]) -> None:
    """A limit that cannot be one is refused, by name."""
    with pytest.raises(kind, match=next(iter(wrong))):
        LaneSettings(**wrong)  # type: ignore[arg-type]


# ending ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (None, Ending.SERVED),
        (errors.RateLimitedError(status=429), Ending.REFUSED),
        (errors.AccessDeniedError(status=401), Ending.DENIED),
        (errors.RequestRefusedError(status=400), Ending.ANSWERED),
        (errors.RequestTooLargeError(status=413), Ending.ANSWERED),
        (errors.RequestRefusedError(sent=False), Ending.UNSENT),
        (errors.HTTPConnectionError(sent=False), Ending.UNREACHABLE),
        (errors.HTTPConnectionError(), Ending.CUT),
        (errors.HTTPTimeoutError(phase="read"), Ending.CUT),
        (errors.HTTPTimeoutError(phase="connect", sent=False), Ending.UNREACHABLE),
        (errors.BadAnswerError(status=200), Ending.CUT),
        (errors.ServerError(status=503), Ending.FAILED),
        (errors.TransientError(), Ending.FAILED),
        (ConnectionResetError(), Ending.CUT),
        (TimeoutError(), Ending.CUT),
        (ZeroDivisionError(), Ending.UNKNOWN),
        (KeyboardInterrupt(), Ending.UNKNOWN),
    ],
)
def test_what_an_error_tells_a_lane(error: BaseException | None, ending: Ending) -> None:
    """Each error means one thing about the provider."""
    assert ending_of(error) is ending


def test_a_refusal_without_sending_is_a_new_error() -> None:
    """It has the class and fields of the one it repeats, says that nothing was sent, and survives pickle."""
    first = errors.AccessDeniedError("POST http://x: 401", status=401, url="http://x", attempts=3)
    again = refused_unsent(first, "m at x")
    assert isinstance(again, errors.AccessDeniedError) and again is not first
    assert (again.status, again.url, again.sent, again.attempts, again.exhausted) == (
        401,
        "http://x",
        False,
        0,
        True,
    )
    assert "not sent" in str(again) and "m at x" in str(again) and first.sent and first.attempts == 3
    assert str(pickle.loads(pickle.dumps(again))) == str(again)
    spent = pickle.loads(pickle.dumps(errors.BudgetSpentError("spent")))
    assert spent.reason == "budget" and str(spent) == "spent"
