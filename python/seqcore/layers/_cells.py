"""Cells, which make one step of time, and RNN, the layer that runs them over all steps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from .. import _engine, regularizers
from .._config import arg, boolean
from .._network import Network, Shape
from .._variable import Variable
from ._base import Layer, registry
from ._core_layers import RegularizerLike
from ._recurrent import ForgettingCell, GatedCell, Recurrent, RecurrentLayer, WeightedCell


class RunnableCell(Layer):
    """What RNN runs: a cell, or several in a stack."""

    def _setup(self) -> None:
        super()._setup()
        self._layer: RNN | None = None  # for calls on arrays
        self._drawn = 0  # how often dropout drew masks for them

    @property
    @abstractmethod
    def output_size(self) -> int:
        """The number of features of the output."""

    @property
    @abstractmethod
    def weight_count(self) -> int:
        """The number of weights that there will be."""

    @abstractmethod
    def nest_states(self, states: Iterator[Any], like: Any = None) -> Any:
        """States that come in one row, nested as the cell gives them; a lone one bare where it is in `like`."""

    @abstractmethod
    def get_initial_state(self, batch_size: int) -> list[Any]:
        """The states that a sequence begins with: zeros of shape (batch_size, units)."""

    def output_shape_for(self, input_shape: Shape) -> Shape:
        raise ValueError(
            f'layer "{self.name}": expected a layer, got a cell, {type(self).__name__}, which makes one step of time: '
            f"RNN(cell) is a layer"
        )

    def _network(self, shape: Shape) -> Network:
        self._check_rank(shape, 2, "(batch, features)")
        if self._layer is None:
            self._layer = RNN(self, return_state=True, name=self.name)
        return self._layer._network((None, None, self._features(shape)))

    def __call__(self, x: Any, states: Any, training: bool = False) -> tuple[Any, Any]:  # type: ignore[override]
        rows = _engine.to_float(x, "x")
        network = self._network(rows.shape)
        ready = self._check_states(states, len(rows), "states")
        network.pull()
        if training:
            network.core.rng_counter = self._drawn
        (y, *new), _ = network.core.forward(rows[:, np.newaxis], bool(training), None, ready)
        return y, self.nest_states(iter(new), states)

    def call(self, x: Any, states: Any, training: bool = False) -> tuple[Any, Any]:  # type: ignore[override]
        """As calling the cell itself."""
        return self(x, states, training)

    def reset_dropout_mask(self) -> None:
        """Lets dropout draw other masks, in calls of the cell itself with training=True, which keep theirs."""
        self._drawn += 1

    def reset_recurrent_dropout_mask(self) -> None:
        """As `reset_dropout_mask`."""
        self.reset_dropout_mask()


def _cell_arguments(own: str = "") -> str:
    """What the docstrings of cells have in common: the arguments of layers as far as cells have them."""
    layer = (Recurrent.__doc__ or "").partition("share.")[2]
    shared = layer.partition("        return_sequences")[0].replace(", activity_regularizer", "")
    return f"""{shared}{own and f"        {own}"}
    Call arguments:
        x: (batch, features).
        states: those before the step, a list of arrays (batch, units).
        training: whether dropout is active.

    Returns:
        The output, (batch, units), and a list of the states after the step.
"""


class _OneCell(RunnableCell, WeightedCell):
    """A cell of the core's own."""

    @property
    def output_size(self) -> int:
        """The number of features of the output."""
        return self.units

    @property
    def state_size(self) -> int | list[int]:
        """The state's size; a list where there are two."""
        return self.units if self._states == 1 else [self.units] * self._states

    @property
    def weight_count(self) -> int:
        return 3 if self.use_bias else 2

    def nest_states(self, states: Iterator[Any], like: Any = None) -> Any:
        new = list(islice(states, self._states))
        return new if like is None or isinstance(like, (list, tuple)) else new[0]

    def get_initial_state(self, batch_size: int) -> list[Any]:
        batch = _engine.check_count(batch_size, "batch_size")
        return [np.zeros((batch, self.units), np.float32) for _ in range(self._states)]


class SimpleRNNCell(_OneCell):
    __doc__ = f"""One step of SimpleRNN, for RNN.
{_cell_arguments()}
    Example:
        >>> import numpy as np
        >>> from seqcore import layers
        >>> layers.RNN(layers.SimpleRNNCell(4))(np.zeros((2, 10, 8))).shape
        (2, 4)
    """


class LSTMCell(_OneCell, ForgettingCell):
    __doc__ = f"""One step of LSTM, for RNN. Its states are h and c.
{_cell_arguments("unit_forget_bias: whether the forget gate's bias begins at one, whatever `bias_initializer` says.")}
    Example:
        >>> import numpy as np
        >>> from seqcore import layers
        >>> cell = layers.LSTMCell(4)
        >>> output, (h, c) = cell(np.zeros((2, 8)), cell.get_initial_state(2))
        >>> output.shape, h.shape, c.shape
        ((2, 4), (2, 4), (2, 4))
    """


class GRUCell(_OneCell, GatedCell):
    __doc__ = f"""One step of GRU, for RNN.
{_cell_arguments("reset_after: which of the two equations of GRU; with it there are two biases.")}
    Example:
        >>> import numpy as np
        >>> from seqcore import layers
        >>> layers.RNN(layers.GRUCell(4))(np.zeros((2, 10, 8))).shape
        (2, 4)
    """

    reset_after: bool = arg(boolean, default=True, after="recurrent_dropout")


def _one_cell(value: Any, where: str) -> RunnableCell:
    if isinstance(value, Mapping):
        value = registry.deserialize(value)
    if type(value) not in (SimpleRNNCell, LSTMCell, GRUCell, StackedRNNCells):
        why = ""
        if hasattr(value, "call") and getattr(value, "state_size", None):
            why = (". A cell of one's own cannot be run: there is no automatic differentiation here, the compiled core "
                   "knows the gradients of its own cells alone")  # fmt: skip
        raise ValueError(
            f"{where}: expected SimpleRNNCell, LSTMCell, GRUCell, StackedRNNCells or a list of such cells, got "
            f"{value!r}{why}"
        )
    return value  # type: ignore[no-any-return]


def _cells(value: Any, where: str) -> list[RunnableCell]:
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"{where}: expected a list of cells, got {value!r}")
    cells = [_one_cell(cell, where) for cell in value]
    if len({id(cell) for cell in cells}) < len(cells):
        raise ValueError(f"{where}: expected cells of their own, got one twice")
    return cells


def _cell(value: Any, where: str) -> RunnableCell:
    return StackedRNNCells(_cells(value, where)) if isinstance(value, (list, tuple)) else _one_cell(value, where)


class StackedRNNCells(RunnableCell):
    """Cells on top of each other as one: each reads the output of the one below it.

    Args:
        cells: a list of cells, the lowest first.

    Call arguments:
        x: (batch, features).
        states: a list of each cell's states before the step.
        training: whether dropout is active.

    Returns:
        The highest cell's output, (batch, units), and a list of each cell's states after the step (of a single cell:
        its states).

    Example:
        >>> import numpy as np
        >>> from seqcore import layers
        >>> cells = layers.StackedRNNCells([layers.LSTMCell(4), layers.GRUCell(3)])
        >>> layers.RNN(cells)(np.zeros((2, 10, 8))).shape
        (2, 3)
    """

    cells: list[RunnableCell] = arg(_cells)

    @property
    def output_size(self) -> int:
        """The number of features of the output."""
        return self.cells[-1].output_size

    @property
    def state_size(self) -> list[Any]:
        """Each cell's `state_size`."""
        return [cell.state_size for cell in self.cells]

    @property
    def weight_count(self) -> int:
        return sum(cell.weight_count for cell in self.cells)

    def flat_states(self, given: Any) -> list[Any]:
        if len(self.cells) == 1 and (not isinstance(given, (list, tuple)) or len(given) != 1):
            given = [given]  # as calls of the stack give them
        if not isinstance(given, (list, tuple)) or len(given) != len(self.cells):
            got = f"{len(given)} entries" if isinstance(given, (list, tuple)) else type(given).__name__
            raise ValueError(
                f'the states of "{self.name}": expected a list of {len(self.cells)}, the states of each cell, got {got}'
            )
        return [one for cell, states in zip(self.cells, given, strict=True) for one in cell.flat_states(states)]

    def nest_states(self, states: Iterator[Any], like: Any = None) -> Any:
        if like is None:
            return [cell.nest_states(states) for cell in self.cells]
        if len(self.cells) == 1:  # as Keras's: without the list around them
            return self.cells[0].nest_states(states)
        return [cell.nest_states(states, its) for cell, its in zip(self.cells, like, strict=True)]

    def get_initial_state(self, batch_size: int) -> list[Any]:
        return [cell.get_initial_state(batch_size) for cell in self.cells]

    def _inside(self) -> list[Layer]:
        return [*super()._inside(), *(inner for cell in self.cells for inner in cell._inside())]

    def join(self, make: Callable[[], Any] | None) -> None:
        super().join(make)
        for cell in self.cells:
            cell.join(make)

    @property
    def bound(self) -> bool:
        return all(cell.bound for cell in self.cells)

    @property
    def variables(self) -> list[Variable]:
        self._ask()
        return [v for cell in self.cells for v in cell.variables]

    @property
    def trained(self) -> list[bool]:
        return [self.trainable and trained for cell in self.cells for trained in cell.trained]

    def as_at_inference(self, change: bool = True) -> bool:
        return all([cell.as_at_inference(change) for cell in self.cells])

    def bind(self, core: _engine.CoreModel, indices: Sequence[int], input_shape: Shape) -> None:
        rest = iter(indices)
        for cell in self.cells:
            mine = list(islice(rest, cell.weight_count))
            if not cell.bound:
                cell.bind(core, mine, input_shape)
        if self._initial_weights is not None:
            self.set_weights(self._initial_weights)


class _OfCell(Layer):
    cell: RunnableCell = arg(_cell)


class RNN(RecurrentLayer, _OfCell):
    """Runs a cell, or cells on top of each other, over time. RNN(LSTMCell(4)) is LSTM(4), and likewise the others.

    Args:
        cell: SimpleRNNCell, LSTMCell, GRUCell, StackedRNNCells, or a list of cells to stack, the lowest first.
        return_sequences: whether the outputs of all steps are given, or only the last.
        return_state: whether the last states are given too (last layer only); of stacked cells a list for each cell.
        go_backwards: whether time runs backwards; outputs come in the order computed.
        stateful: whether the states of a batch begin the next; needs a fixed batch size.
        unroll: accepted; the loop over time is compiled either way.
        zero_output_for_mask: whether outputs at masked steps are zero, not the last output again.
        activity_regularizer: a penalty on the output.

    Call arguments:
        x: (batch, steps, features).
        mask: booleans (batch, steps); a masked step leaves the states of all cells as they are.
        training: whether dropout is active.
        initial_state: a list of the states to start from, arrays (batch, units); of stacked cells a list of such lists.

    Example:
        >>> import numpy as np
        >>> from seqcore import layers
        >>> layer = layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], return_state=True)
        >>> output, (h0, c0), (h1,) = layer(np.zeros((2, 10, 8)))
        >>> output.shape, h0.shape, c0.shape, h1.shape
        ((2, 3), (2, 4), (2, 4), (2, 3))
    """

    zero_output_for_mask: bool = arg(boolean, default=False)
    activity_regularizer: RegularizerLike = arg(regularizers.convert, default=None, kw_only=True)

    @property
    def output_size(self) -> int:
        """The number of features of the output."""
        return self.cell.output_size

    @property
    def state_size(self) -> list[Any]:
        """Sizes of the states; of stacked cells an entry for each cell."""
        size = self.cell.state_size
        return size if isinstance(size, list) else [size]

    def flat_states(self, given: Any) -> list[Any]:
        return self.cell.flat_states(given)

    def nest_states(self, states: Iterator[Any]) -> list[Any]:
        nested: list[Any] = self.cell.nest_states(states)
        return nested

    def get_initial_state(self, batch_size: int) -> list[Any]:
        return self.cell.get_initial_state(batch_size)

    def join(self, make: Callable[[], Any] | None) -> None:
        super().join(make)
        self.cell.join(make)

    @property
    def bound(self) -> bool:
        return self.cell.bound

    @property
    def variables(self) -> list[Variable]:
        self._ask()
        return self.cell.variables

    @property
    def trained(self) -> list[bool]:
        return [self.trainable and trained for trained in self.cell.trained]

    def as_at_inference(self, change: bool = True) -> bool:
        return self.cell.as_at_inference(change)

    def bind(self, core: _engine.CoreModel, indices: Sequence[int], input_shape: Shape) -> None:
        self.cell.bind(core, indices, input_shape)
        if self._initial_weights is not None:
            self.set_weights(self._initial_weights)
