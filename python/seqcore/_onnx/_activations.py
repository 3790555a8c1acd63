"""Activations as ONNX nodes, and as words of ONNX's recurrent nodes. Private to `_onnx`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ._graph import Graph


def _node(kind: str, **attributes: Any) -> Callable[[Graph, str], str]:
    return lambda graph, x: graph.op(kind, x, **attributes)


def _clip(low: float, high: float) -> Callable[[Graph, str], str]:
    return lambda graph, x: graph.op("Clip", x, graph.constant(low, "low"), graph.constant(high, "high"))


def _silu(graph: Graph, x: str) -> str:
    return graph.op("Mul", x, graph.op("Sigmoid", x))


def _gelu(graph: Graph, x: str) -> str:
    erf = graph.op("Erf", graph.op("Mul", x, graph.constant(math.sqrt(0.5), "sqrt_half")))
    half = graph.op("Mul", x, graph.constant(0.5, "half"))
    return graph.op("Mul", half, graph.op("Add", erf, graph.constant(1.0, "one")))


def _mish(graph: Graph, x: str) -> str:
    return graph.op("Mul", x, graph.op("Tanh", graph.op("Softplus", x)))


def _log_sigmoid(graph: Graph, x: str) -> str:
    return graph.op("Neg", graph.op("Softplus", graph.op("Neg", x)))


def _tanh_shrink(graph: Graph, x: str) -> str:
    return graph.op("Sub", x, graph.op("Tanh", x))


def _squareplus(graph: Graph, x: str) -> str:
    root = graph.op("Sqrt", graph.op("Add", graph.op("Mul", x, x), graph.constant(4.0, "four")))
    return graph.op("Mul", graph.op("Add", x, root), graph.constant(0.5, "half"))


def _sparse_plus(graph: Graph, x: str) -> str:
    one = graph.constant(1.0, "one")
    inside = graph.op("Max", graph.op("Add", x, one), graph.constant(0.0, "zero"))
    square = graph.op("Mul", graph.op("Mul", inside, inside), graph.constant(0.25, "quarter"))
    return graph.op("Where", graph.op("Less", x, one), square, x)


def _sparsemax(graph: Graph, x: str) -> str:
    """By the definition: of the sorted row the first ones are kept, what is taken off makes them add up to 1."""
    last, one, zero = graph.constant([-1], "last"), graph.constant(1.0, "one"), graph.constant(0.0, "zero")
    below = graph.op("Sub", x, graph.op("ReduceMax", x, axes=[-1]))
    size = graph.op("Shape", x, start=-1)
    ordered, _ = graph.ops("TopK", [below, size], 2, axis=-1)
    count = graph.op("CumSum", graph.op("Expand", one, size), graph.constant(0, "first"))
    least = graph.op("Add", one, graph.op("Mul", count, ordered))
    kept = graph.op("Less", graph.op("CumSum", ordered, graph.constant(-1, "axis")), least)
    total = graph.op("ReduceSum", graph.op("Where", kept, ordered, zero), last)
    number = graph.op("ReduceSum", graph.op("Where", kept, one, zero), last)
    taken = graph.op("Div", graph.op("Sub", total, one), number)
    return graph.op("Relu", graph.op("Sub", below, taken))


def relu(graph: Graph, x: str, max_value: float | None, negative_slope: float, threshold: float) -> str:
    """The nodes of a ReLU with parameters."""
    if threshold == 0 and max_value is None:
        return graph.op("LeakyRelu", x, alpha=negative_slope) if negative_slope else graph.op("Relu", x)
    if threshold == 0 and not negative_slope:
        return _clip(0.0, float(max_value or 0))(graph, x)
    above, at = x, graph.constant(threshold, "threshold")
    if max_value is not None:
        above = graph.op("Min", x, graph.constant(max_value, "max_value"))
    below = graph.constant(0.0, "zero")
    if negative_slope:
        below = graph.op("Mul", graph.op("Sub", x, at), graph.constant(negative_slope, "negative_slope"))
    return graph.op("Where", graph.op("Greater", x, at), above, below)


_NODES: dict[str, Callable[[Graph, str], str]] = {
    "linear": lambda graph, x: x,
    "relu": _node("Relu"),
    "leaky_relu": _node("LeakyRelu", alpha=0.2),
    "relu6": _clip(0.0, 6.0),
    "elu": _node("Elu", alpha=1.0),
    "celu": _node("Elu", alpha=1.0),
    "selu": _node("Selu"),
    "softplus": _node("Softplus"),
    "softsign": _node("Softsign"),
    "silu": _silu,
    "gelu": _gelu,
    "tanh": _node("Tanh"),
    "sigmoid": _node("Sigmoid"),
    "exponential": _node("Exp"),
    "hard_sigmoid": _node("HardSigmoid", alpha=1 / 6, beta=0.5),
    "hard_silu": _node("HardSwish"),
    "hard_tanh": _clip(-1.0, 1.0),
    "mish": _mish,
    "log_sigmoid": _log_sigmoid,
    "tanh_shrink": _tanh_shrink,
    "soft_shrink": _node("Shrink", lambd=0.5, bias=0.5),
    "hard_shrink": _node("Shrink", lambd=0.5, bias=0.0),
    "squareplus": _squareplus,
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": _node("HardSigmoid", alpha=0.5, beta=0.5),
    "softmax": _node("Softmax", axis=-1),
    "log_softmax": _node("LogSoftmax", axis=-1),
    "sparsemax": _sparsemax,
}

# What ONNX's recurrent nodes can do: (name, alpha, beta).
_RECURRENT: dict[str, tuple[str, float | None, float | None]] = {
    "linear": ("Affine", 1.0, 0.0),
    "relu": ("Relu", None, None),
    "leaky_relu": ("LeakyRelu", 0.2, None),
    "elu": ("Elu", 1.0, None),
    "celu": ("Elu", 1.0, None),
    "softplus": ("Softplus", None, None),
    "softsign": ("Softsign", None, None),
    "tanh": ("Tanh", None, None),
    "sigmoid": ("Sigmoid", None, None),
    "hard_sigmoid": ("HardSigmoid", 1 / 6, 0.5),
    "sparse_sigmoid": ("HardSigmoid", 0.5, 0.5),
}


def activate(graph: Graph, activation: Any, x: str, layer: Any) -> str:
    """The nodes of an activation over `x`."""
    name = activation.__name__
    if name not in _NODES:
        raise ValueError(f'layer "{layer.name}": the activation {name!r} is not exported; known: {", ".join(_NODES)}')
    return _NODES[name](graph, x)


def recurrent_attributes(functions: list[tuple[Any, Any]]) -> dict[str, Any]:
    """The attributes of a recurrent node: of each of its functions, in order, the layer and the activation."""
    found = []
    for layer, activation in functions:
        name = activation.__name__
        if name not in _RECURRENT:
            raise ValueError(
                f'layer "{layer.name}": ONNX has no recurrent layers with the activation {name!r}; it knows '
                f"{', '.join(_RECURRENT)}"
            )
        found.append(_RECURRENT[name])
    attributes: dict[str, Any] = {"activations": [name for name, _, _ in found]}
    alphas, betas = ([f[i] for f in found if f[i] is not None] for i in (1, 2))
    if alphas:
        attributes["activation_alpha"] = alphas
    if betas:
        attributes["activation_beta"] = betas
    return attributes
