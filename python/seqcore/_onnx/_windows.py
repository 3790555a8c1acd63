"""Conv1D, MaxPooling1D and AveragePooling1D as ONNX's Conv, MaxPool and AveragePool. Private to `_onnx`."""

from __future__ import annotations

from typing import Any

from ..layers import Conv1D, MaxPooling1D
from ._activations import activate
from ._graph import Graph, Value


def windows(graph: Graph, layer: Any, x: Value) -> str:
    """What the layer gives for (batch, steps, features). Neither pooling looks at padding."""
    if not isinstance(layer, Conv1D):
        kind = "MaxPool" if isinstance(layer, MaxPooling1D) else "AveragePool"
        return _node(graph, layer, x, kind, layer.pool_size[0], [])
    weights = [graph.constant(layer.kernel.numpy().transpose(2, 1, 0), "kernel")]
    if layer.use_bias:
        weights.append(graph.constant(layer.bias.numpy(), "bias"))
    dilations = list(layer.dilation_rate)
    y = _node(graph, layer, x, "Conv", layer.kernel_size[0], weights, dilations=dilations, group=layer.groups)
    return activate(graph, layer.activation, y, layer)


def _node(graph: Graph, layer: Any, x: Value, kind: str, size: int, weights: list[str], **attributes: Any) -> str:
    """A node whose windows are of `size` steps; it has the steps last."""
    (stride,) = layer.strides
    attributes["kernel_shape"] = [size]
    padding = _padding(layer, (size - 1) * attributes.get("dilations", [1])[0], x.shape[1])
    y = graph.op("Transpose", x.name, perm=[0, 2, 1])
    if padding is not None:
        y = graph.op(kind, y, *weights, strides=[stride], pads=padding, **attributes)
    elif stride <= size:
        y = graph.op(kind, y, *weights, strides=[stride], auto_pad="SAME_UPPER", **attributes)
    else:  # ONNX Runtime's SAME_UPPER would pad with less than nothing
        before = (size - 1) // 2
        every = graph.op(kind, y, *weights, pads=[before, size - 1 - before], **attributes)
        y = _apart(graph, every, size, stride)
    return graph.op("Transpose", y, perm=[0, 2, 1])


def _padding(layer: Any, reach: int, steps: Any) -> list[int] | None:
    """The steps of padding at both ends; None where that rests on a number of steps that nobody knows.

    reach: the steps from a window's first to its last.
    """
    (stride,) = layer.strides
    if layer.padding == "valid":
        return [0, 0]
    if layer.padding == "causal":
        return [reach, 0]
    if stride == 1:
        return [reach // 2, reach - reach // 2]
    if not isinstance(steps, int):
        return None
    both = max(reach - (steps - 1) % stride, 0)
    return [both // 2, both - both // 2]


def _apart(graph: Graph, every: str, size: int, stride: int) -> str:
    """Of the windows around every step those `stride` steps apart. `_padding` at run time says which is the first."""
    one, step, zero = graph.constant([1], "one"), graph.constant([stride], "stride"), graph.constant([0], "zero")
    past = graph.op("Mod", graph.op("Sub", graph.op("Shape", every, start=2), one), step)
    both = graph.op("Max", graph.op("Sub", graph.constant([size - 1], "reach"), past), zero)
    before = graph.op("Div", both, graph.constant([2], "two"))
    first = graph.op("Sub", graph.constant([(size - 1) // 2], "around"), before)
    end, axis = graph.constant([2**63 - 1], "end"), graph.constant([2], "axis")
    return graph.op("Slice", every, first, end, axis, step)
