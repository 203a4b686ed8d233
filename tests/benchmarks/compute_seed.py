"""The seed's code, as it was written, for comparison of speed. Several of these are wrong: see
docs/howto/from-the-seed.md. Nothing here is used by the package."""

from __future__ import annotations

import numpy as np


def sigmoid_batch(X):
    X = np.clip(X, -500, 500)
    return 1 / (1 + np.exp(-X))


def softmax_batch(X):
    X_max = X.max(axis=1, keepdims=True)
    exp_X = np.exp(X - X_max)
    return exp_X / exp_X.sum(axis=1, keepdims=True)


def cross_entropy_batch(y_pred, y_true):
    batch_size = y_pred.shape[0]
    log_probs = -np.log(y_pred[np.arange(batch_size), y_true] + 1e-8)
    return np.mean(log_probs)


def compute_grad_loss(predictions, y_true):
    batch_size = predictions.shape[0]
    grad = predictions.copy()
    grad[np.arange(batch_size), y_true] -= 1
    return grad / batch_size


class BatchNorm:
    def __init__(self, num_features, eps=1e-5, momentum=0.9):
        self.eps, self.momentum = eps, momentum
        self.gamma, self.beta = np.ones(num_features), np.zeros(num_features)
        self.running_mean, self.running_var = np.zeros(num_features), np.ones(num_features)

    def forward(self, X):
        batch_mean = X.mean(axis=0)
        batch_var = X.var(axis=0)
        self.running_mean = self.momentum * self.running_mean + (1 - self.momentum) * batch_mean
        self.running_var = self.momentum * self.running_var + (1 - self.momentum) * batch_var
        X_norm = (X - batch_mean) / np.sqrt(batch_var + self.eps)
        out = self.gamma * X_norm + self.beta
        self.cache = (X, X_norm, batch_mean, batch_var)
        return out

    def backward(self, dout):
        X, X_norm, mean, var = self.cache
        batch_size = X.shape[0]
        self.dgamma = (dout * X_norm).sum(axis=0)
        self.dbeta = dout.sum(axis=0)
        dX_norm = dout * self.gamma
        dvar = (dX_norm * (X - mean) * -0.5 * (var + self.eps) ** (-1.5)).sum(axis=0)
        dmean = (dX_norm * -1 / np.sqrt(var + self.eps)).sum(axis=0)
        return dX_norm / np.sqrt(var + self.eps) + dvar * 2 * (X - mean) / batch_size + dmean / batch_size


def attention(Q, K, V, chunk_size=32):
    """With the axis of softmax and the transpose mended, or it would not run at all."""
    outputs = []
    for i in range(0, Q.shape[1], chunk_size):
        scores = Q[:, i : i + chunk_size] @ K.swapaxes(-2, -1) / np.sqrt(Q.shape[-1])
        exp = np.exp(scores - scores.max(axis=-1, keepdims=True))
        outputs.append(exp / exp.sum(axis=-1, keepdims=True) @ V)
    return np.concatenate(outputs, axis=1)


class DataLoader:
    def __init__(self, X, y, batch_size=32, shuffle=True):
        self.X, self.y, self.batch_size, self.shuffle = X, y, batch_size, shuffle
        self.n_samples = len(X)

    def __iter__(self):
        indices = np.arange(self.n_samples)
        if self.shuffle:
            np.random.shuffle(indices)
        for start_idx in range(0, self.n_samples, self.batch_size):
            end_idx = min(start_idx + self.batch_size, self.n_samples)
            batch_indices = indices[start_idx:end_idx]
            yield self.X[batch_indices], self.y[batch_indices]
