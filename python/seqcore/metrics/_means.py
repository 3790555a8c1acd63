"""Weighted means of a value per sample: accuracies, and the losses as metrics."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from .. import _engine, losses
from .._config import arg, boolean, fraction, integer, number, optional
from ._base import Metric, pair


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
