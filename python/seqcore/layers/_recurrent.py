"""SimpleRNN, LSTM and GRU: one set of arguments, three cells. What they share with RNN and with cells is here too."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from .. import _engine, activations, constraints, initializers, regularizers
from .._config import arg, boolean, fraction, positive_int, seed_or_none, sizes
from .._network import Network, Shape
from ..initializers import Initializer
from ._base import Layer, flat
from ._core_layers import ActivationLike, ConstraintLike, InitializerLike, RegularizerLike


class Cell(Layer):
    """A cell by its equations: what SimpleRNN, LSTM and GRU share with the cells of their names."""

    units: int = arg(positive_int)
    activation: ActivationLike = arg(activations.convert, default="tanh")

    _ignored = Layer._ignored | {"implementation", "use_cudnn"}
    _states: ClassVar[int] = 1


class GatedCell(Cell):
    """One with gates: all but SimpleRNN."""

    recurrent_activation: ActivationLike = arg(activations.convert, default="sigmoid")


class ForgettingCell(GatedCell):
    """LSTM."""

    unit_forget_bias: bool = arg(boolean, default=True, after="bias_initializer")

    _states = 2

    def _initial(self, name: str, initializer: Initializer, shape: tuple[int, ...]) -> _engine.Float:
        if name != "bias_initializer" or not self.unit_forget_bias:
            return super()._initial(name, initializer, shape)
        n = self.units  # as Keras asks for it: the input gate's, then the last two's
        first, last = (super(ForgettingCell, self)._initial(name, initializer, (k * n,)) for k in (1, 2))
        return np.concatenate([first, np.ones(n, np.float32), last])


class WeightedCell(Cell):
    """The weights, and dropout: arguments that come after those of the equations."""

    use_bias: bool = arg(boolean, default=True)
    kernel_initializer: InitializerLike = arg(initializers.convert, default="glorot_uniform")
    recurrent_initializer: InitializerLike = arg(initializers.convert, default="orthogonal")
    bias_initializer: InitializerLike = arg(initializers.convert, default="zeros")
    kernel_regularizer: RegularizerLike = arg(regularizers.convert, default=None)
    recurrent_regularizer: RegularizerLike = arg(regularizers.convert, default=None)
    bias_regularizer: RegularizerLike = arg(regularizers.convert, default=None)
    kernel_constraint: ConstraintLike = arg(constraints.convert, default=None)
    recurrent_constraint: ConstraintLike = arg(constraints.convert, default=None)
    bias_constraint: ConstraintLike = arg(constraints.convert, default=None)
    dropout: float = arg(fraction, default=0.0)
    recurrent_dropout: float = arg(fraction, default=0.0)
    seed: int | None = arg(seed_or_none, default=None)

    def as_at_inference(self, change: bool = True) -> bool:
        if self.dropout or self.recurrent_dropout:
            raise ValueError(
                f'layer "{self.name}": `training=False`: it drops in training, dropout={self.dropout} and '
                f"recurrent_dropout={self.recurrent_dropout}: set both to 0 before the call"
            )
        return True


class RecurrentLayer(Layer):
    """What all recurrent layers do with time, whatever their cells."""

    return_sequences: bool = arg(boolean, default=False)
    return_state: bool = arg(boolean, default=False)
    go_backwards: bool = arg(boolean, default=False)
    stateful: bool = arg(boolean, default=False)
    unroll: bool = arg(boolean, default=False)
    zero_output_for_mask: bool = arg(boolean, default=False, kw_only=True)

    _off = Layer._off | {"time_major"}
    _input_rank = 3

    @property
    @abstractmethod
    def output_size(self) -> int:
        """The number of features of the output."""

    @abstractmethod
    def nest_states(self, states: Iterator[Any]) -> list[Any]:
        """States that come in one row, as the layer gives them."""

    def get_initial_state(self, batch_size: int) -> list[Any]:
        """The states that the layer starts from where no others are given: zeros of shape (batch_size, units)."""
        batch = _engine.check_count(batch_size, "batch_size")
        return self.nest_states(np.zeros((batch, n), np.float32) for n in flat(self.state_size))

    def _network(self, shape: Shape) -> Network:
        # For any number of steps: states and draws of dropout go on where calls differ in that.
        return super()._network((shape[0], None, *shape[2:]) if len(shape) == 3 else shape)

    @property
    def several_outputs(self) -> bool:  # type: ignore[override]
        return self.return_state

    def _nested(self, outputs: list[Any]) -> list[Any]:
        return [outputs[0], *self.nest_states(iter(outputs[1:]))]

    @property
    def states(self) -> list[Any]:
        """The states of a stateful layer, as its model has them now; [] before the first call."""
        now = self._networks[-1][0].get_states(self._networks[-1][1]) if self._networks else []
        return self.nest_states(iter(now)) if now else []

    def output_shape_for(self, input_shape: Shape) -> Shape:
        self._check_rank(input_shape, 3, "(batch, steps, features)")
        self._features(input_shape)
        return (*input_shape[:-1], self.output_size) if self.return_sequences else (input_shape[0], self.output_size)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Any:
        out = self.output_shape_for(sizes(input_shape, "`input_shape`"))
        return [out, *state_shapes(self.state_size, out[0])] if self.return_state else out


def state_shapes(state_size: Any, batch: int | None) -> Any:
    """The shapes of states, nested as their sizes are."""
    return [state_shapes(n, batch) for n in state_size] if isinstance(state_size, list) else (batch, state_size)


class Recurrent(RecurrentLayer, WeightedCell):
    """What all recurrent layers share.

    Args:
        units: size of the output and of each state.
        activation: φ of the equation.
        recurrent_activation: σ of the gates (LSTM, GRU).
        use_bias: whether there is a bias.
        kernel_initializer, recurrent_initializer, bias_initializer: how the weights begin.
        kernel_regularizer, recurrent_regularizer, bias_regularizer, activity_regularizer: penalties.
        kernel_constraint, recurrent_constraint, bias_constraint: projections after each update.
        dropout: share of the inputs dropped in training, the same at every step.
        recurrent_dropout: share of the state dropped in training, the same at every step.
        seed: an integer, for dropout draws of its own.
        return_sequences: whether the outputs of all steps are given, or only the last.
        return_state: whether the last states are given too (last layer only).
        go_backwards: whether time runs backwards; outputs come in the order computed.
        stateful: whether the states of a batch begin the next; needs a fixed batch size.
        unroll: accepted; the loop over time is compiled either way.
        zero_output_for_mask: whether outputs at masked steps are zero, not the last output again.

    Call arguments:
        x: (batch, steps, features).
        mask: booleans (batch, steps); a masked step leaves the states as they are.
        training: whether dropout is active.
        initial_state: an array (batch, units), or a list of them, to start from.
    """

    activity_regularizer: RegularizerLike = arg(regularizers.convert, default=None, after="bias_regularizer")

    @property
    def cell(self) -> Recurrent:
        """The layer itself: it has what Keras's cell has (`units`, `kernel`, …)."""
        return self

    @property
    def output_size(self) -> int:
        """The number of features of the output."""
        return self.units

    @property
    def state_size(self) -> list[int]:
        """Sizes of the states."""
        return [self.units] * self._states

    def nest_states(self, states: Iterator[Any]) -> list[Any]:
        return [next(states) for _ in range(self._states)]


def _arguments(own: str = "") -> str:
    """The arguments that all recurrent layers share as their docstrings have them, with one more of a layer's own."""
    shared = (Recurrent.__doc__ or "").partition("share.")[2]
    return shared.replace("\n\n    Call", f"\n        {own}\n\n    Call") if own else shared


class SimpleRNN(Recurrent):
    __doc__ = f"""h_t = φ(W x_t + U h_{{t-1}} + b): a fully connected recurrent layer.
{_arguments()}
    Example:
        >>> import numpy as np
        >>> from seqcore import layers
        >>> layers.SimpleRNN(4)(np.zeros((2, 10, 8))).shape
        (2, 4)
    """

    seed: int | None = arg(seed_or_none, default=None)  # Keras has it last, here alone


class LSTM(Recurrent, ForgettingCell):
    __doc__ = f"""Long short-term memory (Hochreiter and Schmidhuber, 1997).

    i, f, o = σ(W x_t + U h_{{t-1}} + b), g = φ(…); c_t = f c_{{t-1}} + i g; h_t = o φ(c_t). Gates lie in memory as
    i, f, c, o.
{_arguments("unit_forget_bias: whether the forget gate's bias begins at one, whatever `bias_initializer` says.")}
    Example:
        >>> import numpy as np
        >>> from seqcore import layers
        >>> output, h, c = layers.LSTM(4, return_sequences=True, return_state=True)(np.zeros((2, 10, 8)))
        >>> output.shape, h.shape, c.shape
        ((2, 10, 4), (2, 4), (2, 4))
    """


class GRU(Recurrent, GatedCell):
    __doc__ = f"""Gated recurrent unit (Cho et al., 2014).

    z, r = σ(…); h_t = z h_{{t-1}} + (1 - z) g. With `reset_after` g = φ(W x_t + b + r (U h_{{t-1}} + b')), without it
    g = φ(W x_t + U (r h_{{t-1}}) + b). Gates lie in memory as z, r, h.
{_arguments("reset_after: which of the two; with it there are two biases.")}
    Example:
        >>> import numpy as np
        >>> from seqcore import layers
        >>> layers.GRU(4)(np.zeros((2, 10, 8))).shape
        (2, 4)
    """

    reset_after: bool = arg(boolean, default=True)
