"""asyncflow/policy/knee.py: where more calls at once bring no more calls a second."""

from __future__ import annotations

import random

from asyncflow.policy.knee import Knee


class Watched:
    """A knee on a server that ends calls at some rate, and all that it has said."""

    def __init__(self) -> None:
        self.knee, self.now = Knee(), 0.0
        self.said: list[int] = []

    def serve(self, level: int, rate: float, calls: int = 200, round_trip: float = 0.1) -> list[int]:
        before = len(self.said)
        for _ in range(calls):
            self.now += 1.0 / rate
            known = self.knee.served(self.now, level, round_trip)
            if known is not None:
                self.said.append(known)
        return self.said[before:]


def test_a_rate_that_grows_with_the_level_says_nothing() -> None:
    """Also one that grows far less than the level does."""
    watched = Watched()
    for doubling in range(7):
        assert watched.serve(16 * 2**doubling, 100 * 1.2**doubling) == []
        assert not watched.knee.doubted


def test_back_to_the_level_that_was_as_fast() -> None:
    """It doubts first, measures once more, and then names the level below."""
    watched = Watched()
    watched.serve(16, 100)
    watched.serve(32, 200)
    assert watched.serve(64, 204, calls=100) == [] and watched.knee.doubted
    said = watched.serve(64, 204, calls=100)
    assert 28 <= said[0] <= 32 and not said[1:] and not watched.knee.doubted


def test_a_doubt_that_does_not_last() -> None:
    """A level that was slow only while it was new is kept."""
    watched = Watched()
    watched.serve(32, 200)
    watched.serve(64, 190, calls=65)
    assert watched.knee.doubted
    assert watched.serve(64, 390) == [] and not watched.knee.doubted
    assert watched.serve(96, 395, calls=400) == [64]


def test_an_interruption_ends_the_measurement() -> None:
    """What came before a failure or a pause is not mixed with what comes after."""
    watched = Watched()
    watched.serve(32, 200)
    watched.serve(64, 190, calls=65)
    watched.knee.interrupted()
    assert not watched.knee.doubted
    watched.now += 100.0
    assert watched.serve(64, 400) == []


def test_the_known_level_is_measured_anew() -> None:
    """What a level is worth today counts, not what it was worth once."""
    watched = Watched()
    watched.serve(32, 200)
    watched.serve(32, 20, calls=2_000)
    assert watched.serve(64, 40) == []


def test_rests_grow_and_begin_anew() -> None:
    """Ten seconds, then twenty, up to two minutes; ten again after growth that was worth it."""
    watched = Watched()
    watched.serve(32, 200)
    rests = []
    for _ in range(6):
        assert watched.serve(64, 200, calls=195) == [32]
        rests.append(watched.knee.rest)
        watched.knee.interrupted()
    assert rests == [10.0, 20.0, 40.0, 80.0, 120.0, 120.0]
    watched.serve(64, 400)
    assert watched.serve(128, 400, calls=195) == [64]
    assert watched.knee.rest == 10.0


def test_short_calls_are_measured_over_a_tenth_of_a_second() -> None:
    """Sixty-four calls that end within a few milliseconds tell of the moment, not of the level."""
    watched = Watched()
    watched.serve(32, 10_000, calls=2_000, round_trip=0.003)
    watched.serve(64, 3_000, calls=200, round_trip=0.02)
    assert watched.serve(64, 20_000, calls=3_000, round_trip=0.003) == []


def test_chance_alone_is_hardly_ever_taken_for_a_knee() -> None:
    """A thousand runs of calls that take as long as chance has it, with the level doubled each time."""
    luck = random.Random(7)
    wrong = 0
    for _ in range(1000):
        watched = Watched()
        for doubling in range(5):
            level = 16 * 2**doubling
            for _ in range(3 * level):
                watched.serve(level, 1.0 / luck.expovariate(level), calls=1, round_trip=1.0)
        wrong += bool(watched.said)
    assert wrong <= 1
