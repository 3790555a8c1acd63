"""Activations: name -> (value, gradient). `gradient(x, y, dy)` is dL/dx from input, output and dL/dy."""

import numpy as np


def _sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def _softplus(x):
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


def _erf(x):
    # erf(x) = 2x/sqrt(pi) exp(-x^2) sum_n (2x^2)^n / (2n+1)!!: positive terms, so nothing cancels. erf(6) rounds to 1.
    x = np.clip(x, -6.0, 6.0)
    term = total = np.ones_like(x)
    for n in range(1, 160):
        term = term * (2.0 * x * x / (2 * n + 1))
        total = total + term
    return 2.0 / np.sqrt(np.pi) * x * np.exp(-x * x) * total


def _normal_cdf(x):
    return 0.5 * (1.0 + _erf(x / np.sqrt(2.0)))


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def _sparsemax(x):
    # Martins and Astudillo, 2016: the largest number of elements that stay above what is taken off all of them.
    ordered = -np.sort(-x, -1)
    sums, count = np.cumsum(ordered, -1), np.arange(1, x.shape[-1] + 1)
    kept = (1.0 + count * ordered > sums).sum(-1, keepdims=True)
    return np.maximum(x - (np.take_along_axis(sums, kept - 1, -1) - 1.0) / kept, 0.0)


def _sparsemax_gradient(x, y, dy):
    kept = y > 0
    return kept * (dy - (kept * dy).sum(-1, keepdims=True) / kept.sum(-1, keepdims=True))


def _elementwise(value, derivative):
    return value, lambda x, y, dy: dy * derivative(x, y)


_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _negative_exp(x):
    return np.exp(np.minimum(x, 0.0))


ACTIVATIONS = {
    "linear": _elementwise(lambda x: x, lambda x, y: np.ones_like(x)),
    "relu": _elementwise(lambda x: np.maximum(x, 0.0), lambda x, y: x > 0),
    "leaky_relu": _elementwise(lambda x: np.where(x > 0, x, 0.2 * x), lambda x, y: np.where(x > 0, 1.0, 0.2)),
    "relu6": _elementwise(lambda x: np.clip(x, 0.0, 6.0), lambda x, y: (x > 0) & (x < 6)),
    "elu": _elementwise(
        lambda x: np.where(x > 0, x, _negative_exp(x) - 1.0), lambda x, y: np.where(x > 0, 1.0, _negative_exp(x))
    ),
    "selu": _elementwise(
        lambda x: _SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * (_negative_exp(x) - 1.0)),
        lambda x, y: _SELU_SCALE * np.where(x > 0, 1.0, _SELU_ALPHA * _negative_exp(x)),
    ),
    "softplus": _elementwise(_softplus, lambda x, y: _sigmoid(x)),
    "softsign": _elementwise(lambda x: x / (1.0 + np.abs(x)), lambda x, y: (1.0 + np.abs(x)) ** -2.0),
    "silu": _elementwise(lambda x: x * _sigmoid(x), lambda x, y: _sigmoid(x) * (1.0 + x * (1.0 - _sigmoid(x)))),
    "gelu": _elementwise(
        lambda x: x * _normal_cdf(x), lambda x, y: _normal_cdf(x) + x * np.exp(-0.5 * x * x) / np.sqrt(2.0 * np.pi)
    ),
    "tanh": _elementwise(np.tanh, lambda x, y: 1.0 - y * y),
    "sigmoid": _elementwise(_sigmoid, lambda x, y: y * (1.0 - y)),
    "exponential": _elementwise(np.exp, lambda x, y: y),
    "hard_sigmoid": _elementwise(lambda x: np.clip(x + 3.0, 0.0, 6.0) / 6.0, lambda x, y: ((x > -3) & (x < 3)) / 6.0),
    "hard_silu": _elementwise(
        lambda x: x * np.clip(x + 3.0, 0.0, 6.0) / 6.0,
        lambda x, y: np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, (2.0 * x + 3.0) / 6.0)),
    ),
    "hard_tanh": _elementwise(lambda x: np.clip(x, -1.0, 1.0), lambda x, y: (x > -1) & (x < 1)),
    "mish": _elementwise(
        lambda x: x * np.tanh(_softplus(x)),
        lambda x, y: np.tanh(_softplus(x)) + x * _sigmoid(x) * (1.0 - np.tanh(_softplus(x)) ** 2),
    ),
    "log_sigmoid": _elementwise(lambda x: -_softplus(-x), lambda x, y: _sigmoid(-x)),
    "tanh_shrink": _elementwise(lambda x: x - np.tanh(x), lambda x, y: np.tanh(x) ** 2),
    "soft_shrink": _elementwise(lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0.0), lambda x, y: np.abs(x) > 0.5),
    "hard_shrink": _elementwise(lambda x: np.where(np.abs(x) > 0.5, x, 0.0), lambda x, y: np.abs(x) > 0.5),
    "squareplus": _elementwise(
        lambda x: 0.5 * (x + np.sqrt(x * x + 4.0)), lambda x, y: 0.5 * (1.0 + x / np.sqrt(x * x + 4.0))
    ),
    "sparse_plus": _elementwise(
        lambda x: np.where(x >= 1, x, 0.25 * np.maximum(x + 1.0, 0.0) ** 2), lambda x, y: np.clip(x + 1.0, 0.0, 2.0) / 2
    ),
    "sparse_sigmoid": _elementwise(lambda x: np.clip(x + 1.0, 0.0, 2.0) / 2, lambda x, y: ((x > -1) & (x < 1)) / 2),
    # Row-wise: over the last axis.
    "softmax": (_softmax, lambda x, y, dy: y * (dy - (dy * y).sum(-1, keepdims=True))),
    "log_softmax": (_log_softmax, lambda x, y, dy: dy - np.exp(y) * dy.sum(-1, keepdims=True)),
    "sparsemax": (_sparsemax, _sparsemax_gradient),
}

# With a parameter, which those of layers do not have.
PARAMETRIC = {
    "celu": lambda x, alpha: np.where(x > 0, x, alpha * (_negative_exp(x / alpha) - 1.0)),
    "gelu": lambda x, approximate: x * _sigmoid(np.sqrt(8.0 / np.pi) * (x + 0.044715 * x**3)) if approximate else (
        x * _normal_cdf(x)
    ),
    "hard_shrink": lambda x, threshold: np.where(np.abs(x) > threshold, x, 0.0),
    "soft_shrink": lambda x, threshold: np.sign(x) * np.maximum(np.abs(x) - threshold, 0.0),
    "squareplus": lambda x, b: 0.5 * (x + np.sqrt(x * x + b)),
}  # fmt: skip


def activate(name, x):
    return ACTIVATIONS[name or "linear"][0](x)


def activate_backward(name, x, dy):
    value, gradient = ACTIVATIONS[name or "linear"]
    return gradient(x, value(x), dy)
