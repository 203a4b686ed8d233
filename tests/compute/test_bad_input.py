"""Bad input, one line each: the kind of the error, and that its text names all that is needed to mend it."""

from __future__ import annotations

import numpy as np
import pytest

from asyncflow import compute as c
from asyncflow.errors import ArrayError, DtypeError, RangeError, ShapeError

X = np.zeros((4, 3))
Y = np.array([0, 1, 2, 0])
RNG = np.random.default_rng(0)


def norm(x=X, gamma=None, mean=None, **options):
    return c.batch_norm_forward(x, gamma, None, mean, None, **{"training": True, **options})


def layer():
    return c.Linear(3, 2, rng=RNG, dtype=np.float64)


def trainer(**options):
    model = c.Sequential(layer())
    return c.Trainer(model, c.cross_entropy_with_grad, c.SGD(model.parameters(), 0.1), **options)


#: What is done wrong, the call, the error, and pieces of its text: argument, what was given, what is needed.
BAD = [
    ("integers", lambda: c.relu(Y), DtypeError, ["x", "int64", "floating"]),
    ("complex numbers", lambda: c.softmax(X + 1j), DtypeError, ["x", "complex128", "floating"]),
    ("an axis too far", lambda: c.softmax(X, 2), ShapeError, ["axis 2", "2 dimensions"]),
    ("out of another shape", lambda: c.relu(X, out=X.T.copy()), ShapeError, ["out", "(3, 4)", "(4, 3)"]),
    (
        "out of another dtype",
        lambda: c.relu(X, out=np.zeros((4, 3), "f4")),
        DtypeError,
        ["out", "float32", "float64"],
    ),
    ("dy that broadcasts", lambda: c.relu_backward(X, X[:1]), ShapeError, ["dy", "(1, 3)", "(4, 3)"]),
    ("an unknown word", lambda: c.gelu(X, approximate="x"), RangeError, ["approximate", "'x'", "'tanh'"]),
    (
        "(n, 1) against (n,)",
        lambda: c.mse_loss(X[:, :1], X[:, 0]),
        ShapeError,
        ["target", "(4,)", "(4, 1)"],
    ),
    ("delta of 0", lambda: c.huber_loss(X, X, delta=0), RangeError, ["delta", "got 0", "above 0"]),
    (
        "a reduction that is none",
        lambda: c.mse_loss(X, X, reduction="avg"),
        RangeError,
        ["reduction", "'avg'"],
    ),
    ("targets (n, 1)", lambda: c.cross_entropy(X, Y[:, None]), ShapeError, ["targets", "(4, 1)", "(4,)"]),
    ("too few targets", lambda: c.cross_entropy(X, Y[:3]), ShapeError, ["targets", "(3,)", "(4,)"]),
    (
        "a class too high",
        lambda: c.cross_entropy(X, Y + 1),
        RangeError,
        ["targets", "got 3", "[0, 3)", "row 2"],
    ),
    ("a class of -1", lambda: c.cross_entropy(X, Y - 1), RangeError, ["targets", "got -1", "[0, 3)"]),
    (
        "float class indices",
        lambda: c.cross_entropy(X, Y * 1.0),
        ShapeError,
        ["targets", "(4,)", "(4, 3)", "integers"],
    ),
    ("boolean targets", lambda: c.cross_entropy(X, Y > 0), DtypeError, ["targets", "bool", "integer"]),
    ("logits of one row", lambda: c.cross_entropy(X[0], Y), ShapeError, ["logits", "(3,)", "(n, classes)"]),
    (
        "weights of another length",
        lambda: c.cross_entropy(X, Y, weight=np.ones(4)),
        ShapeError,
        ["weight", "(4,)", "(3,)"],
    ),
    (
        "smoothing of 1",
        lambda: c.cross_entropy(X, Y, label_smoothing=1.0),
        RangeError,
        ["label_smoothing", "1.0", "[0, 1)"],
    ),
    ("one row of batch norm", lambda: norm(X[:1]), RangeError, ["x", "(1, 3)", "two"]),
    ("batch norm of a vector", lambda: norm(X[0]), ShapeError, ["x", "(3,)", "two dimensions"]),
    ("gamma of another length", lambda: norm(gamma=np.ones(4)), ShapeError, ["gamma", "(4,)", "(3,)"]),
    ("momentum of 2", lambda: norm(momentum=2.0), RangeError, ["momentum", "2.0", "[0, 1]"]),
    (
        "integer running statistics",
        lambda: norm(mean=np.zeros(3, int)),
        DtypeError,
        ["running_mean", "floating"],
    ),
    ("a channel axis too far", lambda: norm(channel_axis=2), ShapeError, ["axis 2"]),
    (
        "evaluation without statistics",
        lambda: norm(training=False),
        RangeError,
        ["running_mean", "None", "needs"],
    ),
    (
        "a dropout rate of 2",
        lambda: c.dropout_forward(X, 2.0, key=(0,)),
        RangeError,
        ["rate", "2.0", "[0, 1]"],
    ),
    ("keys of another depth", lambda: c.attention(X, X[:, :2], X), ShapeError, ["k", "(4, 2)", "'keys', 3"]),
    (
        "values of another dtype",
        lambda: c.attention(X, X, X.astype("f4")),
        DtypeError,
        ["v", "float32", "float64"],
    ),
    (
        "an integer mask",
        lambda: c.attention(X, X, X, mask=np.ones((4, 4), int)),
        DtypeError,
        ["mask", "int64"],
    ),
    (
        "a mask of one row",
        lambda: c.attention(X, X, X, mask=np.ones(4, bool)),
        ShapeError,
        ["mask", "(4,)", "4, 4"],
    ),
    (
        "causal as True",
        lambda: c.attention(X, X, X, causal=True),
        RangeError,
        ["causal", "True", "'top_left'"],
    ),
    (
        "a chunk of 0",
        lambda: c.attention(X, X, X, chunk_size=0),
        RangeError,
        ["chunk_size", "0", "at least 1"],
    ),
    ("another number of features", lambda: layer().forward(X.T), ShapeError, ["x", "(3, 4)", "3)"]),
    ("x of another dtype", lambda: layer().forward(X.astype("f4")), DtypeError, ["x", "float32", "float64"]),
    ("an integer parameter", lambda: c.Parameter(Y), DtypeError, ["parameter", "int64", "floating"]),
    ("arrays as parameters", lambda: c.SGD([X], 0.1), DtypeError, ["parameters", "ndarray", "Parameter"]),
    ("a negative rate", lambda: c.SGD([], -0.1), RangeError, ["learning_rate", "-0.1", "at least 0"]),
    (
        "Nesterov without momentum",
        lambda: c.SGD([], 0.1, nesterov=True),
        RangeError,
        ["nesterov", "momentum"],
    ),
    ("a warm-up of -1", lambda: c.linear_warmup(0.1, warmup=-1), RangeError, ["warmup", "-1", "at least 0"]),
    ("an initial size too large", lambda: c.doubling(64, maximum=32), RangeError, ["maximum", "32", "64"]),
    ("batch_size 0", lambda: c.DataLoader(X, batch_size=0), RangeError, ["batch_size", "0", "at least 1"]),
    ("batch_size 2.5", lambda: c.DataLoader(X, batch_size=2.5), RangeError, ["batch_size", "2.5", "integer"]),
    ("lengths that differ", lambda: c.DataLoader(X, Y[:3]), ShapeError, ["y", "3", "4"]),
    ("a number as data", lambda: c.DataLoader(7), DtypeError, ["X", "int", "array"]),
    (
        "shuffle beside a sampler",
        lambda: c.DataLoader(X, shuffle=True, sampler=[0]),
        RangeError,
        ["shuffle", "True"],
    ),
    (
        "a sampler out of range",
        lambda: list(c.DataLoader(X, sampler=[0, 9])),
        RangeError,
        ["sampler", "9", "[0, 4)"],
    ),
    ("accumulate 0", lambda: trainer(accumulate=0), RangeError, ["accumulate", "0", "at least 1"]),
    (
        "a loader without targets",
        lambda: trainer().train_epoch(c.DataLoader(X)),
        ShapeError,
        ["pairs", "ndarray"],
    ),
    (
        "patience 0",
        lambda: trainer().fit(c.DataLoader(X, Y), epochs=1, patience=0),
        RangeError,
        ["patience", "0"],
    ),
    ("no workers", lambda: c.workers(0).__enter__(), RangeError, ["workers", "0", "at least 1"]),
    ("unknown kernels", lambda: c.kernels("cuda").__enter__(), RangeError, ["'cuda'", '"numpy"']),
    (
        "batches larger than the data",
        lambda: c.profile_batch_sizes(c.relu, X, batch_sizes=[1, 8]),
        RangeError,
        ["batch_sizes", "8", "4"],
    ),
]


@pytest.mark.parametrize(("call", "error", "pieces"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_input(call, error, pieces):
    """Never a silent broadcast, never an error of NumPy's: ours, of the right kind, with all three facts."""
    with pytest.raises(ArrayError) as caught:
        call()
    assert isinstance(caught.value, error)
    missing = [piece for piece in pieces if piece not in str(caught.value)]
    assert not missing, f"{missing} not in {caught.value}"


def test_nothing_is_changed_before_the_error():
    """Running statistics, `out` and parameters are as they were."""
    mean, out, model = np.zeros(3), np.full((4, 3), 7.0), c.Sequential(layer())
    before = model.state_dict()
    with pytest.raises(ShapeError):
        norm(X + 1, gamma=np.ones(4), mean=mean)
    with pytest.raises(ShapeError):
        c.softmax(X, axis=5, out=out)
    with pytest.raises(ShapeError):
        model.load_state_dict({**before, "0.bias": np.ones(9), "0.weight": before["0.weight"] + 1})
    assert not mean.any() and (out == 7).all()
    assert all(np.array_equal(a, before[name]) for name, a in model.arrays().items())
