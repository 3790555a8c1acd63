"""Weighted means of a value per sample: accuracies, and the losses as metrics."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from .. import _engine, losses
from .._config import arg, boolean, fraction, integer, number, optional
from ._base import Metric, alike, pair


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
        true, pred = pair(y_true, y_pred)  # of each number, as Keras's: it may have a weight of its own
        return super().values(true[..., None], pred[..., None])

    def result(self) -> Any:
        return np.float32(np.sqrt(self._total / self._weight) if self._weight else 0.0)


class MeanAbsoluteError(_LossMetric):
    """Mean absolute error."""

    _loss = losses.MeanAbsoluteError


class MeanAbsolutePercentageError(_LossMetric):
    """Mean absolute error in percent of the targets.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.MeanAbsolutePercentageError()
        >>> m.update_state([[2.0, 4.0]], [[1.0, 4.0]])
        >>> float(m.result())
        25.0
    """

    _loss = losses.MeanAbsolutePercentageError


class MeanSquaredLogarithmicError(_LossMetric):
    """Mean squared difference of log(1 + value); values below 0 count as 0.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.MeanSquaredLogarithmicError()
        >>> m.update_state([[0.0, 1.0]], [[0.0, 3.0]])
        >>> round(float(m.result()), 4)
        0.2402
    """

    _loss = losses.MeanSquaredLogarithmicError


class LogCoshError(_LossMetric):
    """Mean of log(cosh(error)): about half its square, or its absolute less log(2) where it is large.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.LogCoshError()
        >>> m.update_state([[0.0, 1.0]], [[1.0, 1.0]])
        >>> round(float(m.result()), 4)
        0.2169
    """

    _loss = losses.LogCosh

    def _setup(self) -> None:
        self.name = self.name or "logcosh"
        super()._setup()

    def describe(self) -> dict[str, Any]:
        return {"class_name": "LogCosh", "config": {}}


class Poisson(_LossMetric):
    """Mean of y_pred - y_true · log(y_pred).

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.Poisson()
        >>> m.update_state([[0.0, 1.0]], [[1.0, 1.0]])
        >>> round(float(m.result()), 4)
        1.0
    """

    _loss = losses.Poisson


class KLDivergence(_LossMetric):
    """Mean of the sum of y_true · log(y_true / y_pred) over the last axis; both are clipped to [1e-7, 1].

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.KLDivergence()
        >>> m.update_state([[0.0, 1.0]], [[0.5, 0.5]])
        >>> round(float(m.result()), 4)
        0.6931
    """

    _loss = losses.KLDivergence


class _HingeMetric(_LossMetric):
    def values(self, y_true: Any, y_pred: Any) -> _engine.Float:
        return super().values(*alike(y_true, y_pred))


class Hinge(_HingeMetric):
    """Mean of max(1 - y_true · y_pred, 0). Targets are -1 and 1, or all of a batch 0 and 1.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.Hinge()
        >>> m.update_state([[0, 1]], [[-0.5, 2.0]])
        >>> float(m.result())
        0.25
    """

    _loss = losses.Hinge


class SquaredHinge(_HingeMetric):
    """Mean of max(1 - y_true · y_pred, 0)². Targets are -1 and 1, or all of a batch 0 and 1.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.SquaredHinge()
        >>> m.update_state([[0, 1]], [[-0.5, 2.0]])
        >>> float(m.result())
        0.125
    """

    _loss = losses.SquaredHinge


class CategoricalHinge(_HingeMetric):
    """Mean of how much the prediction of the target's class does not lie 1 above all others.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.CategoricalHinge()
        >>> m.update_state([[0, 1]], [[0.5, 0.75]])
        >>> float(m.result())
        0.75
    """

    _loss = losses.CategoricalHinge


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


class Accuracy(Metric):
    """How often `y_true` equals `y_pred`."""

    larger_is_better = True

    def values(self, y_true: Any, y_pred: Any) -> _engine.Float:
        true, pred = pair(y_true, y_pred)
        return np.asarray(true == pred, np.float32)


class BinaryAccuracy(Metric):
    """How often a probability lies on its label's side of a threshold.

    Args:
        threshold: predictions above it count as 1.
    """

    threshold: float = arg(number, default=0.5)
    larger_is_better = True

    def values(self, y_true: Any, y_pred: Any) -> _engine.Float:
        true, pred = pair(y_true, y_pred)
        return np.asarray(true == (pred > self.threshold), np.float32)


class CategoricalAccuracy(Metric):
    """How often the largest prediction stands where the one-hot target has its one."""

    larger_is_better = True

    def values(self, y_true: Any, y_pred: Any) -> _engine.Float:
        true, pred = pair(y_true, y_pred)
        return np.asarray(true.argmax(-1) == pred.argmax(-1), np.float32)


class SparseCategoricalAccuracy(Metric):
    """How often the largest prediction stands at the target's index."""

    sparse = True
    larger_is_better = True

    def values(self, y_true: Any, y_pred: Any) -> _engine.Float:
        true, pred = pair(y_true, y_pred, sparse=True)
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
