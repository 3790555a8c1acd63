"""Layers that hold layers: Bidirectional, TimeDistributed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import _engine
from .._config import anything, arg, one_of, sizes
from .._network import Shape
from .._variable import Variable
from ._base import Layer, registry
from ._recurrent import RecurrentLayer, state_shapes


def _layer(value: Any, where: str) -> Layer:
    if isinstance(value, Mapping):
        return registry.deserialize(value)
    if not isinstance(value, Layer):
        raise ValueError(f"{where}: expected a layer, got {value!r}")
    return value


class TimeDistributed(Layer):
    """Applies a layer to every step.

    Args:
        layer: the layer.

    Example:
        >>> import numpy as np
        >>> from seqcore import layers
        >>> layers.TimeDistributed(layers.Dense(3))(np.zeros((2, 10, 8))).shape
        (2, 10, 3)
    """

    layer: Layer = arg(_layer)

    @property
    def _input_dtype(self) -> str:  # type: ignore[override]
        return self.layer._input_dtype

    def join(self, make: Callable[[], Any] | None) -> None:
        super().join(make)
        self.layer.join(make)

    @property
    def bound(self) -> bool:
        return self.layer.bound

    @property
    def variables(self) -> list[Variable]:
        return self.layer.variables

    @property
    def trained(self) -> list[bool]:
        return [self.trainable and trained for trained in self.layer.trained]

    @property
    def inference_only(self) -> bool:  # type: ignore[override]
        return self.layer.inference_only

    def as_at_inference(self, change: bool = True) -> bool:
        return self.layer.as_at_inference(change)

    def bind(self, core: _engine.CoreModel, indices: Sequence[int], input_shape: Shape) -> None:
        self.layer.bind(core, indices, (input_shape[0], *input_shape[2:]))
        if self._initial_weights is not None:
            self.set_weights(self._initial_weights)

    def output_shape_for(self, input_shape: Shape) -> Shape:
        if len(input_shape) < 2 or (len(input_shape) < 3 and self._input_dtype != "int32"):
            raise ValueError(
                f'input 0 of layer "{self.name}": expected at least 3 axes (batch, steps, …), got shape {input_shape}'
            )
        inner = self.layer.output_shape_for((input_shape[0], *input_shape[2:]))
        return (inner[0], input_shape[1], *inner[1:])


class Bidirectional(Layer):
    """Runs a recurrent layer forwards and a copy of it backwards in time, and merges what they give.

    Args:
        layer: SimpleRNN, LSTM, GRU or RNN.
        merge_mode: "concat", "sum", "mul", "ave", or None for a list of both outputs.
        weights: arrays to begin with.
        backward_layer: another layer for the way back, with the opposite `go_backwards`.

    Call arguments:
        initial_state: forward states, then backward ones.

    Example:
        >>> import numpy as np
        >>> from seqcore import layers
        >>> layers.Bidirectional(layers.LSTM(4))(np.zeros((2, 10, 8))).shape
        (2, 8)
    """

    layer: Layer = arg(_layer)
    merge_mode: str | None = arg(one_of("concat", "sum", "mul", "ave", None), default="concat")
    weights: Any = arg(anything, default=None, in_config=False, attribute="_initial_weights")
    backward_layer: Layer | None = arg(lambda v, where: None if v is None else _layer(v, where), default=None)

    _input_rank = 3

    def _setup(self) -> None:
        forward = self.layer
        if not isinstance(forward, RecurrentLayer):
            raise ValueError(f"`layer` of Bidirectional: expected SimpleRNN, LSTM, GRU or RNN, got {forward!r}")
        for name in ("input_shape", "batch_input_shape", "batch_shape", "batch_size", "input_dim", "input_length"):
            if getattr(self, name) is None:
                setattr(self, name, getattr(forward, name))
        super()._setup()
        # The layer given is a pattern, as in Keras: both directions are made from its config, with their own names.
        base = str(forward.name).removeprefix("forward_")
        back = self.backward_layer
        config = forward.get_config()
        if back is None:
            back = type(forward).from_config({**config, "name": f"backward_{base}", "go_backwards": True})
            back.take_initializers(forward)
        elif not isinstance(back, RecurrentLayer):
            raise ValueError(f"`backward_layer` of Bidirectional: expected SimpleRNN, LSTM, GRU or RNN, got {back!r}")
        for key in ("return_sequences", "return_state", "stateful"):
            if getattr(forward, key) != getattr(back, key):
                raise ValueError(
                    f"`backward_layer` of Bidirectional: expected {key}={getattr(forward, key)} as the forward layer "
                    f"has, got {getattr(back, key)}"
                )
        if forward.go_backwards == back.go_backwards:
            raise ValueError(
                "`backward_layer` of Bidirectional: expected the opposite `go_backwards` of the forward layer"
            )
        self.forward_layer: RecurrentLayer = type(forward).from_config({**config, "name": f"forward_{base}"})
        self.forward_layer.take_initializers(forward)
        self.backward_layer = self._backward = back
        self.layer = self.forward_layer

    @property
    def several_outputs(self) -> bool:  # type: ignore[override]
        return self.merge_mode is None or self.forward_layer.return_state

    @property
    def stateful(self) -> bool:  # type: ignore[override]
        return self.forward_layer.stateful

    @property
    def return_sequences(self) -> bool:
        return self.forward_layer.return_sequences

    @property
    def return_state(self) -> bool:
        return self.forward_layer.return_state

    @property
    def state_size(self) -> list[Any]:
        """Sizes of the states, forward ones first."""
        return [*self.forward_layer.state_size, *self._backward.state_size]

    def flat_states(self, given: Any) -> list[Any]:
        """States as they are given, in one row."""
        if not isinstance(given, (list, tuple)):
            return [given]
        n = len(self.forward_layer.state_size)
        return [*self.forward_layer.flat_states(given[:n]), *self._backward.flat_states(given[n:])]

    def _nested(self, outputs: list[Any]) -> list[Any]:
        if not self.return_state:
            return outputs
        first = 1 if self.merge_mode is not None else 2
        states = iter(outputs[first:])
        return [*outputs[:first], *self.forward_layer.nest_states(states), *self._backward.nest_states(states)]

    def join(self, make: Callable[[], Any] | None) -> None:
        super().join(make)
        self.forward_layer.join(make)
        self._backward.join(make)

    @property
    def bound(self) -> bool:
        return self.forward_layer.bound

    @property
    def variables(self) -> list[Variable]:
        return [*self.forward_layer.variables, *self._backward.variables]

    @property
    def trained(self) -> list[bool]:
        return [self.trainable and trained for trained in (*self.forward_layer.trained, *self._backward.trained)]

    def as_at_inference(self, change: bool = True) -> bool:
        return self.forward_layer.as_at_inference(change) and self._backward.as_at_inference(change)

    def bind(self, core: _engine.CoreModel, indices: Sequence[int], input_shape: Shape) -> None:
        forward = [i for i in indices if "forward_layer/" in core.weights[i].name]
        self.forward_layer.bind(core, forward, input_shape)
        self._backward.bind(core, indices[len(forward) :], input_shape)
        if self._initial_weights is not None:
            self.set_weights(self._initial_weights)

    def output_shape_for(self, input_shape: Shape) -> Shape:
        forward = self.forward_layer.output_shape_for(input_shape)
        backward = self._backward.output_shape_for(input_shape)
        if self.merge_mode == "concat":
            return (*forward[:-1], self.forward_layer.output_size + self._backward.output_size)
        if forward != backward and self.merge_mode is not None:
            raise ValueError(
                f'layer "{self.name}": merge_mode={self.merge_mode!r} expects outputs of one shape, got {forward} and '
                f"{backward}"
            )
        return forward

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Any:
        shape = sizes(input_shape, "`input_shape`")
        out = self.output_shape_for(shape)
        outputs = [out] if self.merge_mode is not None else [out, self._backward.output_shape_for(shape)]
        if self.return_state:
            return [*outputs, *state_shapes(self.state_size, out[0])]
        return outputs[0] if len(outputs) == 1 else outputs
