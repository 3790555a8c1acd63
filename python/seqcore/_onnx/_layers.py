"""Layers as ONNX nodes: `emit`. Private to `_onnx`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._network import Shape
from ..layers import (
    ELU,
    GRU,
    LSTM,
    RNN,
    Activation,
    ActivityRegularization,
    AlphaDropout,
    AveragePooling1D,
    BatchNormalization,
    Bidirectional,
    Conv1D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GaussianDropout,
    GaussianNoise,
    GlobalAveragePooling1D,
    GlobalMaxPooling1D,
    Identity,
    Layer,
    LayerNormalization,
    LeakyReLU,
    Masking,
    MaxPooling1D,
    Permute,
    ReLU,
    RepeatVector,
    Reshape,
    SimpleRNN,
    Softmax,
    SpatialDropout1D,
    TimeDistributed,
)
from ._activations import activate, relu
from ._graph import Dims, Graph, Value
from ._recurrent import bidirectional, recurrent
from ._windows import windows

# What a layer gives: the names of its outputs, and of the mask that remains.
Made = tuple[list[str], "str | None"]


def emit(graph: Graph, layer: Layer, x: Value) -> list[Value]:
    """Adds a layer in inference; gives its outputs, of which only the first has a mask.

    Raises:
        ValueError: the layer, or what it was given, has no counterpart in ONNX.
    """
    handler = _HANDLERS.get(type(layer))
    if handler is None:
        raise ValueError(f'layer "{layer.name}": {type(layer).__name__} is not exported to ONNX')
    with graph.scope(str(layer.name)):
        names, mask = handler(graph, layer, x)
    shapes = layer.compute_output_shape(tuple(n if isinstance(n, int) else None for n in x.shape))
    first, *rest = (Value(n, _named(layer, x.shape, s)) for n, s in zip(names, _in_one_row(shapes), strict=True))
    return [first._replace(mask=mask), *rest]


def _in_one_row(shapes: Any) -> list[Shape]:
    """The shape of one output, or those of several, in which the states of a stack are lists of their own."""
    return [one for several in shapes for one in _in_one_row(several)] if isinstance(shapes, list) else [shapes]


def _named(layer: Layer, given: Dims, shape: Shape) -> Dims:
    """`shape` with names for the sizes that nobody knows. They keep their order, but in two layers, and windows
    make another number of steps of one."""
    if isinstance(layer, Permute):
        return given[0], *(given[axis] for axis in layer.dims)
    if isinstance(layer, Flatten):
        return given[0], shape[1]
    if isinstance(layer, TimeDistributed):
        inner = _named(layer.layer, (given[0], *given[2:]), (shape[0], *shape[2:]))
        return given[0], given[1], *inner[1:]
    if isinstance(layer, _WINDOWS) or (isinstance(layer, Reshape) and _other_steps(layer, given)):
        return given[0], *shape[1:]
    names = [n for n in given if not isinstance(n, int)]
    return tuple(names.pop(0) if n is None else n for n in shape)


def _other_steps(layer: Reshape, given: Dims) -> bool:
    """Whether it makes another number of steps, where that of the input is not known."""
    step = [n for n in given[2:] if isinstance(n, int)]
    return not isinstance(given[1], int) and math.prod(step) != math.prod(layer.target_shape[1:])


def _dense(graph: Graph, layer: Any, x: Value) -> Made:
    y = graph.op("MatMul", x.name, graph.constant(layer.kernel.numpy(), "kernel"))
    if layer.use_bias:
        y = graph.op("Add", y, graph.constant(layer.bias.numpy(), "bias"))
    return [activate(graph, layer.activation, y, layer)], x.mask


def _embedding(graph: Graph, layer: Any, x: Value) -> Made:
    y = graph.op("Gather", graph.constant(layer.embeddings.numpy(), "embeddings"), x.name)
    if not layer.mask_zero:
        return [y], x.mask
    return [y], graph.op("Not", graph.op("Equal", x.name, graph.constant(np.int32(0), "padding")))


def _masking(graph: Graph, layer: Any, x: Value) -> Made:
    same = graph.op("Equal", x.name, graph.constant(layer.mask_value, "mask_value"))
    all_same = graph.op("ReduceMin", graph.op("Cast", same, to=_INT32), axes=[-1])
    mask = graph.op("Not", graph.op("Cast", all_same, to=_BOOL))
    y = graph.op("Where", mask, x.name, graph.constant(0.0, "zero"))
    return [y], graph.op("Squeeze", mask, graph.constant([-1], "axis"))


def _nothing(graph: Graph, layer: Any, x: Value) -> Made:
    return [x.name], x.mask


def _activation(graph: Graph, layer: Any, x: Value) -> Made:
    return [activate(graph, layer.activation, x.name, layer)], x.mask


def _relu(graph: Graph, layer: Any, x: Value) -> Made:
    return [relu(graph, x.name, layer.max_value, layer.negative_slope, layer.threshold)], x.mask


def _leaky_relu(graph: Graph, layer: Any, x: Value) -> Made:
    return [graph.op("LeakyRelu", x.name, alpha=layer.negative_slope)], x.mask


def _elu(graph: Graph, layer: Any, x: Value) -> Made:
    return [graph.op("Elu", x.name, alpha=layer.alpha)], x.mask


def _softmax(graph: Graph, layer: Any, x: Value) -> Made:
    if layer.axis in (-1, len(x.shape) - 1):
        return [graph.op("Softmax", x.name, axis=-1)], x.mask
    if x.mask is None:
        return [graph.op("Softmax", x.name, axis=1)], None
    valid = graph.op("Unsqueeze", x.mask, graph.constant(list(range(2, len(x.shape))), "rest"))
    kept = graph.op("Where", valid, x.name, graph.constant(-np.inf, "nothing"))
    y = graph.op("Softmax", kept, axis=1)
    return [graph.op("Where", valid, y, graph.constant(0.0, "zero"))], x.mask


def _layer_normalization(graph: Graph, layer: Any, x: Value) -> Made:
    scale = layer.gamma.numpy() if layer.scale else [1.0] * int(x.shape[-1] or 0)
    inputs = [x.name, graph.constant(scale, "gamma")]
    if layer.center:
        inputs.append(graph.constant(layer.beta.numpy(), "beta"))
    return [graph.op("LayerNormalization", *inputs, axis=-1, epsilon=layer.epsilon)], x.mask


def _batch_normalization(graph: Graph, layer: Any, x: Value) -> Made:
    scale = 1.0 / np.sqrt(layer.moving_variance.numpy() + np.float32(layer.epsilon))
    if layer.scale:
        scale *= layer.gamma.numpy()
    y = graph.op("Sub", x.name, graph.constant(layer.moving_mean.numpy(), "moving_mean"))
    y = graph.op("Mul", y, graph.constant(scale, "scale"))
    if layer.center:
        y = graph.op("Add", y, graph.constant(layer.beta.numpy(), "beta"))
    return [y], x.mask


def _over_windows(graph: Graph, layer: Any, x: Value) -> Made:
    return [windows(graph, layer, x)], None


def _flatten(graph: Graph, layer: Any, x: Value) -> Made:
    return [graph.op("Flatten", x.name, axis=1)], None


def _reshape(graph: Graph, layer: Any, x: Value) -> Made:
    return [graph.op("Reshape", x.name, graph.constant([0, *layer.target_shape], "shape"))], None


def _permute(graph: Graph, layer: Any, x: Value) -> Made:
    return [graph.op("Transpose", x.name, perm=[0, *layer.dims])], None


def _repeat_vector(graph: Graph, layer: Any, x: Value) -> Made:
    one = graph.op("Unsqueeze", x.name, graph.constant([1], "axis"))
    return [graph.op("Expand", one, graph.constant([1, layer.n, 1], "shape"))], None


def _global_average(graph: Graph, layer: Any, x: Value) -> Made:
    if x.mask is None:
        return [graph.op("ReduceMean", x.name, axes=[1], keepdims=int(layer.keepdims))], None
    axis = graph.constant([1], "steps")
    valid = graph.op("Unsqueeze", x.mask, graph.constant([-1], "features"))
    kept = graph.op("Where", valid, x.name, graph.constant(0.0, "zero"))
    total = graph.op("ReduceSum", kept, axis, keepdims=int(layer.keepdims))
    count = graph.op("ReduceSum", graph.op("Cast", valid, to=_FLOAT), axis, keepdims=int(layer.keepdims))
    return [graph.op("Div", total, graph.op("Max", count, graph.constant(1.0, "one")))], None


def _global_max(graph: Graph, layer: Any, x: Value) -> Made:
    return [graph.op("ReduceMax", x.name, axes=[1], keepdims=int(layer.keepdims))], None


def _recurrent(graph: Graph, layer: Any, x: Value) -> Made:
    return recurrent(graph, layer, x), x.mask if layer.return_sequences else None


def _bidirectional(graph: Graph, layer: Any, x: Value) -> Made:
    return bidirectional(graph, layer, x), x.mask if layer.return_sequences else None


def _time_distributed(graph: Graph, layer: Any, x: Value) -> Made:
    """Steps and batch together are the inner layer's batch; no need to where that looks at the last axis alone."""
    if isinstance(layer.layer, _BY_LAST_AXIS) and getattr(layer.layer, "axis", -1) == -1:
        return [emit(graph, layer.layer, x._replace(mask=None))[0].name], x.mask
    all_steps = graph.op("Concat", graph.constant([-1], "all"), _sizes(graph, x, 2), axis=0)
    folded = Value(graph.op("Reshape", x.name, all_steps), (None, *x.shape[2:]))
    (y,) = emit(graph, layer.layer, folded)
    shape = graph.op("Concat", graph.op("Shape", x.name, start=0, end=2), _sizes(graph, y, 1), axis=0)
    return [graph.op("Reshape", y.name, shape)], x.mask


def _sizes(graph: Graph, value: Value, start: int) -> str:
    """The sizes of a value's axes from `start` on."""
    if all(isinstance(n, int) for n in value.shape[start:]):
        return graph.constant(value.shape[start:], "sizes")
    return graph.op("Shape", value.name, start=start)


_FLOAT, _INT32, _BOOL = 1, 6, 9  # of onnx.TensorProto
_BY_LAST_AXIS = (
    ELU, Activation, ActivityRegularization, AlphaDropout, BatchNormalization, Dense, Dropout, Embedding,
    GaussianDropout, GaussianNoise, Identity, LayerNormalization, LeakyReLU, ReLU, Softmax,
)  # fmt: skip
_WINDOWS = (AveragePooling1D, Conv1D, MaxPooling1D)
_HANDLERS: dict[type[Layer], Callable[[Graph, Any, Value], Made]] = {
    Activation: _activation,
    ActivityRegularization: _nothing,
    AlphaDropout: _nothing,
    AveragePooling1D: _over_windows,
    BatchNormalization: _batch_normalization,
    Bidirectional: _bidirectional,
    Conv1D: _over_windows,
    Dense: _dense,
    Dropout: _nothing,
    ELU: _elu,
    Embedding: _embedding,
    Flatten: _flatten,
    GaussianDropout: _nothing,
    GaussianNoise: _nothing,
    GRU: _recurrent,
    GlobalAveragePooling1D: _global_average,
    GlobalMaxPooling1D: _global_max,
    Identity: _nothing,
    LSTM: _recurrent,
    LayerNormalization: _layer_normalization,
    LeakyReLU: _leaky_relu,
    Masking: _masking,
    MaxPooling1D: _over_windows,
    Permute: _permute,
    RNN: _recurrent,
    ReLU: _relu,
    RepeatVector: _repeat_vector,
    Reshape: _reshape,
    SimpleRNN: _recurrent,
    Softmax: _softmax,
    SpatialDropout1D: _nothing,
    TimeDistributed: _time_distributed,
}
