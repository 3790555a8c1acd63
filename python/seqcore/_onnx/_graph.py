"""An ONNX graph in the making: nodes, constants and names. Private to `_onnx`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from .. import _engine

# The first opset that has all nodes made here (LayerNormalization), and the first format that may hold it.
OPSET, FORMAT = 17, 8
LARGEST_FILE = 2**31 - 1  # bytes, of any protobuf message

Dims = tuple["int | str | None", ...]


class Value(NamedTuple):
    """What a node gives: its name, its shape (a size, the name of a size, or None), and the name of the mask that
    comes with it: booleans of shape (batch, steps)."""

    name: str
    shape: Dims
    mask: str | None = None


def onnx_module() -> Any:
    try:
        return importlib.import_module("onnx")
    except ImportError as error:
        raise ImportError(
            "ONNX files are written by onnx, which is not installed: pip install 'seqcore[onnx]'"
        ) from error


class Graph:
    """Collects nodes in order. `op` and `constant` give names of values, unique and led by the layer's."""

    def __init__(self, version: str) -> None:
        self._onnx, self._version = onnx_module(), version
        self._nodes: list[Any] = []
        self._constants: dict[str, _engine.Array] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._last_outputs: list[Any] = []
        self._taken: set[str] = set()
        self._scope = ""
        self.memory: dict[Any, Any] = {}  # what was made once for all who ask

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names begin with `name/` inside."""
        outer, self._scope = self._scope, f"{self._scope}{name}/"
        try:
            yield
        finally:
            self._scope = outer

    def _unique(self, name: str) -> str:
        tried, n = name, 0
        while tried in self._taken:
            n += 1
            tried = f"{name}_{n}"
        self._taken.add(tried)
        return tried

    def input(self, name: str, dtype: str, shape: Dims) -> Value:
        name = self._unique(name)
        kind = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self._inputs.append(self._onnx.helper.make_tensor_value_info(name, kind, shape))
        return Value(name, shape)

    def output(self, value: Value, name: str, last: bool = False) -> None:
        """Makes `value` an output of the graph; `last`: behind all that are not."""
        name = self._unique(name)
        self._nodes.append(self._onnx.helper.make_node("Identity", [value.name], [name], name))
        (self._last_outputs if last else self._outputs).append(
            self._onnx.helper.make_tensor_value_info(name, self._onnx.TensorProto.FLOAT, value.shape)
        )

    def constant(self, value: Any, name: str) -> str:
        """A constant; floats are float32."""
        array = np.asarray(value)
        name = self._unique(self._scope + name)
        self._constants[name] = array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array
        return name

    def ops(self, kind: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        """A node; the names of its outputs. An input "" is left out."""
        name = self._unique(self._scope + kind)
        made = [name, *(self._unique(f"{name}_{i}") for i in range(1, outputs))]
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, made, name, **attributes))
        return made

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node of one output; its name."""
        return self.ops(kind, inputs, 1, **attributes)[0]

    def serialize(self, name: str) -> bytes:
        """The file. Nodes and constants that nothing needs are left out: masks that no layer looks at."""
        outputs = [*self._outputs, *self._last_outputs]
        needed, nodes = {o.name for o in outputs}, []
        for node in reversed(self._nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                nodes.append(node)
        kept = {n: a for n, a in self._constants.items() if n in needed}
        size = sum(a.nbytes for a in kept.values())
        # The rest of the file is a fraction of a thousandth of the largest.
        if size > LARGEST_FILE * 0.999:
            raise ValueError(
                f"the model's weights take {size:,} bytes: an ONNX file is a protobuf message, which holds less than "
                f"{LARGEST_FILE:,}"
            )
        helper = self._onnx.helper
        graph = helper.make_graph(
            nodes[::-1], name, self._inputs, outputs,
            [self._onnx.numpy_helper.from_array(a, n) for n, a in kept.items()],
        )  # fmt: skip
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=FORMAT, producer_name="seqcore",
            producer_version=self._version,
        )  # fmt: skip
        content: bytes = model.SerializeToString()
        return content
