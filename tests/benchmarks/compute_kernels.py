"""How fast the kernels of `compute` are beside PyTorch, SciPy, the seed's code and a plain copy.

    python -m tests.benchmarks.compute_kernels [--threads 2] [--kernels numba] [--only softmax] [--quiet]
    python -m tests.benchmarks.compute_kernels --threads 1 --cpu

With `--cpu` the processor time of the process is measured and not the time of the clock: on one thread that
is right on a busy machine too. (On two it is not: threads that wait in OpenMP or OpenBLAS spin.)

Every row is measured in one run: the candidates take turns, so a slow moment of the machine hits all of
them, and the ratio is that of the medians. A number above 1 means that asyncflow is faster. Candidates
that are not installed are left out, with a line that says so. The geometric mean leaves the loader out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from threadpoolctl import ThreadpoolController

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import compute_seed as seed  # noqa: E402

from asyncflow import compute  # noqa: E402

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = None
try:
    import scipy.special as special
except ImportError:
    special = None

Call = Callable[[], object]


def softmax_cases(rng) -> dict[str, dict[str, Call]]:
    x = rng.standard_normal((8192, 1000)).astype(np.float32)
    y = rng.integers(0, 1000, 8192)
    copy = lambda: x.copy()  # noqa: E731
    cases = {
        "softmax 8192x1000": {
            "ours": lambda: compute.softmax(x), "seed": lambda: seed.softmax_batch(x), "copy": copy,
        },
        "log_softmax 8192x1000": {
            "ours": lambda: compute.log_softmax(x),
            "seed": lambda: np.log(seed.softmax_batch(x)), "copy": copy,
        },
        "sigmoid 8192x1000": {
            "ours": lambda: compute.sigmoid(x), "seed": lambda: seed.sigmoid_batch(x), "copy": copy,
        },
        "cross_entropy+grad 8192x1000": {
            "ours": lambda: compute.cross_entropy_with_grad(x, y),
            "seed": lambda: seed_loss(x, y), "copy": copy,
        },
    }  # fmt: skip
    if special:
        cases["softmax 8192x1000"]["scipy"] = lambda: special.softmax(x, axis=1)
        cases["log_softmax 8192x1000"]["scipy"] = lambda: special.log_softmax(x, axis=1)
        cases["sigmoid 8192x1000"]["scipy"] = lambda: special.expit(x)
    if torch:
        t, u = torch.from_numpy(x), torch.from_numpy(y)
        leaf = t.clone().requires_grad_()

        def loss():
            leaf.grad = None
            F.cross_entropy(leaf, u).backward()

        cases["softmax 8192x1000"]["torch"] = lambda: torch.softmax(t, 1)
        cases["log_softmax 8192x1000"]["torch"] = lambda: torch.log_softmax(t, 1)
        cases["sigmoid 8192x1000"]["torch"] = lambda: torch.sigmoid(t)
        cases["cross_entropy+grad 8192x1000"]["torch"] = loss
    return cases


def seed_loss(x, y):
    p = seed.softmax_batch(x)
    return seed.cross_entropy_batch(p, y), seed.compute_grad_loss(p, y)


def batch_norm_cases(rng) -> dict[str, dict[str, Call]]:
    x, dy = (rng.standard_normal((4096, 1024)).astype(np.float32) for _ in range(2))
    gamma, beta, mean, var = (np.ones(1024, np.float32) * v for v in (1, 0, 0, 1))
    theirs = seed.BatchNorm(1024)

    def ours():
        _, ctx = compute.batch_norm_forward(x, gamma, beta, mean, var, training=True)
        compute.batch_norm_backward(ctx, dy)

    def old():
        theirs.forward(x)
        theirs.backward(dy)

    cases = {"ours": ours, "seed": old, "copy": lambda: (x.copy(), dy.copy())}
    if torch:
        t, up = torch.from_numpy(x).requires_grad_(), torch.from_numpy(dy)
        layer = torch.nn.BatchNorm1d(1024)

        def peer():
            t.grad = None
            layer(t).backward(up)

        cases["torch"] = peer
    return {"batch_norm fwd+bwd 4096x1024": cases}


def attention_cases(rng) -> dict[str, dict[str, Call]]:
    q, k, v, up = (rng.standard_normal((4, 8, 512, 64)).astype(np.float32) for _ in range(4))
    flat = [x.reshape(32, 512, 64) for x in (q, k, v)]

    def both():
        _, ctx = compute.attention(q, k, v, return_context=True)
        compute.attention_backward(ctx, up)

    name = "attention 4x8x512x64"
    cases = {
        name: {"ours": lambda: compute.attention(q, k, v), "seed": lambda: seed.attention(*flat)},
        f"{name} fwd+bwd": {"ours": both},
    }
    if torch:
        t = [torch.from_numpy(x) for x in (q, k, v)]
        leaves = [torch.from_numpy(x).requires_grad_() for x in (q, k, v)]
        gradient = torch.from_numpy(up)

        def peer():
            for x in leaves:
                x.grad = None
            F.scaled_dot_product_attention(*leaves).backward(gradient)

        cases[name]["torch"] = lambda: F.scaled_dot_product_attention(*t)
        cases[f"{name} fwd+bwd"]["torch"] = peer
    return cases


def optimizer_cases(rng) -> dict[str, dict[str, Call]]:
    value, grad = (rng.standard_normal((4096, 1024)).astype(np.float32) for _ in range(2))

    def ours(kind, **options):
        p = compute.Parameter(value.copy())
        p.grad[...] = grad * 1e-3
        return kind([p], 1e-4, **options).step

    plain = value.copy()

    def old():
        nonlocal plain
        plain -= 1e-4 * grad

    cases = {
        "SGD step, 4M": {"ours": ours(compute.SGD), "seed": old},
        "SGD step, momentum, 4M": {"ours": ours(compute.SGD, momentum=0.9)},
        "AdamW step, 4M": {"ours": ours(compute.AdamW)},
    }
    if torch:

        def peer(kind, **options):
            p = torch.nn.Parameter(torch.from_numpy(value.copy()))
            p.grad = torch.from_numpy(grad * 1e-3)
            return kind([p], 1e-4, **options).step

        cases["SGD step, 4M"]["torch"] = peer(torch.optim.SGD)
        cases["SGD step, momentum, 4M"]["torch"] = peer(torch.optim.SGD, momentum=0.9)
        cases["AdamW step, 4M"]["torch"] = peer(torch.optim.AdamW)
    return cases


def epoch_cases(rng) -> dict[str, dict[str, Call]]:
    x, y = rng.standard_normal((12800, 784)).astype(np.float32), rng.integers(0, 10, 12800)
    model = compute.Sequential(
        compute.Linear(784, 256, rng=rng), compute.ReLU(), compute.Linear(256, 10, rng=rng)
    )
    trainer = compute.Trainer(model, compute.cross_entropy_with_grad, compute.SGD(model.parameters(), 0.01))
    loader = compute.DataLoader(x, y, batch_size=128, shuffle=True)
    w1, b1 = model.layers[0].weight.value.T.copy(), model.layers[0].bias.value.copy()
    w2, b2 = model.layers[2].weight.value.T.copy(), model.layers[2].bias.value.copy()

    def old():
        for a, b in seed.DataLoader(x, y, batch_size=128):
            hidden = np.maximum(0, a @ w1 + b1)
            p = seed.softmax_batch(hidden @ w2 + b2)
            seed.cross_entropy_batch(p, b)
            d = seed.compute_grad_loss(p, b)
            dh = d @ w2.T * (hidden > 0)
            for value, grad in [(w2, hidden.T @ d), (b2, d.sum(0)), (w1, a.T @ dh), (b1, dh.sum(0))]:
                value -= 0.01 * grad

    cases = {"ours": lambda: trainer.train_epoch(loader), "seed": old}
    if torch:
        net = torch.nn.Sequential(torch.nn.Linear(784, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
        step = torch.optim.SGD(net.parameters(), 0.01)
        t, u = torch.from_numpy(x), torch.from_numpy(y)

        def peer():
            for index in torch.randperm(len(t)).split(128):
                step.zero_grad()
                loss = F.cross_entropy(net(t[index]), u[index])
                loss.backward()
                step.step()
                loss.item()

        cases["torch"] = peer
    return {"epoch 784-256-10, batch 128": cases}


def loader_cases(rng) -> dict[str, dict[str, Call]]:
    x, y = rng.standard_normal((100_000, 64)).astype(np.float32), rng.integers(0, 10, 100_000)

    def drain(loader):
        for _ in loader:
            pass

    ours = compute.DataLoader(x, y, batch_size=256, shuffle=True)
    old = seed.DataLoader(x, y, batch_size=256)
    cases = {
        "loader 100k x 64, batch 256": {"ours": lambda: drain(ours), "seed": lambda: drain(old)},
    }
    if torch:
        small = torch.utils.data.TensorDataset(torch.from_numpy(x[:10000]), torch.from_numpy(y[:10000]))
        theirs = torch.utils.data.DataLoader(small, batch_size=256, shuffle=True)
        tenth = compute.DataLoader(x[:10000], y[:10000], batch_size=256, shuffle=True)
        cases["loader 10k x 64, batch 256"] = {
            "ours": lambda: drain(tenth), "torch": lambda: drain(theirs),
        }  # fmt: skip
    return cases


GROUPS = [softmax_cases, batch_norm_cases, attention_cases, optimizer_cases, epoch_cases, loader_cases]


def busy() -> tuple[float, float]:
    """Seconds of processor time that the whole machine, and this process, have used (Linux; else zeros)."""
    try:
        fields = [int(f) for f in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    except OSError:
        return 0.0, 0.0
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK"), time.process_time()


#: Seconds for which a candidate is called before it is timed, and again while it is timed.
WARM, TIMED = 0.04, 0.03


def turn(call: Call, clock: Callable[[], float]) -> float:
    """Milliseconds per call, the median of at least three calls that follow one another.

    The calls before it are not counted: in them the threads of the candidate before stop spinning (OpenBLAS
    25 ms after a product, OpenMP some ms), those of this one wake up, and the kernel spreads them over the
    processors (a virtual machine that packs threads onto few of them takes about 15 ms).
    """
    end = time.perf_counter() + WARM
    while time.perf_counter() < end:
        call()
    times: list[float] = []
    end = time.perf_counter() + TIMED
    while len(times) < 3 or time.perf_counter() < end:
        start = clock()
        call()
        times.append(clock() - start)
    return statistics.median(times) * 1e3


def measure(
    candidates: dict[str, Call], repeats: int, quiet: bool, clock: Callable[[], float]
) -> dict[str, float]:
    """Median milliseconds of each over `repeats` rounds in which they take turns, after six calls of each.

    With `quiet`, rounds in which other processes used more than a tenth of a processor are thrown away and
    repeated, for up to 20 seconds; if none was quiet, all count.
    """
    for call in candidates.values():
        for _ in range(6):
            call()
    kept: list[dict[str, float]] = []
    rest: list[dict[str, float]] = []
    end = time.perf_counter() + 20
    while len(kept) < repeats and time.perf_counter() < end:
        machine, own, began = *busy(), time.perf_counter()
        times = {name: turn(call, clock) for name, call in candidates.items()}
        machine_after, own_after = busy()
        others = machine_after - machine - (own_after - own)
        if not quiet or others < 0.1 * (time.perf_counter() - began):
            kept.append(times)
        else:
            rest.append(times)
            time.sleep(0.2)
    if len(kept) < 3:
        kept += rest
    return {name: statistics.median(t[name] for t in kept) for name in candidates}


def table(rows: dict[str, dict[str, float]]) -> str:
    peers = ["torch", "scipy", "seed", "copy"]
    lines = [
        f"| {'operation':<30} | {'ms':>7} | " + " | ".join(f"{'vs ' + p:>8}" for p in peers) + " |",
        f"|{'-' * 32}|{'-' * 9}|" + "|".join("-" * 10 for _ in peers) + "|",
    ]
    for name, row in rows.items():
        ratios = [f"{row[p] / row['ours']:8.2f}" if p in row else f"{'':8}" for p in peers]
        lines.append(f"| {name:<30} | {row['ours']:7.2f} | " + " | ".join(ratios) + " |")
    kernels = [row for name, row in rows.items() if "loader" not in name]
    means = []
    for p in peers:
        ratios = [math.log(row[p] / row["ours"]) for row in kernels if p in row]
        means.append(f"{math.exp(sum(ratios) / len(ratios)):8.2f}" if ratios else f"{'':8}")
    lines.append(f"| {'geometric mean, no loader':<30} | {'':7} | " + " | ".join(means) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--kernels", choices=["numpy", "numba"], default="numpy")
    parser.add_argument("--only", default="")
    parser.add_argument("--quiet", action="store_true", help="wait for moments when nothing else runs")
    parser.add_argument("--cpu", action="store_true", help="processor time, for --threads 1")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    clock = time.process_time if args.cpu else time.perf_counter
    ThreadpoolController().limit(limits=args.threads, user_api="blas")
    if torch:
        torch.set_num_threads(args.threads)
    else:
        print("PyTorch is NOT installed: its column is empty", file=sys.stderr)
    rows = {}
    for group in GROUPS:
        if (
            args.only
            and args.only not in group.__name__
            and not any(args.only in name for name in group(np.random.default_rng(0)))
        ):
            continue
        for name, candidates in group(np.random.default_rng(0)).items():
            if args.only and args.only not in name:
                continue
            with compute.workers(args.threads), compute.kernels(args.kernels):
                rows[name] = measure(candidates, args.repeats, args.quiet, clock)
    if args.json:
        print(json.dumps({"threads": args.threads, "kernels": args.kernels, "median_ms": rows}, indent=1))
    else:
        print(
            f"{args.threads} threads, kernels {args.kernels!r}, float32{', processor time' * args.cpu}; "
            f"ratios above 1: asyncflow is faster"
        )
        print(table(rows))


if __name__ == "__main__":
    main()
