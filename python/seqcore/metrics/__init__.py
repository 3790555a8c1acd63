"""Metrics. In `fit` the core computes those that it knows; called on arrays they accumulate here, over its losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import losses
from .._config import Registry, to_config
from ._base import Mean, Metric, Running, Sum
from ._means import (
    Accuracy,
    BinaryAccuracy,
    BinaryCrossentropy,
    CategoricalAccuracy,
    CategoricalCrossentropy,
    MeanAbsoluteError,
    MeanSquaredError,
    RootMeanSquaredError,
    SparseCategoricalAccuracy,
    SparseCategoricalCrossentropy,
    binary_accuracy,
    categorical_accuracy,
    sparse_categorical_accuracy,
)

__all__ = [
    "Accuracy", "BinaryAccuracy", "BinaryCrossentropy", "CategoricalAccuracy", "CategoricalCrossentropy", "Mean",
    "MeanAbsoluteError", "MeanSquaredError", "Metric", "RootMeanSquaredError", "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy", "Sum", "binary_accuracy", "categorical_accuracy", "deserialize", "get",
    "serialize", "sparse_categorical_accuracy",
]  # fmt: skip

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
    if metric is None or isinstance(metric, Running):
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
