"""Metrics of true and false positives and negatives at thresholds: counts, precision, recall, areas under curves."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .. import _engine, losses
from .._config import UNSET, anything, arg, boolean, fraction, integer, number, one_of, optional, positive_int, text
from .._variable import Variable
from ._base import Metric, alike

Double = NDArray[np.float64]
_EPSILON = 1e-7
_NOT_IN_TOP_K = np.float32(-1e10)


def _thresholds(value: Any, where: str) -> float | list[float]:
    """A number in [0, 1] or a list of them, as it came."""
    if not isinstance(value, (list, tuple, np.ndarray)):
        return fraction(value, where)
    if len(value) == 0:
        raise ValueError(f"{where}: expected a number between 0 and 1 or a list of them, got {value!r}")
    return [fraction(v, where) for v in value]


def _between(value: Any, where: str) -> list[float]:
    if not isinstance(value, (list, tuple, np.ndarray)):
        raise ValueError(f"{where}: expected a list of numbers between 0 and 1, got {value!r}")
    return sorted(fraction(v, where) for v in value)


def _label_weights(value: Any, where: str) -> list[float]:
    if not isinstance(value, (list, tuple, np.ndarray)) or len(value) == 0:
        raise ValueError(f"{where}: expected a list of numbers, one of each label, got {value!r}")
    return [number(v, where) for v in value]


def _either_case(*choices: str) -> Any:
    """One of `choices`, which are given as Keras gives them or in the other case."""
    names = {name: choice for choice in choices for name in (choice, choice.lower(), choice.capitalize())}

    def convert(value: Any, where: str) -> str:
        return names[one_of(*choices)(names.get(value, value) if isinstance(value, str) else value, where)]

    return convert


def _ratio(part: Double, rest: Double) -> Double:
    """part / (part + rest), 0 where both are."""
    return _divide(part, part + rest)


def _divide(a: Double, b: Double) -> Double:
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b != 0)


def _evenly_spread(thresholds: list[float]) -> bool:
    n = len(thresholds)
    return n >= 3 and np.allclose(thresholds, np.arange(n, dtype=np.float32) / np.float32(n - 1), atol=_EPSILON)


def _between_0_and_1(num: int) -> list[float]:
    return [i / (num - 1) for i in range(1, num - 1)]


class Confusion(Metric):
    """Base: how much weight of positives and of negatives lies above how many of the thresholds. From that the four
    counts at each threshold follow."""

    thresholds = _labels = UNSET
    _even = False

    def _set_thresholds(self, thresholds: list[float], even: bool) -> None:
        self.thresholds, self._even = thresholds, even
        self.reset_state()

    def reset_state(self) -> None:
        super().reset_state()
        labels = () if self._labels is None else (self._labels,)
        # [negatives and positives, how many thresholds lie below, label]
        self._counts: Double = np.zeros((2, len(self.thresholds) + 1, *labels))

    def _below(self, pred: _engine.Float) -> NDArray[np.intp]:
        """How many thresholds lie below each prediction."""
        n = len(self.thresholds)
        known = ~np.isnan(pred)
        if not self._even:
            below = np.searchsorted(np.sort(np.float32(self.thresholds)), pred, side="left")
            return np.where(known, below, 0)
        # Keras finds the place by a product in float32; where a prediction lies on a threshold its rounding decides.
        place = np.ceil(np.clip(np.where(known, pred, 0), 0, 1).astype(np.float32) * np.float32(n - 1))
        return np.where(known, np.maximum(place, 1 if self.thresholds[0] < 0 else 0), 0).astype(np.intp)

    def _add_batch(self, true: _engine.Array, pred: _engine.Float, weight: Double) -> None:
        """Adds a batch; all three are of one shape, (…, labels) where labels are counted apart."""
        places = len(self.thresholds) + 1
        labels = self._labels or 1
        index = (true != 0) * places + self._below(pred)
        if self._labels is not None:
            index = index * labels + np.arange(labels)
        sums = np.bincount(index.ravel(), weight.ravel(), minlength=2 * places * labels)
        self._counts += sums.reshape(self._counts.shape)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        true, pred = alike(y_true, y_pred)
        pred = _engine.to_float(pred, "y_pred")
        self._add_batch(true, pred, self._weight_of(sample_weight, pred))

    def _weight_of(self, sample_weight: Any, pred: _engine.Float) -> Double:
        if sample_weight is None:
            return np.ones(pred.shape)
        return losses.broadcast_weight(sample_weight, pred).astype(np.float64)

    def _up_to(self, positive: int) -> Double:
        """Weight of predictions that are not above each threshold, in the thresholds' order."""
        return self._in_order(np.cumsum(self._counts[positive], axis=0)[:-1])

    def _above(self, positive: int) -> Double:
        return self._in_order(np.cumsum(self._counts[positive][::-1], axis=0)[::-1][1:])

    def _in_order(self, counts: Double) -> Double:
        ordered = np.empty_like(counts)
        ordered[np.argsort(np.float32(self.thresholds), kind="stable")] = counts
        return ordered

    @property
    def true_positives(self) -> Double:
        """Weight of the positives above each threshold."""
        return self._above(1)

    @property
    def false_positives(self) -> Double:
        """Weight of the negatives above each threshold."""
        return self._above(0)

    @property
    def true_negatives(self) -> Double:
        """Weight of the negatives not above each threshold."""
        return self._up_to(0)

    @property
    def false_negatives(self) -> Double:
        """Weight of the positives not above each threshold."""
        return self._up_to(1)

    _kept: ClassVar[tuple[str, ...]] = ("true_positives", "false_positives", "true_negatives", "false_negatives")

    @property
    def variables(self) -> list[Variable]:
        """The counts at each threshold."""
        shape = (len(self.thresholds), *self._counts.shape[2:])
        return [Variable.view(name, shape, partial(getattr, self, name)) for name in self._kept]

    def _of_each(self, values: Double) -> Any:
        """One number where there is one threshold, else an array."""
        return np.float32(values[0]) if len(self.thresholds) == 1 else values.astype(np.float32)


class _Count(Confusion):
    thresholds: Any = arg(optional(_thresholds), default=None, attribute="_given")
    name: str | None = arg(optional(text), default=None)

    _given = UNSET

    def _setup(self) -> None:
        super()._setup()
        thresholds = _listed(self._given, 0.5)
        self._set_thresholds(thresholds, _evenly_spread(thresholds))

    def result(self) -> Any:
        """The count so far."""
        return self._of_each(getattr(self, self._kept[0]))

    @property
    def variables(self) -> list[Variable]:
        """The count at each threshold."""
        variables = super().variables
        variables[0].name = variables[0].path = "accumulator"
        return variables


def _listed(given: Any, default: float) -> list[float]:
    return [default] if given is None else given if isinstance(given, list) else [given]


class TruePositives(_Count):
    """How many positives were predicted above a threshold.

    Args:
        thresholds: a number in [0, 1], or a list of them for an array of counts; 0.5 where None.
        name: the name.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.TruePositives()
        >>> m.update_state([0, 1, 1, 1], [1, 0, 1, 1])
        >>> float(m.result())
        2.0
    """

    _kept = ("true_positives",)
    larger_is_better = True


class TrueNegatives(_Count):
    """How many negatives were not predicted above a threshold.

    Args:
        thresholds: a number in [0, 1], or a list of them for an array of counts; 0.5 where None.
        name: the name.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.TrueNegatives()
        >>> m.update_state([0, 1, 0, 0], [1, 1, 0, 0])
        >>> float(m.result())
        2.0
    """

    _kept = ("true_negatives",)
    larger_is_better = True


class FalsePositives(_Count):
    """How many negatives were predicted above a threshold.

    Args:
        thresholds: a number in [0, 1], or a list of them for an array of counts; 0.5 where None.
        name: the name.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.FalsePositives()
        >>> m.update_state([0, 1, 0, 0], [0, 0, 1, 1])
        >>> float(m.result())
        2.0
    """

    _kept = ("false_positives",)


class FalseNegatives(_Count):
    """How many positives were not predicted above a threshold.

    Args:
        thresholds: a number in [0, 1], or a list of them for an array of counts; 0.5 where None.
        name: the name.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.FalseNegatives()
        >>> m.update_state([0, 1, 1, 1], [0, 1, 0, 0])
        >>> float(m.result())
        2.0
    """

    _kept = ("false_negatives",)


class _OfClass(Confusion):
    """Those that may look at one class only."""

    class_id: int | None = arg(optional(integer), default=None)

    def _seen(self, pred: _engine.Float) -> _engine.Float:
        """The predictions as they are compared with the thresholds."""
        return pred

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        true, pred = alike(y_true, y_pred)
        pred = self._seen(_engine.to_float(pred, "y_pred"))
        if self.class_id is not None:
            classes = pred.shape[-1] if pred.ndim > 1 else 0
            if not -classes <= self.class_id < classes:
                raise ValueError(
                    f"`y_pred`: expected a last axis of classes that has class_id={self.class_id}, got "
                    f"shape {pred.shape}"
                )
            true, pred = true[..., self.class_id, None], pred[..., self.class_id, None]
        self._add_batch(true, pred, self._weight_of(sample_weight, pred))


def _filter_top_k(pred: _engine.Float, k: int) -> _engine.Float:
    """The k largest of the last axis, of equal ones the first; all others far below any threshold."""
    if pred.ndim == 0 or pred.shape[-1] < k:
        raise ValueError(f"`y_pred`: expected a last axis of at least top_k={k} classes, got shape {pred.shape}")
    best = np.argsort(-pred, axis=-1, kind="stable")[..., :k]
    kept = np.full_like(pred, _NOT_IN_TOP_K)
    np.put_along_axis(kept, best, np.take_along_axis(pred, best, -1), -1)
    return kept


class _PrecisionOrRecall(_OfClass):
    thresholds: Any = arg(optional(_thresholds), default=None, attribute="_given")
    top_k: int | None = arg(optional(positive_int), default=None)
    class_id: int | None = arg(optional(integer), default=None)
    name: str | None = arg(optional(text), default=None)
    larger_is_better = True

    _given = UNSET

    def _setup(self) -> None:
        super()._setup()
        thresholds = _listed(self._given, 0.5 if self.top_k is None else float(_NOT_IN_TOP_K))
        self._set_thresholds(thresholds, _evenly_spread(thresholds))

    def _seen(self, pred: _engine.Float) -> _engine.Float:
        return pred if self.top_k is None else _filter_top_k(pred, self.top_k)

    def result(self) -> Any:
        """The value so far, of each threshold; 0 where nothing was counted."""
        return self._of_each(_ratio(*(getattr(self, name) for name in self._kept)))


class Precision(_PrecisionOrRecall):
    """Which share of what was predicted positive is so.

    Args:
        thresholds: a number in [0, 1], or a list of them for an array of results. Where None it is 0.5 or, with
            `top_k`, nothing.
        top_k: only the `top_k` largest predictions of a sample may count as positive.
        class_id: the one class, of the last axis, that is looked at.
        name: the name.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.Precision()
        >>> m.update_state([0, 1, 1, 1], [1, 0, 1, 1])
        >>> round(float(m.result()), 3)
        0.667
    """

    _kept = ("true_positives", "false_positives")


class Recall(_PrecisionOrRecall):
    """Which share of the positives was predicted so.

    Args:
        thresholds: a number in [0, 1], or a list of them for an array of results. Where None it is 0.5 or, with
            `top_k`, nothing.
        top_k: only the `top_k` largest predictions of a sample may count as positive.
        class_id: the one class, of the last axis, that is looked at.
        name: the name.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.Recall()
        >>> m.update_state([0, 1, 1, 1], [1, 0, 1, 1])
        >>> round(float(m.result()), 3)
        0.667
    """

    _kept = ("true_positives", "false_negatives")


class _BestUnder(_OfClass):
    """The best of one ratio over the thresholds where another one is at least so much."""

    num_thresholds: int = arg(positive_int, default=200)
    class_id: int | None = arg(optional(integer), default=None)
    name: str | None = arg(optional(text), default=None)
    larger_is_better = True
    _bound: ClassVar[str]  # the argument that says how much
    _wanted: ClassVar[str]

    def _setup(self) -> None:
        super()._setup()
        n = self.num_thresholds
        self._set_thresholds([0.5] if n == 1 else [0.0, *_between_0_and_1(n), 1.0], even=n > 1)

    def _at_each(self, what: str) -> Double:
        if what == "specificity":
            return _ratio(self.true_negatives, self.false_positives)
        return _ratio(self.true_positives, self.false_positives if what == "precision" else self.false_negatives)

    def result(self) -> Any:
        """The value so far; 0 where no threshold will do."""
        enough = self._at_each(self._bound).astype(np.float32) >= np.float32(getattr(self, self._bound))
        return np.float32(np.max(self._at_each(self._wanted), where=enough, initial=0.0))


class SensitivityAtSpecificity(_BestUnder):
    """The best sensitivity (true positives of all positives) where the specificity is at least the one given.

    Args:
        specificity: a number in [0, 1].
        num_thresholds: how many thresholds are tried, evenly spread over [0, 1].
        class_id: the one class, of the last axis, that is looked at.
        name: the name.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.SensitivityAtSpecificity(0.5)
        >>> m.update_state([0, 0, 0, 1, 1], [0, 0.3, 0.8, 0.3, 0.8])
        >>> float(m.result())
        0.5
    """

    specificity: float = arg(fraction)  # type: ignore[misc]  # Keras's place, before the name
    num_thresholds: int = arg(positive_int, default=200)
    class_id: int | None = arg(optional(integer), default=None)
    name: str | None = arg(optional(text), default=None)
    _bound, _wanted = "specificity", "recall"


class SpecificityAtSensitivity(_BestUnder):
    """The best specificity (true negatives of all negatives) where the sensitivity is at least the one given.

    Args:
        sensitivity: a number in [0, 1].
        num_thresholds: how many thresholds are tried, evenly spread over [0, 1].
        class_id: the one class, of the last axis, that is looked at.
        name: the name.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.SpecificityAtSensitivity(0.5)
        >>> m.update_state([0, 0, 0, 1, 1], [0, 0.3, 0.8, 0.3, 0.8])
        >>> round(float(m.result()), 3)
        0.667
    """

    sensitivity: float = arg(fraction)  # type: ignore[misc]  # Keras's place, before the name
    num_thresholds: int = arg(positive_int, default=200)
    class_id: int | None = arg(optional(integer), default=None)
    name: str | None = arg(optional(text), default=None)
    _bound, _wanted = "sensitivity", "specificity"


class PrecisionAtRecall(_BestUnder):
    """The best precision where the recall is at least the one given.

    Args:
        recall: a number in [0, 1].
        num_thresholds: how many thresholds are tried, evenly spread over [0, 1].
        class_id: the one class, of the last axis, that is looked at.
        name: the name.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.PrecisionAtRecall(0.5)
        >>> m.update_state([0, 0, 0, 1, 1], [0, 0.3, 0.8, 0.3, 0.8])
        >>> float(m.result())
        0.5
    """

    recall: float = arg(fraction)  # type: ignore[misc]  # Keras's place, before the name
    num_thresholds: int = arg(positive_int, default=200)
    class_id: int | None = arg(optional(integer), default=None)
    name: str | None = arg(optional(text), default=None)
    _bound, _wanted = "recall", "precision"


class RecallAtPrecision(_BestUnder):
    """The best recall where the precision is at least the one given.

    Args:
        precision: a number in [0, 1].
        num_thresholds: how many thresholds are tried, evenly spread over [0, 1].
        class_id: the one class, of the last axis, that is looked at.
        name: the name.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.RecallAtPrecision(0.8)
        >>> m.update_state([0, 0, 1, 1], [0, 0.5, 0.3, 0.9])
        >>> float(m.result())
        0.5
    """

    precision: float = arg(fraction)  # type: ignore[misc]  # Keras's place, before the name
    num_thresholds: int = arg(positive_int, default=200)
    class_id: int | None = arg(optional(integer), default=None)
    name: str | None = arg(optional(text), default=None)
    _bound, _wanted = "precision", "recall"


class AUC(Confusion):
    """The area under a curve of ratios at thresholds.

    Args:
        num_thresholds: how many thresholds, evenly spread over [0, 1]; at least 2.
        curve: "ROC" (true over false positive rate), "PR" (precision over recall) or "PRGAIN" (the gains of both).
        summation_method: "interpolation" (between the points: a line or, for "PR", what the counts between them give),
            "minoring" (steps below the curve) or "majoring" (above it).
        name: the name.
        thresholds: thresholds in [0, 1], to which two ends are added; `num_thresholds` does not count then.
        multi_label: whether `y_pred` is (batch, labels), each label with an area of its own, of which the mean is told.
        num_labels: with `multi_label`, how many labels; found from the first batch where None.
        label_weights: with `multi_label`, the weights of that mean; else, weights of the last axis of `y_pred`.
        from_logits: whether `y_pred` is before the sigmoid.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.AUC(num_thresholds=3)
        >>> m.update_state([0, 0, 1, 1], [0, 0.5, 0.3, 0.9])
        >>> float(m.result())
        0.75
    """

    num_thresholds: int = arg(anything, default=200)
    curve: str = arg(_either_case("ROC", "PR", "PRGAIN"), default="ROC")
    summation_method: str = arg(_either_case("interpolation", "minoring", "majoring"), default="interpolation")
    name: str | None = arg(optional(text), default=None)
    thresholds: Any = arg(optional(_between), default=None, attribute="_given")
    multi_label: bool = arg(boolean, default=False)
    num_labels: int | None = arg(optional(positive_int), default=None)
    label_weights: list[float] | None = arg(optional(_label_weights), default=None)
    from_logits: bool = arg(boolean, default=False)
    larger_is_better = True

    _given = UNSET

    def _setup(self) -> None:
        super()._setup()
        if self.num_labels is not None and not self.multi_label:
            raise ValueError(f"`num_labels` of AUC: expected None without `multi_label`, got {self.num_labels}")
        inner = self._given
        if inner is None:
            self.num_thresholds = integer(self.num_thresholds, "`num_thresholds` of AUC", low=2)
            inner, even = _between_0_and_1(self.num_thresholds), True
        else:
            self.num_thresholds, even = len(inner) + 2, _evenly_spread([0.0, *inner, 1.0])
        # Ends a little outside, as a prediction of 0 is above no 0.
        self._set_thresholds([-_EPSILON, *inner, 1.0 + _EPSILON], even)
        if self.num_labels is not None:
            self._build(self.num_labels)

    def _build(self, labels: int) -> None:
        if self.label_weights is not None and len(self.label_weights) != labels:
            raise ValueError(
                f"`label_weights` of AUC: expected {labels} weights, one of each label, got {len(self.label_weights)}"
            )
        self._labels = labels
        self.reset_state()

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        true, pred = alike(y_true, y_pred)
        pred = _engine.to_float(pred, "y_pred")
        if self.multi_label and (pred.ndim != 2 or self._labels not in (None, pred.shape[1])):
            raise ValueError(f"`y_pred`: expected shape (batch, {self._labels or 'labels'}), got {pred.shape}")
        weight = self._weight_of(sample_weight, pred)
        if self.multi_label:
            if self._labels is None:
                self._build(pred.shape[1])
        elif self.label_weights is not None:
            if pred.ndim == 0 or pred.shape[-1] != len(self.label_weights):
                raise ValueError(
                    f"`y_pred`: expected a last axis of {len(self.label_weights)}, the number of label_weights, got "
                    f"shape {pred.shape}"
                )
            weight = weight * np.asarray(self.label_weights, np.float64)
        if self.from_logits:
            with np.errstate(over="ignore"):
                pred = (1 / (1 + np.exp(-pred.astype(np.float64)))).astype(np.float32)
        self._add_batch(true, pred, weight)

    def result(self) -> Any:
        """The area so far; 0 before the first batch."""
        if self.multi_label and self._labels is None:
            return np.float32(0.0)
        if self.curve == "PR" and self.summation_method == "interpolation":
            area = self._between_counts()
        else:
            area = self._between_points()
        if not self.multi_label:
            return np.float32(area)
        if self.label_weights is None:
            return np.float32(area.mean())
        weights = np.asarray(self.label_weights, np.float64)
        return np.float32(_divide((area * weights).sum(), weights.sum()))

    def _between_points(self) -> Double:
        tp, fp, tn, fn = self.true_positives, self.false_positives, self.true_negatives, self.false_negatives
        if self.curve == "ROC":
            x, y = _ratio(fp, tn), _ratio(tp, fn)
        elif self.curve == "PR":
            x, y = _ratio(tp, fn), _ratio(tp, fp)
        else:
            odds = _divide(tp + fn, tn + fp)
            x = np.where(tp == 0, 0.0, np.maximum(1 - odds * _divide(fn, tp), 0.0))
            y = np.where(tp == 0, 1.0, 1 - odds * _divide(fp, tp))
        height = {
            "interpolation": (y[:-1] + y[1:]) / 2,
            "minoring": np.minimum(y[:-1], y[1:]),
            "majoring": np.maximum(y[:-1], y[1:]),
        }[self.summation_method]
        return np.asarray(((x[:-1] - x[1:]) * height).sum(0))

    def _between_counts(self) -> Double:
        """Davis & Goadrich 2006: between two thresholds the true positives are linear in all that is predicted
        positive, and the precision's integral over the recall has a logarithm in it."""
        tp, fp, fn = self.true_positives, self.false_positives, self.false_negatives
        predicted = tp + fp
        gained = tp[:-1] - tp[1:]
        slope = _divide(gained, np.maximum(predicted[:-1] - predicted[1:], 0))
        intercept = tp[1:] - slope * predicted[1:]
        both = (predicted[:-1] > 0) & (predicted[1:] > 0)
        log = np.log(np.divide(predicted[:-1], predicted[1:], out=np.ones_like(gained), where=both))
        return np.asarray(_divide(slope * (gained + intercept * log), np.maximum(tp[1:] + fn[1:], 0)).sum(0))
