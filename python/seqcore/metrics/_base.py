"""What metrics are: something that takes batches, and what it says of those so far."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from .. import _engine, losses
from .._config import Configurable, arg, optional, snake_case, text
from .._variable import Variable


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


class Running(Metric):
    """Of values, not of targets and predictions: cannot stand in `compile`."""

    def update_state(self, values: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        self._add(_engine.to_float(values, "values"), sample_weight)

    def __call__(self, values: Any, sample_weight: Any = None) -> Any:  # type: ignore[override]
        self.update_state(values, sample_weight)
        return self.result()


class Mean(Running):
    """The weighted mean of the values seen.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.Mean()
        >>> m.update_state([1.0, 3.0])
        >>> float(m.result())
        2.0
    """


class Sum(Running):
    """The weighted sum of the values seen."""

    def result(self) -> Any:
        return np.float32(self._total)

    @property
    def variables(self) -> list[Variable]:
        """The running sum."""
        return super().variables[:1]


def pair(y_true: Any, y_pred: Any, sparse: bool = False) -> tuple[_engine.Array, _engine.Array]:
    pred = _engine.to_array(y_pred, "y_pred")
    true = _engine.to_array(y_true, "y_true")
    if not sparse:
        true, pred = _engine.same_rank(true, pred)
    return _engine.fit_target(true, pred.shape, sparse, "y_true"), pred
