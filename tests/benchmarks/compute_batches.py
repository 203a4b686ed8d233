"""What a batch is worth: `python -m tests.benchmarks.compute_batches`.

A 784-256-10 network in evaluation mode, on batches of 1 to 512 rows, one thread: latency, throughput, memory,
and the fit t(b) = a + c·b.
"""

from __future__ import annotations

import numpy as np

from asyncflow.compute import Linear, ReLU, Sequential, profile_batch_sizes


def main() -> None:
    rng = np.random.default_rng(0)
    model = Sequential(Linear(784, 256, rng=rng), ReLU(), Linear(256, 10, rng=rng))
    x = rng.standard_normal((512, 784)).astype(np.float32)
    profile = profile_batch_sizes(model, x, batch_sizes=(1, 8, 32, 128, 512), repeats=25)
    print("| batch | a call, µs | samples per second | peak KiB |")
    print("|---|---|---|---|")
    for r in profile.records:
        print(
            f"| {r.batch_size} | {r.seconds * 1e6:.0f} | {r.samples_per_second:,.0f} | {r.peak_bytes >> 10} |"
        )
    print(
        f"\nt(b) = {profile.call_seconds * 1e6:.0f} µs + {profile.sample_seconds * 1e6:.2f} µs · b, "
        f"knee at {profile.knee}"
    )


if __name__ == "__main__":
    main()
