"""The metrics of `compile` at work. The core computes those that it knows; the others are updated here, with what the
model gave for each batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import _engine, metrics


class CompiledMetrics:
    """Plain metrics, which see no sample weights, and weighted ones, with their names in the logs.

    Args:
        plain, weighted: what `compile` was given.
        output_shape: of the model, None for what may vary.
        sparse: whether targets are class indices.
    """

    def __init__(
        self, plain: list[Any], weighted: list[Any], output_shape: tuple[int | None, ...], sparse: bool
    ) -> None:
        self.plain = [metrics.resolve(m, output_shape, sparse) for m in plain]
        self.weighted = [metrics.resolve(m, output_shape, sparse) for m in weighted]
        self.names = _unique_names(self.plain, self.weighted)
        self._own = [m for m in self.all if not metrics.in_core(m)]

    @property
    def all(self) -> list[metrics.Metric]:
        """In the order of the logs' names."""
        return [*self.plain, *self.weighted]

    def describe(self) -> dict[str, Any]:
        """What the core is told."""
        return {
            kind: [m.describe() for m in some if metrics.in_core(m)]
            for kind, some in (("metrics", self.plain), ("weighted_metrics", self.weighted))
        }

    def reset(self, core: _engine.CoreModel) -> None:
        """Starts the running loss and metrics anew."""
        core.reset_metrics()
        for metric in self._own:
            metric.reset_state()

    def results(self, core: _engine.CoreModel) -> list[Any]:
        """What all say so far: numbers, or arrays of them."""
        if not self._own:
            return list(core.metric_results())
        known = iter(core.metric_results())
        return [next(known) if metrics.in_core(m) else _value(m) for m in self.all]

    def step(self, core: _engine.CoreModel, train: bool) -> Callable[..., Any]:
        """`train_on_batch` or `test_on_batch` of the core, with all metrics."""
        if not self._own:
            return core.train_on_batch if train else core.test_on_batch

        def run(x: Any, y: Any, weight: Any, rows: Any) -> None:
            outputs, mask = core.see_batch(x, y, weight, rows, train)
            if rows is not None:
                y, weight = y[rows], None if weight is None else weight[rows]
            self._update(y, outputs, mask, weight)

        return run

    def _update(self, y: Any, outputs: _engine.Float, mask: Any, weight: Any) -> None:
        valid = None if mask is None or outputs.ndim != 3 else np.asarray(mask, np.float32)
        both = weight
        if valid is not None:
            both = valid if weight is None else valid * (weight if weight.ndim == 2 else weight[:, None])
        for some, with_weight in ((self.plain, valid), (self.weighted, both)):
            for metric in some:
                if metrics.in_core(metric):
                    continue
                if with_weight is None:
                    metric.update_state(y, outputs)
                else:
                    metric.update_state(y, outputs, sample_weight=with_weight)


def _value(metric: metrics.Metric) -> Any:
    """What a metric says: a number, or an array of several."""
    value = np.asarray(metric.result())
    if value.dtype.kind not in "biuf" or not value.size:
        raise ValueError(
            f"`metrics`: expected metrics that say a number or an array of them, {metric.name!r} says {value!r}"
        )
    return float(value.reshape(())) if value.size == 1 else np.array(value)


def _unique_names(plain: list[metrics.Metric], weighted: list[metrics.Metric]) -> list[str]:
    names: list[str] = []
    for metric in plain:
        name, n = str(metric.name), 1
        while name in names:
            name, n = f"{metric.name}_{n}", n + 1
        names.append(name)
    for metric in weighted:
        name = str(metric.name)
        names.append(f"weighted_{name}" if name in names else name)
    return names
