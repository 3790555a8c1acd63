"""Metrics. In `fit` the core computes them; called on arrays they accumulate here, over the core's losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from . import _engine, losses
from ._config import (
    Configurable,
    Registry,
    arg,
    boolean,
    fraction,
    integer,
    number,
    optional,
    snake_case,
    text,
    to_config,
)
from ._variable import Variable

__all__ = [
    "Accuracy", "BinaryAccuracy", "BinaryCrossentropy", "CategoricalAccuracy", "CategoricalCrossentropy", "Mean",
    "MeanAbsoluteError", "MeanSquaredError", "Metric", "RootMeanSquaredError", "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy", "Sum", "binary_accuracy", "categorical_accuracy", "deserialize", "get",
    "serialize", "sparse_categorical_accuracy",
]  # fmt: skip


class Metric(Configurable):
    """Base of all metrics: a weighted running mean of one value per sample (and step).

    Args:
        name: the name under which logs show it.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.BinaryAccuracy()
        >>> m.update_state([[1], [0]], [[0.9], [0.8]])
        >>> float(m.result())
        0.5
    """

    name: str | None = arg(optional(text), default=None)

    _ignored = frozenset({"dtype", "fn"})
    dtype: ClassVar[str] = "float32"
    sparse: ClassVar[bool] = False
    larger_is_better: ClassVar[bool] = False

    def _setup(self) -> None:
        if self.name is None:
            self.name = snake_case(type(self).__name__)
        self._total = self._weight = 0.0

    def values(self, y_true: Any, y_pred: Any) -> _engine.Float:
        """One value per sample (and step)."""
        raise NotImplementedError(f"{type(self).__name__}.values")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch."""
        self._add(self.values(y_true, y_pred), sample_weight)

    def _add(self, values: _engine.Float, sample_weight: Any) -> None:
        if sample_weight is None:
            self._weight += values.size
        else:
            weight = losses.broadcast_weight(sample_weight, values)
            values = values * weight
            self._weight += float(weight.sum(dtype=np.float64))
        self._total += float(values.sum(dtype=np.float64))

    def result(self) -> Any:
        """The value so far; 0 before the first batch."""
        return np.float32(self._total / self._weight if self._weight else 0.0)

    def reset_state(self) -> None:
        """Starts anew."""
        self._total = self._weight = 0.0

    @property
    def variables(self) -> list[Variable]:
        """The running sum and weight."""
        return [
            Variable("total", (), read=lambda: self._total),
            Variable("count", (), read=lambda: self._weight),
        ]

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        self.update_state(y_true, y_pred, sample_weight)
        return self.result()

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dtype": self.dtype}

    def describe(self) -> dict[str, Any]:
        """What the core is told."""
        config = {k: v for k, v in self.get_config().items() if k not in ("name", "axis", "dtype")}
        return {"class_name": type(self).__name__, "config": config}


class _Running(Metric):
    """Of values, not of targets and predictions: cannot stand in `compile`."""

    def update_state(self, values: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        self._add(_engine.to_float(values, "values"), sample_weight)

    def __call__(self, values: Any, sample_weight: Any = None) -> Any:  # type: ignore[override]
        self.update_state(values, sample_weight)
        return self.result()


class Mean(_Running):
    """The weighted mean of the values seen.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.Mean()
        >>> m.update_state([1.0, 3.0])
        >>> float(m.result())
        2.0
    """


class Sum(_Running):
    """The weighted sum of the values seen."""

    def result(self) -> Any:
        return np.float32(self._total)

    @property
    def variables(self) -> list[Variable]:
        """The running sum."""
        return super().variables[:1]


class _LossMetric(Metric):
    _loss: ClassVar[type[losses.Loss]]

    def values(self, y_true: Any, y_pred: Any) -> _engine.Float:
        config = {k: v for k, v in self.get_config().items() if k != "name"}
        return self._loss(**config).call(y_true, y_pred)


class MeanSquaredError(_LossMetric):
    """Mean squared error."""

    _loss = losses.MeanSquaredError


class RootMeanSquaredError(_LossMetric):
    """The root of the mean squared error."""

    _loss = losses.MeanSquaredError

    def values(self, y_true: Any, y_pred: Any) -> _engine.Float:
        true, pred = _pair(y_true, y_pred)  # of each number, as Keras's: it may have a weight of its own
        return super().values(true[..., None], pred[..., None])

    def result(self) -> Any:
        return np.float32(np.sqrt(self._total / self._weight) if self._weight else 0.0)


class MeanAbsoluteError(_LossMetric):
    """Mean absolute error."""

    _loss = losses.MeanAbsoluteError


class BinaryCrossentropy(_LossMetric):
    """Mean binary cross-entropy."""

    from_logits: bool = arg(boolean, default=False)
    label_smoothing: float = arg(fraction, default=0.0)
    _loss = losses.BinaryCrossentropy


class CategoricalCrossentropy(_LossMetric):
    """Mean categorical cross-entropy."""

    from_logits: bool = arg(boolean, default=False)
    label_smoothing: float = arg(fraction, default=0.0)
    axis: int = arg(losses._last_axis, default=-1)
    _loss = losses.CategoricalCrossentropy


class SparseCategoricalCrossentropy(_LossMetric):
    """Mean sparse categorical cross-entropy.

    Args:
        from_logits: whether `y_pred` is before the softmax.
        ignore_class: an index whose samples (and steps) count as 0 in the mean or, where there are weights or a mask,
            not at all: so Keras's do.
        axis: -1.
    """

    from_logits: bool = arg(boolean, default=False)
    ignore_class: int | None = arg(optional(integer), default=None)
    axis: int = arg(losses._last_axis, default=-1)
    sparse = True
    _loss = losses.SparseCategoricalCrossentropy

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        values = self.values(y_true, y_pred)
        if sample_weight is not None:
            counts = self._loss(ignore_class=self.ignore_class).counts(y_true, values)
            sample_weight = losses.broadcast_weight(sample_weight, values) * (1 if counts is None else counts)
        self._add(values, sample_weight)


def _pair(y_true: Any, y_pred: Any, sparse: bool = False) -> tuple[_engine.Array, _engine.Array]:
    pred = _engine.to_array(y_pred, "y_pred")
    true = _engine.to_array(y_true, "y_true")
    if not sparse:
        true, pred = _engine.same_rank(true, pred)
    return _engine.fit_target(true, pred.shape, sparse, "y_true"), pred


class Accuracy(Metric):
    """How often `y_true` equals `y_pred`."""

    larger_is_better = True

    def values(self, y_true: Any, y_pred: Any) -> _engine.Float:
        true, pred = _pair(y_true, y_pred)
        return np.asarray(true == pred, np.float32)


class BinaryAccuracy(Metric):
    """How often a probability lies on its label's side of a threshold.

    Args:
        threshold: predictions above it count as 1.
    """

    threshold: float = arg(number, default=0.5)
    larger_is_better = True

    def values(self, y_true: Any, y_pred: Any) -> _engine.Float:
        true, pred = _pair(y_true, y_pred)
        return np.asarray(true == (pred > self.threshold), np.float32)


class CategoricalAccuracy(Metric):
    """How often the largest prediction stands where the one-hot target has its one."""

    larger_is_better = True

    def values(self, y_true: Any, y_pred: Any) -> _engine.Float:
        true, pred = _pair(y_true, y_pred)
        return np.asarray(true.argmax(-1) == pred.argmax(-1), np.float32)


class SparseCategoricalAccuracy(Metric):
    """How often the largest prediction stands at the target's index."""

    sparse = True
    larger_is_better = True

    def values(self, y_true: Any, y_pred: Any) -> _engine.Float:
        true, pred = _pair(y_true, y_pred, sparse=True)
        return np.asarray(true == pred.argmax(-1), np.float32)


def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> _engine.Float:
    """Binary accuracy of each number."""
    return BinaryAccuracy(threshold=threshold).values(y_true, y_pred)


def categorical_accuracy(y_true: Any, y_pred: Any) -> _engine.Float:
    """Categorical accuracy of each sample."""
    return CategoricalAccuracy().values(y_true, y_pred)


def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> _engine.Float:
    """Sparse categorical accuracy of each sample."""
    return SparseCategoricalAccuracy().values(y_true, y_pred)


_functions: dict[Callable[..., Any], type[Metric]] = {
    binary_accuracy: BinaryAccuracy,
    categorical_accuracy: CategoricalAccuracy,
    sparse_categorical_accuracy: SparseCategoricalAccuracy,
    losses.mean_squared_error: MeanSquaredError,
    losses.mean_absolute_error: MeanAbsoluteError,
    losses.binary_crossentropy: BinaryCrossentropy,
    losses.categorical_crossentropy: CategoricalCrossentropy,
    losses.sparse_categorical_crossentropy: SparseCategoricalCrossentropy,
}
_registry: Registry[Metric] = Registry(
    "metric",
    Metric,
    [Accuracy, BinaryAccuracy, CategoricalAccuracy, SparseCategoricalAccuracy, Mean, Sum, MeanSquaredError,
     RootMeanSquaredError, MeanAbsoluteError, BinaryCrossentropy, CategoricalCrossentropy,
     SparseCategoricalCrossentropy],
    mse=MeanSquaredError, MSE=MeanSquaredError, mae=MeanAbsoluteError, MAE=MeanAbsoluteError, rmse=RootMeanSquaredError,
    RMSE=RootMeanSquaredError, bce=BinaryCrossentropy, BCE=BinaryCrossentropy,
)  # fmt: skip


def get(identifier: Any) -> Metric | None:
    """The metric that `identifier` names: a string, a class, an instance, a function of this module, a description."""
    if callable(identifier) and not isinstance(identifier, (type, Metric)):
        if identifier not in _functions:
            raise ValueError(f"unknown metric {identifier!r}; known: {', '.join(sorted(_registry.classes))}")
        identifier = _functions[identifier]
    return _registry.get(identifier)


def resolve(identifier: Any, output_shape: tuple[int | None, ...], sparse: bool) -> Metric:
    """The metric for a model's output. "accuracy" and "crossentropy" take the form that the output and the loss's
    targets ask for. A metric given by a string keeps that name."""
    kinds = {"accuracy": "Accuracy", "acc": "Accuracy", "crossentropy": "Crossentropy", "ce": "Crossentropy"}
    if isinstance(identifier, str) and identifier in kinds:
        form = "Binary" if output_shape[-1] == 1 else "SparseCategorical" if sparse else "Categorical"
        metric: Metric | None = _registry.classes[form + kinds[identifier]]()
    else:
        metric = get(identifier)
    if metric is None or isinstance(metric, _Running):
        raise ValueError(f"`metrics`: expected metrics of targets and predictions, got {identifier!r}")
    if isinstance(metric, Accuracy) or type(metric) not in _registry.classes.values():
        raise ValueError(
            f"`metrics`: the core does not know {type(metric).__name__}, which can be called on arrays only; got "
            f"{identifier!r}"
        )
    if isinstance(identifier, str):
        metric.name = identifier
    return metric


def serialize(metric: Metric) -> dict[str, Any]:
    """The {"class_name", "config"} description."""
    return dict(to_config(metric))


def deserialize(config: Any) -> Metric | None:
    """The metric of a {"class_name", "config"} description, or of a name."""
    return get(config)
