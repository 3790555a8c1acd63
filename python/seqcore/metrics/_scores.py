"""F scores, R², the top k, and the means of errors that are no losses of the core."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .. import _engine, losses
from .._config import (
    UNSET,
    arg,
    boolean,
    integer,
    non_negative_int,
    number,
    one_of,
    optional,
    positive,
    positive_int,
    text,
)
from .._variable import Variable
from ._base import Metric, alike, pair

Double = NDArray[np.float64]
_EPSILON = 1e-7


def _doubles(y_true: Any, y_pred: Any) -> tuple[Double, Double]:
    true, pred = alike(y_true, y_pred)
    if pred.ndim == 0:
        raise ValueError("`y_pred`: expected at least one axis, got a scalar")
    return true.astype(np.float64), pred.astype(np.float64)


def _share(value: Any, where: str) -> float:
    if not 0.0 < number(value, where) <= 1.0:
        raise ValueError(f"{where}: expected a number above 0 and up to 1, got {value!r}")
    return float(value)


# ---- values of each sample


def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> _engine.Float:
    """1 for each sample whose one-hot target's class is among the k largest predictions, else 0."""
    return TopKCategoricalAccuracy(k=k).values(y_true, y_pred)


def sparse_top_k_categorical_accuracy(
    y_true: Any, y_pred: Any, k: int = 5, from_sorted_ids: bool = False
) -> _engine.Float:
    """1 for each sample whose target's index is among the k largest predictions, else 0."""
    return SparseTopKCategoricalAccuracy(k=k, from_sorted_ids=from_sorted_ids).values(y_true, y_pred)


def _in_top_k(index: _engine.Array, pred: _engine.Array, k: int) -> _engine.Float:
    """As TensorFlow's: of equal predictions all are in or none, indices outside and predictions that are not finite
    are not."""
    if pred.ndim == 0:
        raise ValueError("`y_pred`: expected at least one axis, got a scalar")
    inside = (index >= 0) & (index < pred.shape[-1])
    own = np.take_along_axis(pred, np.where(inside, index, 0).astype(np.intp)[..., None], -1)
    return np.asarray(inside & np.isfinite(own[..., 0]) & ((pred > own).sum(-1) < k), np.float32)


# ---- their means


class CosineSimilarity(Metric):
    """Mean cosine of the angle between targets and predictions.

    Args:
        name: the name.
        axis: along which the vectors lie.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.CosineSimilarity()
        >>> m.update_state([[0.0, 1.0], [1.0, 1.0]], [[1.0, 0.0], [2.0, 2.0]])
        >>> round(float(m.result()), 4)
        0.5
    """

    axis: int = arg(integer, default=-1)
    larger_is_better = True

    def values(self, y_true: Any, y_pred: Any) -> _engine.Float:
        true, pred = alike(*pair(y_true, y_pred))
        if not -pred.ndim <= self.axis < pred.ndim:
            raise ValueError(
                f"`axis` of CosineSimilarity: expected one of an array of shape {pred.shape}, got {self.axis}"
            )
        return -losses.cosine_similarity(np.moveaxis(true, self.axis, -1), np.moveaxis(pred, self.axis, -1))


class TopKCategoricalAccuracy(Metric):
    """How often the one-hot target's class is among the k largest predictions.

    Args:
        k: how many.
        name: the name.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.TopKCategoricalAccuracy(k=1)
        >>> m.update_state([[0, 0, 1], [0, 1, 0]], [[0.1, 0.9, 0.8], [0.05, 0.95, 0]])
        >>> float(m.result())
        0.5
    """

    k: int = arg(positive_int, default=5)
    name: str | None = arg(optional(text), default=None)
    larger_is_better = True

    def values(self, y_true: Any, y_pred: Any) -> _engine.Float:
        true, pred = pair(y_true, y_pred)
        if pred.ndim == 0:
            raise ValueError("`y_pred`: expected at least one axis, got a scalar")
        return _in_top_k(true.argmax(-1), pred, self.k)


class SparseTopKCategoricalAccuracy(Metric):
    """How often the target's index is among the k largest predictions.

    Args:
        k: how many.
        name: the name.
        from_sorted_ids: whether `y_pred` holds the indices of the largest predictions, the largest first, instead of
            the predictions.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.SparseTopKCategoricalAccuracy(k=1)
        >>> m.update_state([2, 1], [[0.1, 0.9, 0.8], [0.05, 0.95, 0]])
        >>> float(m.result())
        0.5
    """

    k: int = arg(positive_int, default=5)
    name: str | None = arg(optional(text), default=None)
    from_sorted_ids: bool = arg(boolean, default=False)
    sparse = True
    larger_is_better = True

    def values(self, y_true: Any, y_pred: Any) -> _engine.Float:
        true, pred = pair(y_true, y_pred, sparse=True)
        if self.from_sorted_ids:
            return np.asarray((true[..., None] == pred[..., : self.k]).any(-1), np.float32)
        return _in_top_k(true, pred, self.k)


# ---- scores of sums over all samples


def _float(value: Any) -> Any:
    return np.asarray(value, np.float32)[()]


class _OfSums(Metric):
    """Base: sums over the samples, by output, of (batch, outputs)."""

    _names: ClassVar[tuple[str, ...]]
    _sums = UNSET  # (names, outputs); None before the first batch

    def reset_state(self) -> None:
        super().reset_state()
        self._sums = None

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        true, pred = alike(y_true, y_pred)
        outputs = "outputs" if self._sums is None else self._sums.shape[1]
        if pred.ndim != 2 or outputs not in ("outputs", pred.shape[1]):
            raise ValueError(f"`y_pred` of {type(self).__name__}: expected shape (batch, {outputs}), got {pred.shape}")
        pred = _engine.to_float(pred, "y_pred")
        weight = np.ones(pred.shape) if sample_weight is None else losses.broadcast_weight(sample_weight, pred)
        sums = self._sums_of(true.astype(np.float64), pred, weight.astype(np.float64))
        self._sums = sums if self._sums is None else self._sums + sums

    def _sums_of(self, true: Double, pred: _engine.Float, weight: Double) -> Double:
        raise NotImplementedError(f"{type(self).__name__}._sums_of")

    def _variable(self, index: int) -> Any:
        return self._sums[index]

    @property
    def variables(self) -> list[Variable]:
        """The sums; none before the first batch."""
        if self._sums is None:
            return []
        shape = self._sums.shape[1:]
        return [Variable.view(name, shape, partial(self._variable, i)) for i, name in enumerate(self._names)]


class _FScore(_OfSums):
    average = threshold = UNSET
    beta = 1.0
    larger_is_better = True
    _names = ("true_positives", "false_positives", "false_negatives", "intermediate_weights")

    def _sums_of(self, true: Double, pred: _engine.Float, weight: Double) -> Double:
        if self.threshold is None:
            chosen = (pred >= pred.max(-1, keepdims=True)) & (np.abs(pred) > 1e-9)
        else:
            chosen = pred > np.float32(self.threshold)
        parts = (chosen * true, chosen * (1 - true), ~chosen * true, true)
        return np.stack([(part * weight).sum(0) for part in parts])

    def result(self) -> Any:
        """The score so far; 0 before the first batch."""
        if self._sums is None:
            return np.float32(0.0)
        sums = self._sums.sum(1) if self.average == "micro" else self._sums
        tp, fp, fn, weights = sums
        precision, recall = tp / (tp + fp + _EPSILON), tp / (tp + fn + _EPSILON)
        square = self.beta**2
        score = (1 + square) * precision * recall / (square * precision + recall + _EPSILON)
        if self.average == "weighted":
            return np.float32((score * weights).sum() / (weights.sum() + _EPSILON))
        return _float(score if self.average is None else score.mean())

    @property
    def variables(self) -> list[Variable]:
        """The sums; none before the first batch."""
        variables = super().variables
        if self.average == "micro":
            for variable in variables:
                variable.shape = ()
        return variables

    def _variable(self, index: int) -> Any:
        sums = super()._variable(index)
        return sums.sum() if self.average == "micro" else sums


class FBetaScore(_FScore):
    """The harmonic mean of precision and recall, recall weighing beta times as much. Targets and predictions are
    (batch, classes).

    Args:
        average: None for one score of each class, "micro" (of the counts of all classes), "macro" (the mean of the
            classes) or "weighted" (that weighted by how often each class is).
        beta: the weight of recall.
        threshold: predictions above it count as 1; where None, the largest of each sample.
        name: the name.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.FBetaScore(beta=2.0, threshold=0.5)
        >>> m.update_state([[1, 1, 1], [1, 0, 0], [1, 1, 0]], [[0.2, 0.6, 0.7], [0.2, 0.6, 0.6], [0.6, 0.8, 0.0]])
        >>> [round(float(score), 3) for score in m.result()]
        [0.385, 0.909, 0.833]
    """

    average: str | None = arg(one_of(None, "micro", "macro", "weighted"), default=None)
    beta: float = arg(positive, default=1.0)
    threshold: float | None = arg(optional(_share), default=None)
    name: str | None = arg(optional(text), default=None)

    def _setup(self) -> None:
        self.name = self.name or "fbeta_score"
        super()._setup()


class F1Score(_FScore):
    """The harmonic mean of precision and recall. Targets and predictions are (batch, classes).

    Args:
        average: None for one score of each class, "micro" (of the counts of all classes), "macro" (the mean of the
            classes) or "weighted" (that weighted by how often each class is).
        threshold: predictions above it count as 1; where None, the largest of each sample.
        name: the name.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.F1Score(threshold=0.5)
        >>> m.update_state([[1, 1, 1], [1, 0, 0], [1, 1, 0]], [[0.2, 0.6, 0.7], [0.2, 0.6, 0.6], [0.6, 0.8, 0.0]])
        >>> [round(float(score), 3) for score in m.result()]
        [0.5, 0.8, 0.667]
    """

    average: str | None = arg(one_of(None, "micro", "macro", "weighted"), default=None)
    threshold: float | None = arg(optional(_share), default=None)
    name: str | None = arg(optional(text), default=None)


class R2Score(_OfSums):
    """The coefficient of determination: 1 less the squared error over the targets' variance. Targets and predictions
    are (batch, outputs).

    Args:
        class_aggregation: "uniform_average" (the mean of the outputs), "variance_weighted_average" or None for one
            score of each output.
        num_regressors: how many independent regressors the score is adjusted for; 0 for none.
        name: the name.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.R2Score()
        >>> m.update_state([[1], [4], [3]], [[2], [4], [4]])
        >>> round(float(m.result()), 4)
        0.5714
    """

    class_aggregation: str | None = arg(
        one_of(None, "uniform_average", "variance_weighted_average"), default="uniform_average"
    )
    num_regressors: int = arg(non_negative_int, default=0)
    name: str | None = arg(optional(text), default=None)
    larger_is_better = True
    _names = ("squared_sum", "sum", "residual", "count")
    _samples = 0

    def reset_state(self) -> None:
        super().reset_state()
        self._samples = 0

    def _sums_of(self, true: Double, pred: _engine.Float, weight: Double) -> Double:
        self._samples += true.size  # numbers, not rows: so Keras counts
        parts = (true * true, true, (true - pred) ** 2, np.ones_like(true))
        return np.stack([(part * weight).sum(0) for part in parts])

    def result(self) -> Any:
        """The score so far; 0 before the first batch."""
        if self._sums is None:
            return np.float32(0.0)
        squares, total, residual, count = self._sums
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = squares - total * (total / count)
            scores = 1 - residual / spread
            scores = np.where(np.isinf(scores), 0.0, scores)
            if self.class_aggregation == "uniform_average":
                scores = scores.mean()
            elif self.class_aggregation is not None:
                scores = (spread * scores).sum() / spread.sum()
        return _float(self._adjusted(scores))

    def _adjusted(self, scores: Any) -> Any:
        n, p = self._samples, self.num_regressors
        if p == 0:
            return scores
        if p >= n - 1:
            warnings.warn(
                f"`num_regressors` of R2Score: expected less than the number of samples less 1, got {p} with {n} "
                "samples: the score is not adjusted",
                stacklevel=3,
            )
            return scores
        return 1 - (1 - scores) * (n - 1) / (n - p - 1)

    @property
    def variables(self) -> list[Variable]:
        """How many samples, and the sums once there are some."""
        return [Variable.view("num_samples", (), lambda: self._samples), *super().variables]
