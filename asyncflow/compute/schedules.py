"""Learning rates and batch sizes as pure functions of the step or the epoch: there is nothing to save.

A schedule is called with the number of steps already made, so the first step has number 0. Warm-ups do not
start at 0, where a step would do nothing: the first of w warm-up steps has 1/w of the rate, the last all of
it. After its end a schedule stays at its last value.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from asyncflow.compute.checks import count, not_negative, positive, share

Schedule = Callable[[int], float]


def constant(rate: float) -> Schedule:
    """The same rate at every step.

    Example:
        >>> constant(0.1)(1000)
        0.1
    """
    not_negative("rate", rate)
    return lambda step: rate


def step_decay(rate: float, *, every: int, factor: float = 0.1) -> Schedule:
    """rate·factor^(step // every).

    Example:
        >>> [step_decay(1.0, every=2, factor=0.5)(i) for i in range(5)]
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    not_negative("rate", rate), count("every", every), positive("factor", factor)
    return lambda step: rate * math.pow(factor, step // every)


def linear_warmup(rate: float, *, warmup: int) -> Schedule:
    """From rate / warmup up to rate in `warmup` steps, then constant.

    Example:
        >>> [linear_warmup(1.0, warmup=4)(i) for i in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    not_negative("rate", rate), count("warmup", warmup, least=0)
    return lambda step: rate * min(1.0, (step + 1) / warmup) if warmup else rate


def warmup_cosine(rate: float, *, warmup: int, total: int, final: float = 0.0) -> Schedule:
    """A linear warm-up, then half a cosine from rate down to `final` at step `total`; it never rises again.

    Args:
        rate: The highest rate.
        warmup: Steps of the warm-up, part of `total`; 0 for none.
        total: The step from which the rate is `final`, above warmup.
        final: The lowest rate.

    Example:
        >>> [round(warmup_cosine(1.0, warmup=2, total=6)(i), 3) for i in range(8)]
        [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0, 0.0]

    Source:
        Loshchilov and Hutter, SGDR, arXiv 1608.03983, without restarts.
    """
    not_negative("rate", rate), not_negative("final", final)
    count("warmup", warmup, least=0), count("total", total, least=warmup + 1)

    def schedule(step: int) -> float:
        if step < warmup:
            return rate * (step + 1) / warmup
        part = min(1.0, (step - warmup) / (total - warmup))
        return final + (rate - final) * 0.5 * (1 + math.cos(math.pi * part))

    return schedule


def polynomial(rate: float, *, total: int, final: float = 0.0, power: float = 1.0) -> Schedule:
    """From rate down to `final` at step `total` along (1 - step/total)^power.

    Example:
        >>> [polynomial(1.0, total=4)(i) for i in (0, 1, 4, 9)]
        [1.0, 0.75, 0.0, 0.0]
    """
    not_negative("rate", rate), not_negative("final", final)
    count("total", total), positive("power", power)
    return lambda step: final + (rate - final) * math.pow(1 - min(1.0, step / total), power)


def doubling(initial: int, *, maximum: int, every: int = 10, factor: int = 2) -> Callable[[int], int]:
    """A batch size that grows with the epoch: initial·factor^(epoch // every), at most `maximum`.

    Growing the batch lowers the noise as shrinking the learning rate does. Whoever does both should know it.

    Raises:
        RangeError: If initial is above maximum, which would otherwise be taken for maximum silently.

    Example:
        >>> [doubling(32, maximum=256)(epoch) for epoch in (0, 9, 10, 29, 30, 99)]
        [32, 32, 64, 128, 256, 256]

    Source:
        Smith, Kindermans and Le, Don't decay the learning rate, increase the batch size, arXiv 1711.00489.
    """
    count("initial", initial), count("maximum", maximum, least=initial)
    count("every", every), count("factor", factor)

    def size(epoch: int) -> int:
        grown: int = initial * factor ** min(epoch // every, 64)
        return min(grown, maximum)

    return size


def scaled_rate(rate: float, *, batch_size: int, base_batch_size: int, power: float = 1.0) -> float:
    """The rate for another batch size: rate·(batch_size / base)^power; 1 for SGD, 0.5 for Adam.

    Example:
        >>> scaled_rate(0.1, batch_size=64, base_batch_size=32)
        0.2

    Source:
        Goyal et al., arXiv 1706.02677 (power 1); Malladi et al., arXiv 2205.10287 (power 0.5).
    """
    not_negative("rate", rate), count("batch_size", batch_size), count("base_batch_size", base_batch_size)
    share("power", power, below_one=False)
    return rate * math.pow(batch_size / base_batch_size, power)
