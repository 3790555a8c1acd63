"""Models written as ONNX files: recurrent layers as the nodes that ONNX has for them, all in the default domain.

Private: used by `Sequential.export`. The package `onnx` is imported when it is needed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .. import _engine
from .._config import sizes
from .._network import Shape, chain_shapes
from ..layers import InputLayer
from ._graph import Graph
from ._layers import emit

if TYPE_CHECKING:
    from ..models import Sequential


def export(model: Sequential, filepath: Any, input_signature: Any) -> str:
    """Writes a built model, atomically, and returns the path; `Sequential.export` says the rest."""
    path = os.fspath(filepath)
    if not isinstance(path, str):
        raise TypeError(f"`filepath`: expected a string, got {type(path).__name__}")
    if "\0" in path:
        raise ValueError(f"`filepath`: expected a path without null characters, got {path!r}")
    network = model._existing_network()
    if network is None:
        raise ValueError(f'model "{model.name}" has no weights yet: build it, or call it on data, before exporting')
    shape = _signature(input_signature, network.input_shape)
    chain_shapes(model.layers, shape)  # whether the layers can do with it
    graph = Graph(_engine.__version__)
    values = [graph.input(model.inputs[0].name, network.dtype, _named(shape))]
    for layer in model.layers:
        values = emit(graph, layer, values[0])
    name = str(model.layers[-1].name)
    for i, value in enumerate(values):
        graph.output(value, name if len(values) == 1 else f"{name}_{i}")
    _engine.write_file(os.fsencode(path), graph.serialize(str(model.name)))
    return path


def _signature(given: Any, shape: Shape) -> Shape:
    """The model's input shape, some axes opened or fixed by `input_signature`."""
    if given is None:
        return shape
    if isinstance(given, (list, tuple)) and len(given) == 1 and not isinstance(given[0], (int, type(None))):
        given = given[0]  # Keras's list of all inputs
    asked = given.declared_shape() if isinstance(given, InputLayer) else getattr(given, "shape", given)
    asked = sizes(asked, "`input_signature`")
    if len(asked) != len(shape) or any(a != b and None not in (a, b) for a, b in zip(asked, shape, strict=True)):
        raise ValueError(
            f"`input_signature`: expected the model's input shape {shape}, batch in front, in which sizes may be None "
            f"and None may be a size; got {asked}"
        )
    return asked


def _named(shape: Shape) -> tuple[int | str | None, ...]:
    return tuple(("batch", "time")[i] if n is None and i < 2 else f"axis_{i}" if n is None else n
                 for i, n in enumerate(shape))  # fmt: skip
