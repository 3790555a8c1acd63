"""SimpleRNN, LSTM and GRU: one set of arguments, three cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from .. import _engine, activations, constraints, initializers, regularizers
from .._config import arg, boolean, fraction, positive_int, seed_or_none, sizes
from .._network import Shape
from ..initializers import Initializer
from ._base import Layer
from ._core_layers import ActivationLike, ConstraintLike, InitializerLike, RegularizerLike


class _Cell(Layer):
    units: int = arg(positive_int)
    activation: ActivationLike = arg(activations.convert, default="tanh")


class _GatedCell(_Cell):
    recurrent_activation: ActivationLike = arg(activations.convert, default="sigmoid")


class Recurrent(_Cell):
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
        return_sequences: whether the outputs of all steps are given, or only the last.
        return_state: whether the last states are given too (last layer only).
        go_backwards: whether time runs backwards; outputs come in the order computed.
        stateful: whether the states of a batch begin the next; needs a fixed batch size.
        unroll: accepted; the loop over time is compiled either way.
        zero_output_for_mask: whether outputs at masked steps are zero, not the last output again.
        seed: an integer, for dropout draws of its own.

    Call arguments:
        x: (batch, steps, features).
        mask: booleans (batch, steps); a masked step leaves the states as they are.
        training: whether dropout is active.
        initial_state: an array (batch, units), or a list of them, to start from.
    """

    use_bias: bool = arg(boolean, default=True)
    kernel_initializer: InitializerLike = arg(initializers.convert, default="glorot_uniform")
    recurrent_initializer: InitializerLike = arg(initializers.convert, default="orthogonal")
    bias_initializer: InitializerLike = arg(initializers.convert, default="zeros")
    kernel_regularizer: RegularizerLike = arg(regularizers.convert, default=None)
    recurrent_regularizer: RegularizerLike = arg(regularizers.convert, default=None)
    bias_regularizer: RegularizerLike = arg(regularizers.convert, default=None)
    activity_regularizer: RegularizerLike = arg(regularizers.convert, default=None)
    kernel_constraint: ConstraintLike = arg(constraints.convert, default=None)
    recurrent_constraint: ConstraintLike = arg(constraints.convert, default=None)
    bias_constraint: ConstraintLike = arg(constraints.convert, default=None)
    dropout: float = arg(fraction, default=0.0)
    recurrent_dropout: float = arg(fraction, default=0.0)
    return_sequences: bool = arg(boolean, default=False)
    return_state: bool = arg(boolean, default=False)
    go_backwards: bool = arg(boolean, default=False)
    stateful: bool = arg(boolean, default=False)
    unroll: bool = arg(boolean, default=False)
    seed: int | None = arg(seed_or_none, default=None)
    zero_output_for_mask: bool = arg(boolean, default=False, kw_only=True)

    _ignored = Layer._ignored | {"implementation", "use_cudnn"}
    _off = Layer._off | {"time_major"}
    _input_rank = 3
    _states: ClassVar[int] = 1

    @property
    def cell(self) -> Recurrent:
        """The layer itself: it has what Keras's cell has (`units`, `kernel`, …)."""
        return self

    @property
    def several_outputs(self) -> bool:  # type: ignore[override]
        return self.return_state

    @property
    def state_size(self) -> list[int]:
        """Sizes of the states."""
        return [self.units] * self._states

    @property
    def states(self) -> list[Any]:
        """The states of a stateful layer, as its model has them now; [] before the first call."""
        return self._networks[-1][0].get_states(self._networks[-1][1]) if self._networks else []

    def output_shape_for(self, input_shape: Shape) -> Shape:
        self._check_rank(input_shape, 3, "(batch, steps, features)")
        self._features(input_shape)
        return (*input_shape[:-1], self.units) if self.return_sequences else (input_shape[0], self.units)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Any:
        out = self.output_shape_for(sizes(input_shape, "`input_shape`"))
        return [out, *((out[0], n) for n in self.state_size)] if self.return_state else out


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


class LSTM(Recurrent, _GatedCell):
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

    unit_forget_bias: bool = arg(boolean, default=True)
    _states = 2

    def _initial(self, name: str, initializer: Initializer, shape: tuple[int, ...]) -> _engine.Float:
        if name != "bias_initializer" or not self.unit_forget_bias:
            return super()._initial(name, initializer, shape)
        n = self.units  # as Keras asks for it: the input gate's, then the last two's
        first, last = (super(LSTM, self)._initial(name, initializer, (k * n,)) for k in (1, 2))
        return np.concatenate([first, np.ones(n, np.float32), last])


class GRU(Recurrent, _GatedCell):
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
