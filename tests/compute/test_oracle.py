"""PyTorch in float64 as the judge, where it is installed: values and gradients over all options."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from asyncflow import compute

from .reference import error, tolerance

torch = pytest.importorskip("torch")
F = torch.nn.functional
DTYPES = [np.float32, np.float64]


def leaf(x):
    return torch.tensor(np.asarray(x, np.float64), requires_grad=True)


ACTIVATIONS = {
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "log_sigmoid": F.logsigmoid,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "softmax": lambda t: torch.softmax(t, -1),
    "log_softmax": lambda t: torch.log_softmax(t, -1),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name, dtype, rng, kernel):
    """Values and gradients of every activation."""
    x, dy = ((rng.standard_normal((64, 33)) * s).astype(dtype) for s in (4, 1))
    t = leaf(x)
    wanted = ACTIVATIONS[name](t)
    wanted.backward(torch.tensor(dy.astype(np.float64)))
    y = getattr(compute, name)(x)
    assert error(y, wanted.detach().numpy()) < tolerance(dtype)
    source = x if name in ("log_sigmoid", "gelu") else y
    got = getattr(compute, name + "_backward")(source, dy)
    assert error(got, t.grad.numpy()) < tolerance(dtype)


CASES = list(
    itertools.product(
        ["index", "ignored", "spread"], [False, True], [0.0, 0.2], ["mean", "sum", "none"], DTYPES
    )
)


@pytest.mark.parametrize(("kind", "weighted", "smoothing", "reduction", "dtype"), CASES)
def test_cross_entropy(kind, weighted, smoothing, reduction, dtype, rng, kernel):
    """Every combination of targets, weights, smoothing and reduction."""
    x = (rng.standard_normal((40, 7)) * 3).astype(dtype)
    weight = rng.random(7) if weighted else None
    if weighted:
        weight[2] = 0
    targets = rng.integers(0, 7, 40)
    if kind == "ignored":
        targets[::3] = -100
    if kind == "spread":
        targets = rng.dirichlet(np.ones(7), 40).astype(dtype)
    t = leaf(x)
    wanted = F.cross_entropy(
        t,
        torch.tensor(targets.astype(np.float64) if kind == "spread" else targets),
        weight=None if weight is None else torch.tensor(weight),
        label_smoothing=smoothing,
        reduction=reduction,
    )
    wanted.sum().backward()
    loss, grad = compute.cross_entropy_with_grad(
        x, targets, weight=weight, label_smoothing=smoothing, reduction=reduction
    )
    assert error(loss, wanted.detach().numpy()) < tolerance(dtype)
    assert error(grad, t.grad.numpy()) < tolerance(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_other_losses(reduction, dtype, rng):
    """Squared error, Huber and binary cross-entropy."""
    x, y = rng.standard_normal((30, 4)).astype(dtype) * 3, rng.random((30, 4)).astype(dtype)
    cases = [
        ("mse_loss", {}, lambda t, u: F.mse_loss(t, u, reduction=reduction)),
        ("huber_loss", {"delta": 0.7}, lambda t, u: F.huber_loss(t, u, delta=0.7, reduction=reduction)),
        (
            "binary_cross_entropy",
            {"pos_weight": 3.0},
            lambda t, u: F.binary_cross_entropy_with_logits(
                t, u, pos_weight=torch.tensor(3.0, dtype=torch.float64), reduction=reduction
            ),
        ),
    ]
    for name, options, oracle in cases:
        t = leaf(x)
        wanted = oracle(t, torch.tensor(y.astype(np.float64)))
        wanted.sum().backward()
        loss, grad = getattr(compute, name + "_with_grad")(x, y, reduction=reduction, **options)
        assert error(loss, wanted.detach().numpy()) < tolerance(dtype)
        assert error(grad, t.grad.numpy()) < tolerance(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(50, 6), (8, 6, 5), (4, 6, 5, 3)])
def test_batch_norm(shape, training, dtype, rng, kernel):
    """Result, gradients and running statistics, with momentum and as a plain average."""
    for momentum in (0.1, 0.7, None):
        layer = torch.nn.BatchNorm1d(6, momentum=momentum, dtype=torch.float64)
        if len(shape) == 4:
            layer = torch.nn.BatchNorm2d(6, momentum=momentum, dtype=torch.float64)
        layer.train(training)
        gamma, beta = rng.standard_normal(6).astype(dtype), rng.standard_normal(6).astype(dtype)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(gamma))
            layer.bias.copy_(torch.tensor(beta))
        mean, var = np.zeros(6, dtype), np.ones(6, dtype)
        for step in range(2):
            x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
            t = leaf(x)
            layer.zero_grad()
            wanted = layer(t)
            wanted.backward(torch.tensor(dy.astype(np.float64)))
            y, ctx = compute.batch_norm_forward(
                x, gamma, beta, mean, var, training=training, momentum=momentum, batches_seen=step
            )
            dx, dgamma, dbeta = compute.batch_norm_backward(ctx, dy)
            pairs = [
                (y, wanted), (dx, t.grad), (dgamma, layer.weight.grad), (dbeta, layer.bias.grad),
                (mean, layer.running_mean), (var, layer.running_var),
            ]  # fmt: skip
            for got, want in pairs:
                assert error(got, want.detach().numpy()) < tolerance(dtype, 1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_layer_norm(dtype, rng):
    """Result and gradients over the last axis."""
    x, dy = (rng.standard_normal((9, 5, 16)).astype(dtype) for _ in range(2))
    gamma, beta = leaf(rng.standard_normal(16)), leaf(rng.standard_normal(16))
    t = leaf(x)
    wanted = F.layer_norm(t, (16,), gamma, beta)
    wanted.backward(torch.tensor(dy.astype(np.float64)))
    y, ctx = compute.layer_norm_forward(x, gamma.detach().numpy(), beta.detach().numpy())
    dx, dgamma, dbeta = compute.layer_norm_backward(ctx, dy)
    for got, want in [(y, wanted), (dx, t.grad), (dgamma, gamma.grad), (dbeta, beta.grad)]:
        assert error(got, want.detach().numpy()) < tolerance(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["sgd", "nesterov", "adamw"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_whole_trajectories(kind, accumulate, dtype, rng, kernel):
    """Thirty steps of a network with batch norm: parameters, running statistics, losses."""
    make = np.random.default_rng(1)
    ours = compute.Sequential(
        compute.Linear(5, 16, rng=make, dtype=dtype),
        compute.BatchNorm(16, dtype=dtype),
        compute.ReLU(),
        compute.Linear(16, 4, rng=make, dtype=dtype),
    )
    theirs = torch.nn.Sequential(
        torch.nn.Linear(5, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Linear(16, 4)
    ).double()
    with torch.no_grad():
        for p, q in zip(ours.parameters(), theirs.parameters()):
            q.copy_(torch.tensor(p.value.astype(np.float64)))
    if kind == "adamw":
        # A larger eps: a bias before a batch norm has a gradient of rounding noise, which Adam scales up.
        mine = compute.AdamW(ours.parameters(), 0.01, weight_decay=0.1, eps=1e-3)
        other = torch.optim.AdamW(theirs.parameters(), 0.01, weight_decay=0.1, eps=1e-3)
    else:
        options = {"momentum": 0.9, "nesterov": kind == "nesterov", "weight_decay": 0.01}
        mine = compute.SGD(ours.parameters(), 0.05, **options)
        other = torch.optim.SGD(theirs.parameters(), 0.05, **options)
    weight = np.array([1.0, 2.0, 0.5, 1.5])
    x, y = rng.standard_normal((64, 5)).astype(dtype), rng.integers(0, 4, 64)
    run = compute.Trainer(
        ours, lambda p, t: compute.cross_entropy_with_grad(p, t, weight=weight), mine, accumulate=accumulate
    )
    w = torch.tensor(weight)
    for _ in range(10):
        got = run.train_epoch(compute.DataLoader(x, y, batch_size=24))
        parts = [(x[i : i + 24], y[i : i + 24]) for i in range(0, 64, 24)]
        total = 0.0
        for start in range(0, 3, accumulate):
            group = parts[start : start + accumulate]
            other.zero_grad()
            divisor = sum(weight[b].sum() for _, b in group)
            for a, b in group:
                loss = F.cross_entropy(
                    theirs(torch.tensor(a.astype(np.float64))), torch.tensor(b), weight=w, reduction="sum"
                )
                (loss / divisor).backward()
                total += loss.item()
            other.step()
        near = 1e-4 if dtype == np.float32 else 1e-10  # what thirty steps make of rounding
        assert error(got, total / weight[y].sum()) < near
        for p, q in zip(ours.parameters(), theirs.parameters()):
            assert error(p.value, q.detach().numpy()) < near
        assert error(ours.layers[1].running_var, theirs[1].running_var.numpy()) < near


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["plain", "bool", "added", "top_left", "bottom_right"])
def test_attention(kind, dtype, rng, kernel):
    """Result and gradients under masks and alignments, in one tile and in many."""
    shapes = [(2, 3, 37, 8), (2, 3, 41, 8), (2, 3, 41, 6), (2, 3, 37, 6)]
    q, k, v, dout = (rng.standard_normal(s).astype(dtype) for s in shapes)
    mask = {"bool": rng.random((2, 1, 37, 41)) < 0.8, "added": rng.standard_normal((37, 41))}.get(kind)
    causal = kind if kind in ("top_left", "bottom_right") else None
    theirs = None if mask is None else torch.tensor(mask)
    if causal:
        theirs = torch.ones(37, 41).tril(0 if causal == "top_left" else 4).bool()
    leaves = [leaf(x) for x in (q, k, v)]
    wanted = F.scaled_dot_product_attention(*leaves, attn_mask=theirs)
    wanted.backward(torch.tensor(dout.astype(np.float64)))
    for chunk in (None, 16):
        y, ctx = compute.attention(q, k, v, mask=mask, causal=causal, chunk_size=chunk, return_context=True)
        assert error(y, wanted.detach().numpy()) < tolerance(dtype)
        for got, x in zip(compute.attention_backward(ctx, dout), leaves):
            assert error(got, x.grad.numpy()) < tolerance(dtype)
