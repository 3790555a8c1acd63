"""SimpleRNN, LSTM, GRU, RNN and Bidirectional as ONNX's RNN, LSTM and GRU. Private to `_onnx`.

A masked step leaves the states as they are, so a row is run over its valid steps alone: they are brought to its front,
and each step of the output looks up the place of the last valid one. That is exact for any mask, not only for padding
at the end, and asks little of who runs the file: `sequence_lens`, which OpenVINO was seen to ignore, stands only where
the last c of an LSTM is needed, which is no output of a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..layers import StackedRNNCells
from ..layers._base import flat
from ._activations import recurrent_attributes
from ._graph import Graph, Value

_INT32, _INT64 = 6, 7  # of onnx.TensorProto
# ONNX's name, its gates as places in Keras's order, and how many of its functions are gates' and φ.
_KINDS = {"SimpleRNN": ("RNN", [0], 0, 1), "LSTM": ("LSTM", [0, 3, 1, 2], 1, 2), "GRU": ("GRU", [0, 1, 2], 1, 1)}


class _Steps(NamedTuple):
    """What a mask says, of shape (batch, steps) where nothing else stands."""

    seen: str  # how many steps are valid up to each, it included
    order: str  # the places of the valid steps, in order, (batch, the most that a row has, 1)
    any: str  # whether a row has any, (batch, 1)
    last: str  # the place in `order` of the last one, (batch, 1), 0 where there is none
    lengths: str  # how many there are, 1 where there are none, (batch,)


class _Scan(NamedTuple):
    """What a direction gives."""

    y: str  # (batch, steps, units)
    backwards: bool  # whether the steps of y run backwards in time
    states: list[list[str]]  # the last ones, of each cell


def _steps(graph: Graph, mask: str) -> _Steps:
    if mask in graph.memory:
        found: _Steps = graph.memory[mask]
        return found
    zero, one = graph.constant([0], "zero"), graph.constant([1], "one")
    ones = graph.op("Cast", mask, to=_INT64)
    seen = graph.op("CumSum", ones, graph.constant(1, "axis"))
    total = graph.op("ReduceSum", ones, one, keepdims=1)
    shape = graph.op("Shape", mask)
    steps = graph.op("Squeeze", graph.op("Shape", mask, start=1))
    place = graph.op("Expand", graph.op("Range", graph.constant(0, "begin"), steps, graph.constant(1, "step")), shape)
    # Where each step goes: valid ones to the front, the others behind them.
    behind = graph.op("Add", total, graph.op("Sub", place, seen))
    goes = graph.op("Where", mask, graph.op("Sub", seen, one), behind)
    order = graph.op("ScatterElements", place, goes, place, axis=1)
    # ONNX says nothing about rows without a step: they have one, and what it gives is not looked at.
    length = graph.op("Max", total, one)
    longest = graph.op("Squeeze", graph.op("ReduceMax", length, axes=[0]), zero)
    order = graph.op("Slice", order, zero, longest, one)
    made = _Steps(
        seen,
        graph.op("Unsqueeze", order, graph.constant([-1], "last")),
        graph.op("Greater", total, zero),
        graph.op("Sub", length, one),
        graph.op("Cast", graph.op("Squeeze", length, one), to=_INT32),
    )
    graph.memory[mask] = made
    return made


def _cells(cell: Any) -> list[Any]:
    """The cells of a layer's cell, the lowest first."""
    return [one for inner in cell.cells for one in _cells(inner)] if isinstance(cell, StackedRNNCells) else [cell]


def _scan(graph: Graph, layers: Sequence[Any], x: Value, zero: bool) -> list[_Scan]:
    """Runs one layer, each of its cells as a node, or two of one cell each as one node, in opposite directions of
    unmasked steps, of which the first goes forwards. A masked step keeps a whole stack, whose cells share valid steps.

    zero: whether outputs of masked steps are zero, not the last output again.
    """
    given = [_given(graph, layer, x) for layer in layers]
    mask, source, steps, backwards = x.mask, x.name, None, layers[0].go_backwards
    if mask is not None:
        if backwards:
            source, mask = _flipped(graph, source), _flipped(graph, mask)
        steps = _steps(graph, mask)
        source = graph.op("GatherND", source, steps.order, batch_dims=1)
    lengths = steps.lengths if steps and (layers[0].return_state or layers[0].stateful) else ""
    direction = "bidirectional" if len(layers) == 2 else "reverse" if backwards and not steps else "forward"
    source = graph.op("Transpose", source, perm=[1, 0, 2])
    outputs: list[str] = []
    states: list[list[list[str]]] = [[] for _ in layers]
    for level, begins in enumerate(zip(*given, strict=True)):
        made = _node(graph, [_cells(layer.cell)[level] for layer in layers], source, begins, lengths, direction)
        source = made[0][0]
        outputs = [graph.op("Transpose", y, perm=[1, 0, 2]) for y, *_ in made]
        for i, (_, *last) in enumerate(made):
            if steps is not None:
                begin = begins[i] or [graph.constant(0.0, "zero")] * len(last)
                last[0] = graph.op("GatherND", outputs[i], steps.last, batch_dims=1)
                last = [graph.op("Where", steps.any, s, b) for s, b in zip(last, begin, strict=True)]
            states[i].append(last)
    if steps is not None:
        outputs = [
            _spread(graph, steps, y, begins[-1][0] if begins[-1] else None, mask if zero else None)
            for y, begins in zip(outputs, given, strict=True)
        ]
    return [_Scan(y, backwards and steps is not None, s) for y, s in zip(outputs, states, strict=True)]


def _node(
    graph: Graph, cells: Sequence[Any], source: str, given: Sequence[list[str]], lengths: str, direction: str
) -> list[list[str]]:
    """One cell, or one of each direction, over (steps, batch, features): of each y, (steps, batch, units), and the last
    states."""
    kind, gates, sigmas, phis = _KINDS[type(cells[0]).__name__.removesuffix("Cell")]
    weights = [_weights(cell, gates) for cell in cells]
    inputs = [
        source,
        *(graph.constant(np.stack([w[i] for w in weights]), name) for i, name in enumerate("WR")),
        graph.constant(np.stack([w[2] for w in weights]), "B") if any(c.use_bias for c in cells) else "",
        lengths if kind == "LSTM" else "",
    ]
    for same in zip(*given, strict=True):
        each = [graph.op("Unsqueeze", state, graph.constant([0], "direction")) for state in same]
        inputs.append(graph.op("Concat", *each, axis=0))
    while not inputs[-1]:
        inputs.pop()
    attributes = recurrent_attributes(
        [(c, f) for c in cells for f in [*[getattr(c, "recurrent_activation", None)] * sigmas, *[c.activation] * phis]]
    )
    if kind == "GRU":
        attributes["linear_before_reset"] = int(cells[0].reset_after)
    count = 1 + cells[0]._states
    made = graph.ops(kind, inputs, count, direction=direction, hidden_size=cells[0].units, **attributes)
    y = _directions(graph, made[0], len(cells), 1)
    states = [_directions(graph, state, len(cells), 0) for state in made[1:]]
    return [list(each) for each in zip(y, *states, strict=True)]


def _directions(graph: Graph, value: str, count: int, axis: int) -> list[str]:
    parts = [value] if count == 1 else graph.ops("Split", [value, graph.constant([1, 1], "each")], 2, axis=axis)
    return [graph.op("Squeeze", part, graph.constant([axis], "direction")) for part in parts]


def _spread(graph: Graph, steps: _Steps, y: str, begin: str | None, mask: str | None) -> str:
    """The outputs of all steps from those of the valid ones: before any is valid, the state to `begin` with, or zeros.

    mask: where given, all that is masked is zero.
    """
    last, zero = graph.constant([-1], "last"), graph.constant(0, "zero")
    place = graph.op("Max", graph.op("Sub", steps.seen, graph.constant(1, "one")), zero)
    found = graph.op("GatherND", y, graph.op("Unsqueeze", place, last), batch_dims=1)
    other = graph.constant(0.0, "nothing")
    if begin and not mask:
        other = graph.op("Unsqueeze", begin, graph.constant([1], "steps"))
    known = mask or graph.op("Greater", steps.seen, zero)
    return graph.op("Where", graph.op("Unsqueeze", known, last), found, other)


def _given(graph: Graph, layer: Any, x: Value) -> list[list[str]]:
    """Of each cell the states to start from, as inputs of the graph; none where they are zeros."""
    cells = _cells(layer.cell)
    if not layer.stateful:
        return [[] for _ in cells]
    return [
        [graph.input(name, "float32", (x.shape[0], cell.units)).name for name in names]
        for cell, names in zip(cells, _state_names(layer), strict=True)
    ]


def _state_names(layer: Any) -> list[list[str]]:
    cells = _cells(layer.cell)
    numbers = [f"_{i}" for i in range(len(cells))] if len(cells) > 1 else [""]
    return [
        [f"{layer.name}{number}_{state}" for state in "hc"[: cell._states]]
        for number, cell in zip(numbers, cells, strict=True)
    ]


def _weights(cell: Any, gates: Sequence[int]) -> tuple[Any, Any, Any]:
    """W (gates·units, features), R (gates·units, units), B (2·gates·units) of one direction."""
    units = cell.units

    def ordered(a: Any) -> Any:
        return np.concatenate([a[..., g * units : (g + 1) * units] for g in gates], -1)

    bias = np.zeros((2, len(gates) * units), np.float32)
    if cell.use_bias:
        given = ordered(cell.bias.numpy())
        bias[: 1 if given.ndim == 1 else 2] = given
    return ordered(cell.kernel.numpy()).T, ordered(cell.recurrent_kernel.numpy()).T, bias.ravel()


def _flipped(graph: Graph, y: str) -> str:
    """y (batch, steps, …), the steps the other way round."""
    start, end, axis, step = (
        graph.constant([n], name) for n, name in ((-1, "start"), (1 - 2**63, "end"), (1, "axis"), (-1, "step"))
    )
    return graph.op("Slice", y, start, end, axis, step)


def _output(graph: Graph, layer: Any, scan: _Scan, mask: str | None, zero: bool, backwards: bool) -> str:
    """What one direction gives: all steps, `backwards` in time or not, or the last one."""
    if layer.return_sequences:
        return scan.y if scan.backwards == backwards else _flipped(graph, scan.y)
    h = scan.states[-1][0]
    if mask is None or not zero:
        return h
    # The step that was processed last may be a masked one.
    last = graph.op("Gather", mask, graph.constant([0 if layer.go_backwards else -1], "step"), axis=1)
    return graph.op("Where", last, h, graph.constant(0.0, "zero"))


def _keep(graph: Graph, layer: Any, scan: _Scan, x: Value) -> None:
    """The states of a stateful layer become outputs of the graph: what to give it with the next batch."""
    if layer.stateful:
        for cell, names, states in zip(_cells(layer.cell), _state_names(layer), scan.states, strict=True):
            for name, state in zip(names, states, strict=True):
                graph.output(Value(state, (x.shape[0], cell.units)), f"{name}_next", last=True)


def recurrent(graph: Graph, layer: Any, x: Value) -> list[str]:
    """SimpleRNN, LSTM, GRU or RNN: the output, then the states where they are asked for."""
    (scan,) = _scan(graph, [layer], x, layer.zero_output_for_mask)
    _keep(graph, layer, scan, x)
    y = _output(graph, layer, scan, x.mask, layer.zero_output_for_mask, layer.go_backwards)
    return [y, *(flat(scan.states) if layer.return_state else [])]


def bidirectional(graph: Graph, layer: Any, x: Value) -> list[str]:
    """Bidirectional: one node where both directions have all steps and one cell of one shape, more otherwise."""
    halves = [layer.forward_layer, layer._backward]
    # As Keras has it: in sequences, masked steps give zeros whatever the layers inside say.
    zero = layer.return_sequences
    forward, backward = (
        [(type(c), c.units, getattr(c, "reset_after", None)) for c in _cells(half.cell)] for half in halves
    )
    together = forward == backward and len(forward) == 1 and x.mask is None and not halves[0].go_backwards
    groups = [halves] if together else [[half] for half in halves]
    scans = [scan for group in groups for scan in _scan(graph, group, x, zero)]
    for half, scan in zip(halves, scans, strict=True):
        _keep(graph, half, scan, x)
    # The backward half's steps are turned round again, so that both halves' are in the order of the forward one's.
    both = [_output(graph, h, s, x.mask, zero, halves[0].go_backwards) for h, s in zip(halves, scans, strict=True)]
    states = flat([scan.states for scan in scans]) if layer.return_state else []
    if layer.merge_mode is None:
        return [*both, *states]
    if layer.merge_mode == "concat":
        return [graph.op("Concat", *both, axis=-1), *states]
    merged = graph.op("Mul" if layer.merge_mode == "mul" else "Add", *both)
    if layer.merge_mode == "ave":
        merged = graph.op("Mul", merged, graph.constant(0.5, "half"))
    return [merged, *states]
