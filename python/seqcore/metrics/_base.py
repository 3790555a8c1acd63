"""What metrics are: something that takes batches, and what it says of those so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from .. import _custom_objects, _engine, initializers, losses
from .._config import Configurable, arg, optional, snake_case, text, to_config
from .._variable import Variable


class Metric(Configurable):
    """Base of all metrics: a weighted running mean of one value per sample (and step). Your own either give
    `values`, or `update_state` and `result` over variables that they add, or over metrics that they hold.

    Args:
        name: the name under which logs show it.
        dtype: accepted as Keras's, after the name; metrics say float32.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.BinaryAccuracy()
        >>> m.update_state([[1], [0]], [[0.9], [0.8]])
        >>> float(m.result())
        0.5
    """

    name: str | None = arg(optional(text), default=None)
    dtype: Any = arg(lambda value, where: "float32", default=None, in_config=False, after="name")

    _ignored = frozenset({"fn"})
    sparse: ClassVar[bool] = False
    larger_is_better: ClassVar[bool] = False

    def _setup(self) -> None:
        if self.name is None:
            self.name = snake_case(type(self).__name__)
        self._total = self._weight = 0.0
        self._added: list[tuple[Variable, Any]] = []  # with what they begin

    def add_variable(
        self, shape: tuple[int, ...] = (), initializer: Any = "zeros", dtype: str = "float32", name: str = "variable"
    ) -> Variable:
        """A value of the metric's own, which `reset_state` sets to its beginning.

        Args:
            shape, dtype: the value's.
            initializer: what it begins with: a name or an initializer.
            name: its name.
        """
        made = initializers.get(initializer)
        if made is None:
            raise ValueError("`initializer`: expected a name or an initializer, got None")
        begin = np.asarray(made(tuple(shape)), dtype)
        variable = Variable(begin, dtype=dtype, name=name)
        self._added.append((variable, begin))
        return variable

    add_weight = add_variable

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
        """Starts anew, with all metrics that it holds."""
        self._total = self._weight = 0.0
        for variable, begin in self._added:
            variable.assign(begin)
        for metric in self._held():
            metric.reset_state()

    def _held(self) -> list[Metric]:
        """The metrics among its attributes, and in lists and dicts there, each once."""
        found: dict[int, Metric] = {}
        for value in vars(self).values():
            inner = (
                value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
            )
            found.update({id(v): v for v in inner if isinstance(v, Metric)})
        return list(found.values())

    @property
    def variables(self) -> list[Variable]:
        """The running sum and weight; or what was added, and what the metrics that it holds have."""
        held = self._held()
        if self._added or held:
            return [*(variable for variable, _ in self._added), *(v for metric in held for v in metric.variables)]
        return [
            Variable.view("total", (), read=lambda: self._total),
            Variable.view("count", (), read=lambda: self._weight),
        ]

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        self.update_state(y_true, y_pred, sample_weight)
        return self.result()

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dtype": self.dtype}

    def _description(self) -> dict[str, Any]:
        return {"class_name": _custom_objects.get_registered_name(type(self)), "config": self.get_config()}

    def describe(self) -> dict[str, Any]:
        """What the core is told."""
        config = {k: v for k, v in self.get_config().items() if k not in ("name", "axis", "dtype")}
        return {"class_name": type(self).__name__, "config": config}


_custom_objects.classes.append(Metric)


class MeanMetricWrapper(Metric):
    """The weighted mean of what a function of targets and predictions gives.

    Args:
        fn: gives a value per sample (and step), or one for all.
        name: the function's where not given.
        kwargs: what else the function is called with.

    Example:
        >>> from seqcore import metrics
        >>> m = metrics.MeanMetricWrapper(lambda y_true, y_pred: abs(y_true - y_pred).max(-1), name="largest")
        >>> float(m([[1.0, 2.0], [3.0, 4.0]], [[1.0, 1.0], [3.0, 1.0]]))
        2.0
    """

    def __init__(self, fn: Callable[..., Any], name: str | None = None, dtype: Any = None, **kwargs: Any) -> None:
        if not callable(fn):
            raise TypeError(f"`fn`: expected a function, got {fn!r}")
        self.fn, self.kwargs = fn, kwargs
        super().__init__(name=self.fn_name if name is None else name)

    @property
    def fn_name(self) -> str:
        return str(getattr(self.fn, "__name__", type(self.fn).__name__))

    @property
    def registered_name(self) -> str:
        """What files call the function."""
        return _custom_objects.get_registered_name(self.fn)

    def values(self, y_true: Any, y_pred: Any) -> _engine.Float:
        true, pred = _engine.to_array(y_true, "y_true"), _engine.to_array(y_pred, "y_pred")
        return _engine.to_float(self.fn(true, pred, **self.kwargs), f"what {self.name} gives")

    def _add(self, values: _engine.Float, sample_weight: Any) -> None:
        if sample_weight is not None and values.ndim == 0:  # it counts for all
            values = np.full(np.shape(sample_weight), values)
        super()._add(values, sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "fn": self.registered_name, **{k: to_config(v) for k, v in self.kwargs.items()}}


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


def alike(y_true: Any, y_pred: Any) -> tuple[_engine.Array, _engine.Array]:
    """As `pair`, but `y_pred` keeps its shape where it has more than one axis: (batch, steps, 1) has steps to weigh."""
    pred = _engine.to_array(y_pred, "y_pred")
    if pred.ndim < 2:
        return pair(y_true, pred)
    return _engine.fit_target(_engine.to_array(y_true, "y_true"), pred.shape, False, "y_true"), pred
