"""profile_batch_sizes: what it calls, the fit, the knee, the frame."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from asyncflow.compute import profile_batch_sizes, profiling
from asyncflow.errors import RangeError, ShapeError


class Clock:
    """Time that passes only when the measured function says so."""

    def __init__(self):
        self.now = 0

    def perf_counter_ns(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    fake = Clock()
    monkeypatch.setattr(profiling, "time", fake)
    return fake


def test_fit_knee_and_records(clock):
    """A function that takes 1 ms + 10 µs a sample is found out exactly; outliers and warm-up do not count."""
    calls = []

    def fn(batch):
        calls.append(len(batch))
        clock.now += 1_000_000 + 10_000 * len(batch)
        if len(calls) < 5 or len(calls) % 13 == 0:
            clock.now += 50_000_000

    profile = profile_batch_sizes(fn, np.zeros((4096, 2)), batch_sizes=[4096, 1, 64, 1024], memory=False)
    assert [r.batch_size for r in profile.records] == [1, 64, 1024, 4096]
    assert profile.call_seconds == pytest.approx(1e-3) and profile.sample_seconds == pytest.approx(1e-5)
    assert profile.predicted_seconds(100) == pytest.approx(2e-3)
    assert profile.knee == 1024
    assert profile.records[1].samples_per_second == pytest.approx(64 / 1.64e-3)
    assert len(calls) == 4 * 11 and profile.records[0].repeats == 9
    assert profile.records[0].peak_bytes is None


def test_targets_memory_and_frame():
    """Targets are handed over, memory is that of the result, and records become a frame."""
    profile = profile_batch_sizes(
        lambda x, y: x * y[:, None], np.ones((512, 100)), np.ones(512), batch_sizes=[1, 512], repeats=3
    )
    assert 512 * 800 <= profile.records[1].peak_bytes < 2 * 512 * 800
    frame = profile.to_frame()
    assert frame.index.tolist() == [1, 512] and (frame["seconds"] > 0).all()
    assert pd.DataFrame(profile)["batch_size"].tolist() == [1, 512] and len(profile) == 2


def test_plot(tmp_path):
    """The figure has both curves, and is saved where asked."""
    profile = profile_batch_sizes(np.tanh, np.ones((64, 8)), batch_sizes=[1, 64], repeats=3)
    figure = profile.plot(str(tmp_path / "p.png"))
    assert len(figure.axes) == 2 and (tmp_path / "p.png").stat().st_size > 0


def test_refusals():
    """Sizes beyond the data, too few of them, lengths that differ."""
    x = np.zeros((8, 2))
    with pytest.raises(RangeError, match="at most the number of samples, 8, got 9"):
        profile_batch_sizes(np.tanh, x, batch_sizes=[1, 9])
    with pytest.raises(RangeError, match="at least two sizes"):
        profile_batch_sizes(np.tanh, x, batch_sizes=[4, 4])
    with pytest.raises(RangeError, match="batch_sizes must be an integer of at least 1, got 0"):
        profile_batch_sizes(np.tanh, x, batch_sizes=[0, 4])
    with pytest.raises(RangeError, match="repeats"):
        profile_batch_sizes(np.tanh, x, batch_sizes=[1, 4], repeats=1)
    with pytest.raises(ShapeError, match="y must have as many samples"):
        profile_batch_sizes(np.tanh, x, x[:4])
