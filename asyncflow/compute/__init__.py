"""Batch maths on NumPy arrays: pure functions, thin layers that hold parameters, training, loading.

Arrays go in and come out in the dtype they had. Every function has the same bits for any `workers(n)`.
`docs/reference/compute.md` lists shapes, units and errors.
"""

from asyncflow.compute.activation_layers import GELU, Flatten, LogSoftmax, ReLU, Sigmoid, Softmax, Tanh
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
from asyncflow.compute.adamw import AdamW
from asyncflow.compute.attend import AttentionContext, attention, attention_backward
from asyncflow.compute.batch_norm import BatchNormContext, batch_norm_backward, batch_norm_forward
from asyncflow.compute.class_losses import cross_entropy, cross_entropy_with_grad, loss_weight
from asyncflow.compute.clipping import clip_gradients, gradient_norm
from asyncflow.compute.dropout import DropoutContext, dropout_backward, dropout_forward
from asyncflow.compute.layer_norm import LayerNormContext, layer_norm_backward, layer_norm_forward
from asyncflow.compute.layers import BatchNorm, Dropout, LayerNorm, Linear
from asyncflow.compute.loader import DataLoader, weighted_sampler
from asyncflow.compute.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_grad,
    huber_loss,
    huber_loss_with_grad,
    mse_loss,
    mse_loss_with_grad,
)
from asyncflow.compute.nll import nll_loss, nll_loss_with_grad
from asyncflow.compute.offload import ComputeStatistics, offload, statistics
from asyncflow.compute.optimizer import Optimizer
from asyncflow.compute.parameter import Layer, Parameter
from asyncflow.compute.precision import LossScale
from asyncflow.compute.profiling import BatchProfile, BatchSizeRecord, profile_batch_sizes
from asyncflow.compute.schedules import (
    constant,
    doubling,
    linear_warmup,
    polynomial,
    scaled_rate,
    step_decay,
    warmup_cosine,
)
from asyncflow.compute.sequential import Sequential
from asyncflow.compute.settings import kernels, workers
from asyncflow.compute.sgd import SGD
from asyncflow.compute.softmaxes import log_softmax, log_softmax_backward, softmax, softmax_backward
from asyncflow.compute.training import EpochRecord, Trainer, accuracy

__all__ = [
    "GELU",
    "SGD",
    "AdamW",
    "AttentionContext",
    "BatchNorm",
    "BatchNormContext",
    "BatchProfile",
    "BatchSizeRecord",
    "ComputeStatistics",
    "DataLoader",
    "Dropout",
    "DropoutContext",
    "EpochRecord",
    "Flatten",
    "Layer",
    "LayerNorm",
    "LayerNormContext",
    "Linear",
    "LogSoftmax",
    "LossScale",
    "Optimizer",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "Trainer",
    "accuracy",
    "attention",
    "attention_backward",
    "batch_norm_backward",
    "batch_norm_forward",
    "binary_cross_entropy",
    "binary_cross_entropy_with_grad",
    "clip_gradients",
    "constant",
    "cross_entropy",
    "cross_entropy_with_grad",
    "doubling",
    "dropout_backward",
    "dropout_forward",
    "gelu",
    "gelu_backward",
    "gradient_norm",
    "huber_loss",
    "huber_loss_with_grad",
    "kernels",
    "layer_norm_backward",
    "layer_norm_forward",
    "linear_warmup",
    "log_sigmoid",
    "log_sigmoid_backward",
    "log_softmax",
    "log_softmax_backward",
    "loss_weight",
    "mse_loss",
    "mse_loss_with_grad",
    "nll_loss",
    "nll_loss_with_grad",
    "offload",
    "polynomial",
    "profile_batch_sizes",
    "relu",
    "relu_backward",
    "scaled_rate",
    "sigmoid",
    "sigmoid_backward",
    "softmax",
    "softmax_backward",
    "statistics",
    "step_decay",
    "tanh",
    "tanh_backward",
    "warmup_cosine",
    "weighted_sampler",
    "workers",
]
