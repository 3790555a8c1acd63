"""Losses: objects and functions. All numbers are the core's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, cast

import numpy as np

from . import _engine
from ._config import (
    Configurable,
    Registry,
    arg,
    boolean,
    fraction,
    non_negative,
    number,
    one_of,
    optional,
    snake_case,
    text,
    to_config,
)
from ._config import integer as _integer

__all__ = [
    "BinaryCrossentropy", "BinaryFocalCrossentropy", "CategoricalCrossentropy", "CategoricalFocalCrossentropy",
    "CategoricalHinge", "CosineSimilarity", "Hinge", "Huber", "KLDivergence", "LogCosh", "Loss", "MeanAbsoluteError",
    "MeanAbsolutePercentageError", "MeanSquaredError", "MeanSquaredLogarithmicError", "Poisson",
    "SparseCategoricalCrossentropy", "SquaredHinge", "binary_crossentropy", "binary_focal_crossentropy",
    "categorical_crossentropy", "categorical_focal_crossentropy", "categorical_hinge", "cosine_similarity",
    "deserialize", "get", "hinge", "huber", "kl_divergence", "log_cosh", "mean_absolute_error",
    "mean_absolute_percentage_error", "mean_squared_error", "mean_squared_logarithmic_error", "poisson", "serialize",
    "sparse_categorical_crossentropy", "squared_hinge",
]  # fmt: skip


def _last_axis(value: Any, where: str) -> int:
    if value != -1:
        raise ValueError(f"{where}: expected -1 (the last axis), got {value!r}")
    return -1


def _alpha(value: Any, where: str) -> float | list[float]:
    """A number, or one of each class."""
    if isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value) == 1 and len(value):
        return [number(v, where) for v in value]
    return number(value, where)


class Loss(Configurable):
    """Base of all losses. A subclass of your own gives `call` and can be called on arrays; `compile` refuses it, as the
    core does not know its gradient.

    Args:
        reduction: "sum_over_batch_size" (the mean over all samples and steps), "sum", "mean",
            "mean_with_sample_weight", or "none" (or None): no reduction.
        name: the name.

    Call arguments:
        y_true: targets.
        y_pred: what the model gave.
        sample_weight: weights of the samples (and steps), not normalised. They are broadcast as NumPy does, but
            (batch,) weighs whole samples.

    Example:
        >>> from seqcore import losses
        >>> float(losses.MeanSquaredError()([[0.0, 1.0]], [[1.0, 1.0]]))
        0.5
    """

    reduction: str | None = arg(
        one_of("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", None),
        default="sum_over_batch_size",
        kw_only=True,
    )
    name: str | None = arg(optional(text), default=None, kw_only=True)

    _ignored = frozenset({"dtype", "fn"})
    _by_position = True
    dtype: ClassVar[str] = "float32"
    sparse: ClassVar[bool] = False  # targets are class indices

    def _setup(self) -> None:
        if self.name is None:
            self.name = "huber_loss" if type(self) is Huber else snake_case(type(self).__name__)

    @property
    def known(self) -> bool:
        """Whether the core has it, with its gradient."""
        return type(self) in _functions.values()

    def describe(self) -> dict[str, Any]:
        """What the core is told."""
        config = {k: v for k, v in self.get_config().items() if k not in ("name", "axis")}
        return {"class_name": type(self).__name__, "config": {**config, "reduction": self.reduction or "none"}}

    def call(self, y_true: Any, y_pred: Any) -> _engine.Float:
        """The loss of each sample (and step): `y_pred` without its last axis. A subclass's is given float32 arrays."""
        return _engine.loss(self.describe(), y_true, y_pred, self.sparse)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        if not self.known:
            y_true, y_pred = _engine.to_float(y_true, "y_true"), _engine.to_float(y_pred, "y_pred")
        values = np.asarray(self.call(y_true, y_pred), np.float32)
        weight: _engine.Array | None = None
        if sample_weight is not None:
            values, weight = _weigh(values, _engine.to_float(sample_weight, "sample_weight"))
        if self.reduction in (None, "none") or values.ndim == 0:
            return values[()]
        total = values.sum(dtype=np.float64)
        if self.reduction == "sum":
            return np.float32(total)
        counts = self.counts(y_true, values)
        if self.reduction == "mean_with_sample_weight" and weight is not None:
            counts = weight if counts is None else weight * counts
        divisor = values.size if counts is None else counts.sum(dtype=np.float64)
        return np.float32(total / divisor if divisor else 0.0)

    def counts(self, y_true: Any, values: _engine.Float) -> _engine.Float | None:
        """1 for each of `values` that has a part in a mean, else 0; None where all have."""
        return None


def _weigh(values: _engine.Array, weight: _engine.Array) -> tuple[_engine.Array, _engine.Array]:
    """The weighted values and the weights as they are summed: Keras's are not repeated before, ours are where they
    weigh all steps of a row, which Keras refuses."""
    values, weight = _engine.same_rank(values, weight)
    if values.ndim == 0:
        return values * weight, weight
    full = broadcast_weight(weight, values)
    return values * full, full if weight.ndim < values.ndim and weight.size > 1 else weight


def broadcast_weight(sample_weight: Any, values: _engine.Float) -> _engine.Float:
    """`sample_weight` in the shape of `values`. Its shape: (), a head of that, or that with ones in it or behind it."""
    weight = _engine.to_float(sample_weight, "sample_weight")
    if weight.ndim == values.ndim + 1 and weight.shape[-1] == 1:
        weight = weight[..., 0]
    if weight.ndim > values.ndim or any(w not in (1, v) for w, v in zip(weight.shape, values.shape, strict=False)):
        raise ValueError(
            f"`sample_weight`: expected shape {values.shape}, a head of it, or ones in their places, got {weight.shape}"
        )
    full = weight.reshape(weight.shape + (1,) * (values.ndim - weight.ndim))
    return np.broadcast_to(full, values.shape)


class MeanSquaredError(Loss):
    """Mean of (y_true - y_pred)² over the last axis."""


class MeanAbsoluteError(Loss):
    """Mean of |y_true - y_pred| over the last axis."""


class Huber(Loss):
    """Squared up to `delta`, linear beyond.

    Args:
        delta: where the line begins.
    """

    delta: float = arg(number, default=1.0)


class MeanAbsolutePercentageError(Loss):
    """Mean of |y_true - y_pred| in percent of |y_true| over the last axis."""


class MeanSquaredLogarithmicError(Loss):
    """Mean of (log(1 + y_true) - log(1 + y_pred))² over the last axis; values below 0 count as 0."""


class LogCosh(Loss):
    """Mean of log(cosh(y_pred - y_true)) over the last axis: about half the square, or the distance less log(2) where
    that is large."""


class Poisson(Loss):
    """Mean of y_pred - y_true · log(y_pred) over the last axis."""


class KLDivergence(Loss):
    """Sum of y_true · log(y_true / y_pred) over the last axis; both are clipped to [1e-7, 1]."""


class Hinge(Loss):
    """Mean of max(1 - y_true · y_pred, 0) over the last axis, of targets -1 and 1. Where all targets of a batch are 0
    or 1, 0 stands for -1.

    Example:
        >>> from seqcore import losses
        >>> float(losses.Hinge()([[0, 1]], [[-0.5, 2.0]]))
        0.25
    """


class SquaredHinge(Loss):
    """Mean of max(1 - y_true · y_pred, 0)² over the last axis, of targets as in `Hinge`."""


class CategoricalHinge(Loss):
    """By how much the prediction of the one-hot target's class does not lie 1 above all others."""


class CosineSimilarity(Loss):
    """The negative cosine of the angle between targets and predictions along the last axis; vectors shorter than 1e-7
    count as that much shorter ones.

    Args:
        axis: -1.
    """

    axis: int = arg(_last_axis, default=-1)


class BinaryCrossentropy(Loss):
    """Cross-entropy of independent yes/no outputs.

    Args:
        from_logits: whether `y_pred` is before the sigmoid.
        label_smoothing: moves the targets this share of the way to 0.5.
        axis: -1.
    """

    from_logits: bool = arg(boolean, default=False)
    label_smoothing: float = arg(fraction, default=0.0)
    axis: int = arg(_last_axis, default=-1)


class BinaryFocalCrossentropy(Loss):
    """Cross-entropy of independent yes/no outputs, less of those that are right already (Lin et al., 2018): times
    (1 - p)^gamma, p the probability of what is true.

    Args:
        apply_class_balancing: whether ones weigh `alpha` and zeros 1 - `alpha`.
        alpha: that weight.
        gamma: how much less.
        from_logits: whether `y_pred` is before the sigmoid.
        label_smoothing: moves the targets this share of the way to 0.5.
        axis: -1.
    """

    apply_class_balancing: bool = arg(boolean, default=False)
    alpha: float = arg(number, default=0.25)
    gamma: float = arg(non_negative, default=2.0)
    from_logits: bool = arg(boolean, default=False)
    label_smoothing: float = arg(fraction, default=0.0)
    axis: int = arg(_last_axis, default=-1)


class CategoricalCrossentropy(Loss):
    """Cross-entropy with one-hot (or soft) targets.

    Args:
        from_logits: whether `y_pred` is before the softmax.
        label_smoothing: moves the targets this share of the way to uniform.
        axis: -1.
    """

    from_logits: bool = arg(boolean, default=False)
    label_smoothing: float = arg(fraction, default=0.0)
    axis: int = arg(_last_axis, default=-1)


class CategoricalFocalCrossentropy(Loss):
    """Cross-entropy with one-hot (or soft) targets, less of those that are right already (Lin et al., 2018): times
    alpha · (1 - p)^gamma, p the probability of each class.

    Args:
        alpha: the weight of all classes, or a list of each one's.
        gamma: how much less.
        from_logits: whether `y_pred` is before the softmax.
        label_smoothing: moves the targets this share of the way to uniform.
        axis: -1.
    """

    alpha: float | list[float] = arg(_alpha, default=0.25)
    gamma: float = arg(non_negative, default=2.0)
    from_logits: bool = arg(boolean, default=False)
    label_smoothing: float = arg(fraction, default=0.0)
    axis: int = arg(_last_axis, default=-1)


class SparseCategoricalCrossentropy(Loss):
    """Cross-entropy with class indices as targets.

    Args:
        from_logits: whether `y_pred` is before the softmax.
        ignore_class: an index that counts for nothing, in [0, classes) or not: samples (and steps) of it have no loss,
            no gradient and no part in the mean.
        axis: -1.
    """

    from_logits: bool = arg(boolean, default=False)
    ignore_class: int | None = arg(optional(_integer), default=None)
    axis: int = arg(_last_axis, default=-1)
    sparse = True

    def counts(self, y_true: Any, values: _engine.Float) -> _engine.Float | None:
        if self.ignore_class is None:
            return None
        return np.asarray(np.reshape(y_true, values.shape) != self.ignore_class, np.float32)


def mean_squared_error(y_true: Any, y_pred: Any) -> _engine.Float:
    """Squared error of each sample."""
    return MeanSquaredError().call(y_true, y_pred)


def mean_absolute_error(y_true: Any, y_pred: Any) -> _engine.Float:
    """Absolute error of each sample."""
    return MeanAbsoluteError().call(y_true, y_pred)


def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> _engine.Float:
    """Huber's loss of each sample."""
    return Huber(delta=delta).call(y_true, y_pred)


def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> _engine.Float:
    """Error of each sample in percent of the target."""
    return MeanAbsolutePercentageError().call(y_true, y_pred)


def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> _engine.Float:
    """Squared difference of log(1 + value) of each sample; values below 0 count as 0."""
    return MeanSquaredLogarithmicError().call(y_true, y_pred)


def log_cosh(y_true: Any, y_pred: Any) -> _engine.Float:
    """log(cosh(error)) of each sample."""
    return LogCosh().call(y_true, y_pred)


def poisson(y_true: Any, y_pred: Any) -> _engine.Float:
    """y_pred - y_true · log(y_pred) of each sample."""
    return Poisson().call(y_true, y_pred)


def kl_divergence(y_true: Any, y_pred: Any) -> _engine.Float:
    """Sum of y_true · log(y_true / y_pred) of each sample."""
    return KLDivergence().call(y_true, y_pred)


def hinge(y_true: Any, y_pred: Any) -> _engine.Float:
    """Hinge loss of each sample; 0 stands for -1 where all targets are 0 or 1."""
    return Hinge().call(y_true, y_pred)


def squared_hinge(y_true: Any, y_pred: Any) -> _engine.Float:
    """Squared hinge loss of each sample, of targets as in `hinge`."""
    return SquaredHinge().call(y_true, y_pred)


def categorical_hinge(y_true: Any, y_pred: Any) -> _engine.Float:
    """Categorical hinge loss of each sample."""
    return CategoricalHinge().call(y_true, y_pred)


def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> _engine.Float:
    """The negative cosine between target and prediction of each sample."""
    return CosineSimilarity(axis).call(y_true, y_pred)


def binary_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> _engine.Float:
    """Binary cross-entropy of each sample."""
    return BinaryCrossentropy(from_logits, label_smoothing, axis).call(y_true, y_pred)


def binary_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> _engine.Float:
    """Binary focal cross-entropy of each sample."""
    loss = BinaryFocalCrossentropy(apply_class_balancing, alpha, gamma, from_logits, label_smoothing, axis)
    return loss.call(y_true, y_pred)


def categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> _engine.Float:
    """Categorical cross-entropy of each sample."""
    return CategoricalCrossentropy(from_logits, label_smoothing, axis).call(y_true, y_pred)


def categorical_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    alpha: float | list[float] = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> _engine.Float:
    """Categorical focal cross-entropy of each sample."""
    return CategoricalFocalCrossentropy(alpha, gamma, from_logits, label_smoothing, axis).call(y_true, y_pred)


def sparse_categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, ignore_class: int | None = None, axis: int = -1
) -> _engine.Float:
    """Sparse categorical cross-entropy of each sample."""
    return SparseCategoricalCrossentropy(from_logits, ignore_class, axis).call(y_true, y_pred)


_functions: dict[Callable[..., Any], type[Loss]] = {
    mean_squared_error: MeanSquaredError,
    mean_absolute_error: MeanAbsoluteError,
    huber: Huber,
    mean_absolute_percentage_error: MeanAbsolutePercentageError,
    mean_squared_logarithmic_error: MeanSquaredLogarithmicError,
    log_cosh: LogCosh,
    poisson: Poisson,
    kl_divergence: KLDivergence,
    hinge: Hinge,
    squared_hinge: SquaredHinge,
    categorical_hinge: CategoricalHinge,
    cosine_similarity: CosineSimilarity,
    binary_crossentropy: BinaryCrossentropy,
    binary_focal_crossentropy: BinaryFocalCrossentropy,
    categorical_crossentropy: CategoricalCrossentropy,
    categorical_focal_crossentropy: CategoricalFocalCrossentropy,
    sparse_categorical_crossentropy: SparseCategoricalCrossentropy,
}
_registry: Registry[Loss] = Registry(
    "loss",
    Loss,
    list(_functions.values()),
    mse=MeanSquaredError, MSE=MeanSquaredError, mae=MeanAbsoluteError, MAE=MeanAbsoluteError, huber_loss=Huber,
    bce=BinaryCrossentropy, BCE=BinaryCrossentropy, mape=MeanAbsolutePercentageError, MAPE=MeanAbsolutePercentageError,
    msle=MeanSquaredLogarithmicError, MSLE=MeanSquaredLogarithmicError, logcosh=LogCosh, kld=KLDivergence,
    KLD=KLDivergence, kl_divergence=KLDivergence,
)  # fmt: skip


def get(identifier: Any) -> Loss | Callable[..., Any] | None:
    """What `identifier` names: a function of this module for "mse" and the like, an instance of the class for
    "MeanSquaredError", a class or a description; instances, functions and None are what they are."""
    if callable(identifier) and not isinstance(identifier, type):
        return cast(Callable[..., Any], identifier)
    loss = _registry.get(identifier)
    if isinstance(identifier, str) and identifier not in _registry.classes:
        return next(f for f, c in _functions.items() if type(loss) is c)
    return loss


def resolve(identifier: Any) -> Loss | None:
    """The loss that `compile` was given: as in `get`, but always an object."""
    if callable(identifier) and not isinstance(identifier, (type, Loss)):
        if identifier not in _functions:
            raise ValueError(
                f"unknown loss {identifier!r}: the gradient of a Python function is not known; expected one of "
                f"{', '.join(sorted(_registry.classes))}"
            )
        identifier = _functions[identifier]
    return _registry.get(identifier)


def serialize(loss: Loss) -> dict[str, Any]:
    """The {"class_name", "config"} description."""
    return dict(to_config(loss))


def deserialize(config: Any) -> Loss | Callable[..., Any] | None:
    """The loss of a {"class_name", "config"} description, or the function of a name."""
    return get(config)
