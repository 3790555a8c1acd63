"""The layers without time: Input, Dense, Embedding, Masking, Dropout and other noise, ActivityRegularization,
LayerNormalization."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

import numpy as np

from .. import _engine, activations, constraints, initializers, regularizers
from .._config import (
    anything,
    arg,
    boolean,
    dtype_name,
    fraction,
    non_negative,
    number,
    optional,
    positive_int,
    seed_or_none,
    sizes,
)
from .._network import Shape
from .._variable import Variable
from ..activations import Activation as ActivationFunction
from ..constraints import Constraint
from ..initializers import Initializer
from ..regularizers import Regularizer
from ._base import Chain, Layer

# What users may pass; the attribute holds the object it stands for.
ActivationLike = str | ActivationFunction | Callable[..., Any] | None
InitializerLike = str | Initializer | dict[str, Any] | Callable[..., Any] | _engine.Array | None
RegularizerLike = str | Regularizer | dict[str, Any] | None
ConstraintLike = str | Constraint | dict[str, Any] | None


class InputLayer(Layer):
    """States a model's input; not listed in `model.layers`.

    Args:
        shape: shape of one sample, None for any size: `(None, 8)` takes sequences of any length.
        batch_size: a fixed batch size, which stateful layers need.
        dtype: "float32", or an integer type for token ids.
        batch_shape: shape with the batch in front, in place of `shape`.
    """

    _weightless = True

    shape: Any = arg(optional(sizes), default=None, in_config=False, attribute="_sample_shape")
    dtype: str | None = arg(dtype_name, default=None, kw_only=True)
    batch_shape: Sequence[int | None] | None = arg(optional(sizes), default=None, kw_only=True)

    _ignored = Layer._ignored | {"optional"}
    _off = Layer._off | {"sparse", "ragged", "input_tensor", "tensor"}
    supports_masking = False

    def _setup(self) -> None:
        super()._setup()
        given = self.batch_shape if self.batch_shape is not None else self.batch_input_shape
        if given is None:
            one = self._sample_shape if self._sample_shape is not None else self.input_shape
            if one is None:
                raise ValueError("`shape` of Input: expected a shape, got None")
            given = (self.batch_size, *one)
        elif self._sample_shape is not None or self.batch_size is not None:
            raise ValueError("Input: expected `shape` (and `batch_size`) or `batch_shape`, got both")
        # `shape` too has the batch in front once the layer is there: `inputs.shape[1]` are the steps, as in Keras.
        self.shape = self.batch_shape = tuple(given)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "batch_shape": list(self.batch_shape or ()), "dtype": self.dtype}

    def _begin(self) -> Chain:
        return Chain(self, [], tuple(self.batch_shape or ()))


def Input(
    shape: Sequence[int | None] | None = None,
    batch_size: int | None = None,
    dtype: str | None = None,
    batch_shape: Sequence[int | None] | None = None,
    name: str | None = None,
    **kwargs: Any,
) -> InputLayer:
    """States the input of a Sequential: its first entry; or of a `Model`, whose layers are called on it.

    Args:
        shape: shape of one sample, None for any size.
        batch_size: a fixed batch size, which stateful layers need.
        dtype: "float32", or an integer type for token ids.
        batch_shape: shape with the batch in front, in place of `shape`.
        name: a name.

    Example:
        >>> import seqcore
        >>> model = seqcore.Sequential([seqcore.Input((10, 8)), seqcore.layers.LSTM(4)])
        >>> model.output_shape
        (None, 4)
    """
    return InputLayer(shape=shape, batch_size=batch_size, dtype=dtype, batch_shape=batch_shape, name=name, **kwargs)


class Projection(Layer):
    """A kernel, a bias and an activation: what Dense and Conv1D share. These arguments come after their own."""

    activation: ActivationLike = arg(activations.convert, default=None)
    use_bias: bool = arg(boolean, default=True)
    kernel_initializer: InitializerLike = arg(initializers.convert, default="glorot_uniform")
    bias_initializer: InitializerLike = arg(initializers.convert, default="zeros")
    kernel_regularizer: RegularizerLike = arg(regularizers.convert, default=None)
    bias_regularizer: RegularizerLike = arg(regularizers.convert, default=None)
    activity_regularizer: RegularizerLike = arg(regularizers.convert, default=None)
    kernel_constraint: ConstraintLike = arg(constraints.convert, default=None)
    bias_constraint: ConstraintLike = arg(constraints.convert, default=None)


class _OfUnits(Layer):
    units: int = arg(positive_int)


class Dense(Projection, _OfUnits):
    """`activation(x · kernel + bias)` over the last axis of an input of any rank.

    Args:
        units: size of the output's last axis.
        activation: a named activation; None is linear.
        use_bias: whether a bias is added.
        kernel_initializer, bias_initializer: how the weights begin: a name, one of `seqcore.initializers`, a function
            `(shape, dtype=None) -> array`, or an array.
        kernel_regularizer, bias_regularizer, activity_regularizer: penalties added to the loss.
        kernel_constraint, bias_constraint: projections after each update.

    Example:
        >>> from seqcore import layers
        >>> layers.Dense(2, kernel_initializer="ones")([[1.0, 2.0, 3.0]]).tolist()
        [[6.0, 6.0]]
    """

    def output_shape_for(self, input_shape: Shape) -> Shape:
        self._features(input_shape)
        return (*input_shape[:-1], self.units)


class Embedding(Layer):
    """Rows of a table, looked up by non-negative integers.

    Args:
        input_dim: number of rows; ids lie in [0, input_dim).
        output_dim: size of a row.
        embeddings_initializer, embeddings_regularizer, embeddings_constraint: as elsewhere.
        mask_zero: whether id 0 is padding, masked for all later layers, the loss and the metrics.
        weights: a list of one array to begin with.
        activity_regularizer: a penalty on the output.

    Example:
        >>> from seqcore import layers
        >>> layers.Embedding(10, 4)([[1, 2, 3]]).shape
        (1, 3, 4)
    """

    input_dim: int = arg(positive_int)
    output_dim: int = arg(positive_int)
    embeddings_initializer: InitializerLike = arg(initializers.convert, default="uniform")
    embeddings_regularizer: RegularizerLike = arg(regularizers.convert, default=None)
    embeddings_constraint: ConstraintLike = arg(constraints.convert, default=None)
    mask_zero: bool = arg(boolean, default=False)
    weights: Any = arg(anything, default=None, in_config=False, attribute="_initial_weights")
    activity_regularizer: RegularizerLike = arg(regularizers.convert, default=None)

    _input_dtype = "int32"

    def _setup(self) -> None:
        super()._setup()
        given = self._initial_weights
        if given is not None and not isinstance(given, (list, tuple)):
            self._initial_weights = [given]

    def declared_shape(self) -> Shape | None:
        if self.input_shape is None and self.batch_input_shape is None and self.batch_shape is None:
            return None if self.input_length is None else (self.batch_size, self.input_length)
        return super().declared_shape()

    def output_shape_for(self, input_shape: Shape) -> Shape:
        return (*input_shape, self.output_dim)

    def build(self, input_shape: Sequence[int | None] | None = None) -> None:
        """Makes the table; it is the same for inputs of any shape."""
        super().build((None, None) if input_shape is None or len(input_shape) < 2 else input_shape)

    @property
    def embeddings(self) -> Variable:
        """The table; made here, where the constructor was given it."""
        if not self.built and self._initial_weights is not None:
            self.build()
        return cast(Variable, self.__getattr__("embeddings"))

    @property
    def supports_masking(self) -> bool:  # type: ignore[override]
        """As `mask_zero`, which is what Keras's says."""
        return self.mask_zero

    def _forward(self, x: Any, mask: Any, training: bool, initial_state: Any) -> tuple[list[Any], Any]:
        ids = _engine.to_int(x, "x", "token ids")
        if ids.ndim != 1:
            return super()._forward(ids, mask, training, initial_state)
        mask = None if mask is None else _engine.to_mask(mask, ids.shape)[:, None]
        (rows,), mask = super()._forward(ids[:, None], mask, training, initial_state)
        return [rows[:, 0]], None if mask is None else mask[:, 0]


class Masking(Layer):
    """Masks the steps whose features all equal `mask_value`, for all later layers, the loss and the metrics.

    Args:
        mask_value: what a padded step is filled with.
    """

    _weightless = True

    mask_value: float = arg(number, default=0.0)


class _Noise(Layer):
    _weightless = _takes_vectors = True
    _strength: ClassVar[str] = "rate"  # the argument that says how much of it there is

    def as_at_inference(self, change: bool = True) -> bool:
        return bool(getattr(self, self._strength) == 0)


class Dropout(_Noise):
    """In training, sets a share `rate` of the inputs to zero and scales the others by 1 / (1 - rate).

    Args:
        rate: the share, in [0, 1].
        noise_shape: shape of the random mask, batch in front, broadcast over the input: 1 where one draw serves the
            whole axis, None elsewhere. `(None, 1, None)` drops the same features at all steps of a sample.
        seed: an integer, for draws of its own.
    """

    rate: float = arg(fraction)
    noise_shape: Sequence[int | None] | None = arg(optional(sizes), default=None)
    seed: int | None = arg(seed_or_none, default=None)


class SpatialDropout1D(_Noise):
    """As `Dropout`, of whole features: one draw of a sample's serves all its steps.

    Args:
        rate: the share, in [0, 1].
        seed: an integer, for draws of its own.
    """

    rate: float = arg(fraction)
    seed: int | None = arg(seed_or_none, default=None)

    def output_shape_for(self, input_shape: Shape) -> Shape:
        self._check_rank(input_shape, 3, "(batch, steps, features)")
        return input_shape


def _below_1(value: Any, where: str) -> float:
    if fraction(value, where) == 1:
        raise ValueError(f"{where}: expected a float of at least 0 and below 1, got {value!r}")
    return float(value)


class AlphaDropout(_Noise):
    """In training, sets a share `rate` of the inputs to what `selu` tends to far below zero, -1.758, and then scales
    and shifts all of them so that what had mean 0 and variance 1 has it again (Klambauer and others, 2017). For
    networks of `selu`.

    Args:
        rate: the share, in [0, 1).
        noise_shape: as Dropout's.
        seed: an integer, for draws of its own.
    """

    rate: float = arg(_below_1)
    noise_shape: Sequence[int | None] | None = arg(optional(sizes), default=None)
    seed: int | None = arg(seed_or_none, default=None)


class GaussianDropout(_Noise):
    """In training, multiplies each input by a normal number of mean 1 and of the variance that Dropout's factors have,
    rate / (1 - rate) (Srivastava and others, 2014).

    Args:
        rate: in [0, 1).
        seed: an integer, for draws of its own.
    """

    rate: float = arg(_below_1)
    seed: int | None = arg(seed_or_none, default=None)


class GaussianNoise(_Noise):
    """In training, adds a normal number of mean 0 to each input.

    Args:
        stddev: its standard deviation, in [0, 1].
        seed: an integer, for draws of its own.
    """

    stddev: float = arg(fraction)
    seed: int | None = arg(seed_or_none, default=None)

    _strength = "stddev"


class ActivityRegularization(Layer):
    """Gives its input as it is, and adds `l1 · Σ|x| + l2 · Σx²`, divided by the batch's size, to the loss.

    Args:
        l1: >= 0.
        l2: >= 0.
    """

    _weightless = _takes_vectors = True

    l1: float = arg(non_negative, default=0.0)
    l2: float = arg(non_negative, default=0.0)


class OverLastAxis(Layer):
    """Base of Softmax and the normalizations. Private."""

    axis: int = arg(anything, default=-1)

    _expected: ClassVar[str] = "-1 (the last axis)"

    def _setup(self) -> None:
        super()._setup()
        if isinstance(self.axis, (list, tuple)) and len(self.axis) == 1:
            self.axis = self.axis[0]
        if isinstance(self.axis, bool) or not isinstance(self.axis, (int, np.integer)):
            raise ValueError(f"`axis` of {type(self).__name__}: expected {self._expected}, got {self.axis!r}")
        self.axis = int(self.axis)

    def output_shape_for(self, input_shape: Shape) -> Shape:
        self._features(input_shape)
        if self.axis not in (-1, len(input_shape) - 1, *self._other_axes(len(input_shape))):
            raise ValueError(
                f"`axis` of {type(self).__name__}: expected {self._expected} for an input of shape {input_shape}, got "
                f"{self.axis!r}"
            )
        return input_shape

    def _other_axes(self, rank: int) -> tuple[int, ...]:
        return ()


class LayerNormalization(OverLastAxis):
    """Gives each sample and step mean 0 and variance 1 over the last axis, then scales by gamma and adds beta.

    Args:
        axis: -1, the last axis.
        epsilon: added to the variance.
        center, scale: whether beta and gamma exist.
        beta_initializer, gamma_initializer, beta_regularizer, gamma_regularizer, beta_constraint, gamma_constraint:
            as elsewhere.
    """

    epsilon: float = arg(non_negative, default=1e-3)
    center: bool = arg(boolean, default=True)
    scale: bool = arg(boolean, default=True)
    beta_initializer: InitializerLike = arg(initializers.convert, default="zeros")
    gamma_initializer: InitializerLike = arg(initializers.convert, default="ones")
    beta_regularizer: RegularizerLike = arg(regularizers.convert, default=None)
    gamma_regularizer: RegularizerLike = arg(regularizers.convert, default=None)
    beta_constraint: ConstraintLike = arg(constraints.convert, default=None)
    gamma_constraint: ConstraintLike = arg(constraints.convert, default=None)

    _off = Layer._off | {"rms_scaling"}
