"""How much of a provider's limits is used, beside the figures that were asked for. On virtual time, by seed.

    python -m tests.benchmarks.limits [--seed 1]
    python -m tests.benchmarks.limits --matrix 10     # quotas of tokens only, ten seeds of each: some minutes

The provider is the one of `tests/policy/provider.py`: quotas counted in sliding windows, the strictest way,
and a hidden limit at once. The best rate against a hidden limit is what the same load reaches when it knows
the limit. The last rows are real time: an hour of provider time, and the lane's own cost per attempt.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import random
import time
from typing import Literal

from asyncflow import errors
from asyncflow.policy import LaneSettings, RateLane
from tests.policy.provider import Full, Provider, run, work


def row(what: str, measured: str, asked: str) -> None:
    print(f"{what:<84} {measured:>16}   {asked}")


def a_lane(seed: int, **limits: object) -> RateLane:
    return RateLane(LaneSettings(**limits), uniform=random.Random(seed).random)  # type: ignore[arg-type]


def output(sizes: random.Random) -> int:
    return int(200 * sizes.lognormvariate(0.0, 0.5))


def requests(seed: int) -> None:
    for quota in (60, 600, 3000):
        lane, provider = (
            a_lane(seed, requests_per_minute=quota),
            Provider(seed=seed, requests_per_minute=quota),
        )
        run(lambda: work(lane, provider, seconds=600, workers=max(20, quota // 20)))
        used, refused = len(provider.asked) / (10 * quota), len(provider.refused)
        row(f"{quota} requests/min: used, refused", f"{used:.1%}, {refused}", ">= 97 %, 0")


def tokens(seed: int) -> None:
    """An hour each, the first minutes included, in which nothing is known yet and max_tokens counts."""
    for latency, as_long in ((1.0, False), (5.0, False), (20.0, False), (5.0, True), (20.0, True)):
        used, refused = share_of_tokens(seed, 100_000, latency, as_long=as_long, seconds=3600)
        long = " as long as their answers" if as_long else ""
        what = f"100,000 tokens/min, max_tokens 20 x, calls of {latency:g} s{long}: used, refused"
        row(what, f"{used:.1%}, {refused}", ">= 93 %, 0")


def share_of_tokens(
    seed: int,
    quota: int,
    latency: float,
    *,
    as_long: bool,
    seconds: float,
    max_tokens: int | None = 4520,
    counted: Literal["comes", "done"] = "comes",
) -> tuple[float, int]:
    """The share of the quota that was used, and how many calls were refused."""
    lane = a_lane(seed, tokens_per_minute=quota)
    provider = Provider(
        seed=seed + 1000, tokens_per_minute=quota, latency=latency, as_long=as_long, counted=counted
    )
    workers = 20 + int(2.5 * quota / 326 / 60 * latency)
    run(
        lambda: work(
            lane, provider, seconds=seconds, workers=workers, size=output, max_tokens=max_tokens, seed=seed
        )
    )
    return sum(count for _, count in provider.served) / (seconds / 60 * quota), len(provider.refused)


def matrix(seeds: int) -> None:
    """Whatever the quota, the calls, and how the provider counts: the worst and the average of all seeds."""
    for quota, seconds in ((20_000, 3600), (100_000, 3600), (2_000_000, 600)):
        for as_long, latency in itertools.product((False, True), (1.0, 5.0, 20.0, 60.0)):
            for max_tokens, counted in ((4520, "comes"), (None, "comes"), (4520, "done")):
                found = [
                    share_of_tokens(
                        seed,
                        quota,
                        latency,
                        as_long=as_long,
                        seconds=seconds,
                        max_tokens=max_tokens,
                        counted=counted,
                    )
                    for seed in range(1, seeds + 1)
                ]
                shares, refused = [share for share, _ in found], sum(count for _, count in found)
                long = " as long as answers" if as_long else ""
                what = (
                    f"{quota:,}/min, {latency:g} s{long}, max_tokens {max_tokens}, counted when it {counted}"
                )
                row(what, f"{min(shares):.1%}, {sum(shares) / seeds:.1%}", f"{refused} in {seeds} runs")


def hidden(seed: int) -> None:
    for latency, spread in ((0.2, 0.3), (0.5, 0.3), (1.0, 0.0), (2.0, 0.8)):
        best = Provider(seed=seed, at_once=40, latency=latency, spread=spread)
        run(lambda: work(a_lane(seed, concurrency=40), best, seconds=25, workers=300))
        for retry_after in (None, 1.0):
            provider = Provider(
                seed=seed, at_once=40, latency=latency, spread=spread, retry_after=retry_after
            )
            run(lambda: work(a_lane(seed, concurrency="auto"), provider, seconds=25, workers=300))
            share, refused = (
                len(provider.served) / len(best.served),
                len(provider.refused) / len(provider.asked),
            )
            what = f"hidden 40 at once, calls of {latency:g} s, Retry-After {retry_after}: best rate, refused"
            row(what, f"{share:.1%}, {refused:.2%}", ">= 85 %, <= 2 %")


def full(seed: int) -> None:
    for latency, seats in ((0.01, 100), (0.2, 100), (1.0, 20), (1.0, 100), (5.0, 100)):
        lane, provider = a_lane(seed, concurrency="auto"), Full(seats, seed=seed, latency=latency)
        seconds = max(10.0, 100 * latency)
        run(lambda: work(lane, provider, seconds=seconds, workers=1000))
        share = len(provider.served) * latency * math.exp(0.3**2 / 2) / seats / seconds
        what = f"full server of {seats} seats, calls of {latency:g} s, 1,000 callers: its rate, under way"
        row(what, f"{share:.1%}, {lane.limit}", "")


def dead(seed: int) -> None:
    provider = Provider(
        seed=seed, down=lambda now: errors.ServerError("503", status=503) if now >= 10 else None
    )
    run(lambda: work(a_lane(seed, concurrency=20), provider, seconds=100, workers=50))
    calls = [moment for moment in provider.asked if moment >= 10]
    early = sum(moment <= calls[0] + 5 for moment in calls)
    row(
        "provider dead at 10 s, 20 at once: calls in 5 s, in 90 s",
        f"{early}, {len(calls)}",
        "5 s or 20 calls",
    )


def hour(seed: int) -> None:
    lane = a_lane(seed, requests_per_minute=300, tokens_per_minute=100_000, concurrency="auto")
    provider = Provider(seed=seed, requests_per_minute=300, tokens_per_minute=100_000, latency=2.0)
    start = time.perf_counter()
    run(lambda: work(lane, provider, seconds=3600, workers=30, size=output, max_tokens=4000, seed=seed))
    seconds = time.perf_counter() - start
    row(f"an hour of provider time, {len(provider.asked):,} calls", f"{seconds:.2f} s", "< 2 s")


def cost() -> None:
    async def per_attempt(lane: RateLane, calls: int = 20_000, workers: int = 64) -> float:
        numbers = iter(range(calls))

        async def worker() -> None:
            for _ in numbers:
                async with lane.attempt(100) as ticket:
                    await asyncio.sleep(0)
                    ticket.used(90)

        start = time.process_time()
        await asyncio.gather(*(worker() for _ in range(workers)))
        return (time.process_time() - start) / calls * 1e6

    for what, settings in (
        ("no limit", LaneSettings()),
        ("both quotas and 64 at once", LaneSettings(1e9, 1e12, 64)),
        ("16 at once: three of four wait", LaneSettings(concurrency=16)),
    ):
        row(f"CPU per attempt, {what}", f"{asyncio.run(per_attempt(RateLane(settings))):.1f} µs", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--matrix", type=int, default=0, metavar="SEEDS")
    asked = parser.parse_args()
    if asked.matrix:
        row("what", "least, average", "refused")
        matrix(asked.matrix)
        return
    seed = asked.seed
    row("what", "measured", "asked for")
    requests(seed)
    tokens(seed)
    hidden(seed)
    full(seed)
    dead(seed)
    hour(seed)
    cost()


if __name__ == "__main__":
    main()
