"""Batch maths on NumPy arrays: pure functions, thin layers that hold parameters, training, loading.

Arrays go in and come out in the dtype they had. Every function has the same bits for any `workers(n)`.
`docs/reference/compute.md` lists shapes, units and errors.
"""

from asyncflow.compute.activations import (
    gelu,
    gelu_backward,
    log_sigmoid,
    log_sigmoid_backward,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    tanh,
    tanh_backward,
)
from asyncflow.compute.batch_norm import BatchNormContext, batch_norm_backward, batch_norm_forward
from asyncflow.compute.cross_entropy import cross_entropy, cross_entropy_with_grad, loss_weight
from asyncflow.compute.layer_norm import LayerNormContext, layer_norm_backward, layer_norm_forward
from asyncflow.compute.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_grad,
    huber_loss,
    huber_loss_with_grad,
    mse_loss,
    mse_loss_with_grad,
)
from asyncflow.compute.nll import nll_loss, nll_loss_with_grad
from asyncflow.compute.settings import kernels, workers
from asyncflow.compute.softmax import log_softmax, log_softmax_backward, softmax, softmax_backward

__all__ = [
    "BatchNormContext",
    "LayerNormContext",
    "batch_norm_backward",
    "batch_norm_forward",
    "binary_cross_entropy",
    "binary_cross_entropy_with_grad",
    "cross_entropy",
    "cross_entropy_with_grad",
    "gelu",
    "gelu_backward",
    "huber_loss",
    "huber_loss_with_grad",
    "kernels",
    "layer_norm_backward",
    "layer_norm_forward",
    "log_sigmoid",
    "log_sigmoid_backward",
    "log_softmax",
    "log_softmax_backward",
    "loss_weight",
    "mse_loss",
    "mse_loss_with_grad",
    "nll_loss",
    "nll_loss_with_grad",
    "relu",
    "relu_backward",
    "sigmoid",
    "sigmoid_backward",
    "softmax",
    "softmax_backward",
    "tanh",
    "tanh_backward",
    "workers",
]
