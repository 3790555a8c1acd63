"""A chain of layers bound to one compiled model. Private: used by Layer (a chain of one) and Sequential."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import _engine
from ._config import to_config
from ._variable import Variable

if TYPE_CHECKING:
    from .layers._base import Layer

Shape = tuple[int | None, ...]


def chain_shapes(layers: Sequence[Layer], shape: Shape) -> list[Shape]:
    """The input's shape and each layer's output shape; ValueError names the layer that cannot take its input."""
    shapes = [shape]
    for i, layer in enumerate(layers):
        if layer.several_outputs and i + 1 < len(layers):
            raise ValueError(
                f'layer "{layer.name}" has several outputs (return_state or merge_mode=None): in a Sequential only the '
                f"last layer may"
            )
        shapes.append(layer.output_shape_for(shapes[-1]))
    return shapes


class Network:
    """Owns a core model whose weights are the Variables of `layers`, made here for layers that have none yet."""

    def __init__(self, layers: Sequence[Layer], input_shape: Shape, dtype: str, seed: int) -> None:
        input_shapes = chain_shapes(layers, input_shape)[:-1]
        self.input_shape, self.dtype = input_shape, dtype
        self.core = _engine.core_model(
            {
                "input": {"shape": list(input_shape), "dtype": dtype},
                "layers": to_config(layers),
            },
            seed,
        )
        self.layers = list(layers)
        self.output_shapes = [tuple(s) for s in self.core.output_shapes]
        self.variables: list[Variable] = []
        places: list[list[int]] = [[] for _ in layers]
        for index, weight in enumerate(self.core.weights):
            places[weight.layer].append(index)
        self._check_built(places)
        for layer, indices, shape in zip(self.layers, places, input_shapes, strict=True):
            if not layer.bound:
                layer.bind(self.core, indices, shape)
            layer.set_network(self.core, self.layers.index(layer))
            self.variables += layer.variables
        if len({id(v) for v in self.variables}) < len(self.variables):
            raise ValueError("expected layers of their own, got one, or a cell or layer inside of one, twice")
        self.claim()

    def _check_built(self, places: list[list[int]]) -> None:
        for layer, indices in zip(self.layers, places, strict=True):
            if not layer.bound:
                continue
            expected = [tuple(self.core.weights[i].shape) for i in indices]
            found = [v.shape for v in layer.variables]
            if expected != found:
                raise ValueError(
                    f'layer "{layer.name}" was built for another input: its weights have shapes {found}, here they '
                    f"would have {expected}"
                )

    def pull(self) -> None:
        """Fetches the weights whose truth is in another model. Free where nothing is shared."""
        core = self.core
        for index, variable in enumerate(self.variables):
            if variable.core is not core:
                core.set_weight(index, variable.numpy())

    def claim(self) -> None:
        """Fetches, then makes this model the home of its weights: what every call that changes them does first."""
        core = self.core
        for index, variable in enumerate(self.variables):
            if variable.core is not core:
                core.set_weight(index, variable.numpy())
                variable.move_to(core, index)

    def forward(self, x: _engine.Array, mask: Any, training: bool, initial_state: Any) -> tuple[list[Any], Any]:
        """The outputs for a batch, and their mask. In training statistics move, but for those of frozen layers."""
        if not training:
            self.pull()
            return self.core.forward(x, False, mask, initial_state)
        self.claim()
        return self.core.forward(x, True, mask, initial_state, [t for layer in self.layers for t in layer.trained])

    def prepare(self, x: Any, name: str = "x") -> _engine.Array:
        """`x` in the dtype and layout that the core takes, its shape checked."""
        where = f'input 0 of layer "{self.layers[0].name}" (`{name}`)'
        if type(x) in (list, tuple) and len(x) == 1 and hasattr(x[0], "ndim") and x[0].ndim == len(self.input_shape):
            x = x[0]  # Keras's [x] for a model of one input
        array = _engine.to_int(x, name, "token ids") if self.dtype == "int32" else _engine.to_float(x, name)
        _engine.check_shape(array, (None, *self.input_shape[1:]), where)
        return array
