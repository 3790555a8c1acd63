"""Metrics. In `fit` the core computes those that it knows; called on arrays they accumulate here, over its losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .._config import Registry, to_config
from .._custom_objects import key_of, with_registered
from ..losses import (
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    categorical_hinge,
    hinge,
    huber,
    kl_divergence,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
    sparse_categorical_crossentropy,
    squared_hinge,
)
from ._base import Mean, MeanMetricWrapper, Metric, Running, Sum
from ._confusion import (
    AUC,
    FalseNegatives,
    FalsePositives,
    Precision,
    PrecisionAtRecall,
    Recall,
    RecallAtPrecision,
    SensitivityAtSpecificity,
    SpecificityAtSensitivity,
    TrueNegatives,
    TruePositives,
)
from ._means import (
    Accuracy,
    BinaryAccuracy,
    BinaryCrossentropy,
    CategoricalAccuracy,
    CategoricalCrossentropy,
    CategoricalHinge,
    Hinge,
    KLDivergence,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    RootMeanSquaredError,
    SparseCategoricalAccuracy,
    SparseCategoricalCrossentropy,
    SquaredHinge,
    binary_accuracy,
    categorical_accuracy,
    sparse_categorical_accuracy,
)
from ._scores import (
    CosineSimilarity,
    F1Score,
    FBetaScore,
    R2Score,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
    sparse_top_k_categorical_accuracy,
    top_k_categorical_accuracy,
)

__all__ = [
    "AUC", "Accuracy", "BinaryAccuracy", "BinaryCrossentropy", "CategoricalAccuracy", "CategoricalCrossentropy",
    "CategoricalHinge", "CosineSimilarity", "F1Score", "FBetaScore", "FalseNegatives", "FalsePositives", "Hinge",
    "KLDivergence", "LogCoshError", "Mean", "MeanAbsoluteError", "MeanAbsolutePercentageError", "MeanMetricWrapper",
    "MeanSquaredError", "MeanSquaredLogarithmicError", "Metric", "Poisson", "Precision", "PrecisionAtRecall", "R2Score",
    "Recall", "RecallAtPrecision", "RootMeanSquaredError", "SensitivityAtSpecificity", "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy", "SparseTopKCategoricalAccuracy", "SpecificityAtSensitivity", "SquaredHinge", "Sum",
    "TopKCategoricalAccuracy", "TrueNegatives", "TruePositives", "binary_accuracy", "binary_crossentropy",
    "binary_focal_crossentropy", "categorical_accuracy", "categorical_crossentropy", "categorical_focal_crossentropy",
    "categorical_hinge", "deserialize", "get", "hinge", "huber", "kl_divergence", "log_cosh", "mean_absolute_error",
    "mean_absolute_percentage_error", "mean_squared_error", "mean_squared_logarithmic_error", "poisson", "serialize",
    "sparse_categorical_accuracy", "sparse_categorical_crossentropy", "sparse_top_k_categorical_accuracy",
    "squared_hinge", "top_k_categorical_accuracy",
]  # fmt: skip

_functions: dict[Callable[..., Any], type[Metric]] = {
    binary_accuracy: BinaryAccuracy,
    categorical_accuracy: CategoricalAccuracy,
    sparse_categorical_accuracy: SparseCategoricalAccuracy,
    mean_squared_error: MeanSquaredError,
    mean_absolute_error: MeanAbsoluteError,
    binary_crossentropy: BinaryCrossentropy,
    categorical_crossentropy: CategoricalCrossentropy,
    sparse_categorical_crossentropy: SparseCategoricalCrossentropy,
    mean_absolute_percentage_error: MeanAbsolutePercentageError,
    mean_squared_logarithmic_error: MeanSquaredLogarithmicError,
    log_cosh: LogCoshError,
    poisson: Poisson,
    kl_divergence: KLDivergence,
    hinge: Hinge,
    squared_hinge: SquaredHinge,
    categorical_hinge: CategoricalHinge,
    top_k_categorical_accuracy: TopKCategoricalAccuracy,
    sparse_top_k_categorical_accuracy: SparseTopKCategoricalAccuracy,
}
_registry: Registry[Metric] = Registry(
    "metric",
    Metric,
    [Accuracy, BinaryAccuracy, CategoricalAccuracy, SparseCategoricalAccuracy, Mean, Sum, MeanSquaredError,
     RootMeanSquaredError, MeanAbsoluteError, BinaryCrossentropy, CategoricalCrossentropy,
     SparseCategoricalCrossentropy,
     AUC, FalseNegatives, FalsePositives, Precision, PrecisionAtRecall, Recall, RecallAtPrecision,
     SensitivityAtSpecificity, SpecificityAtSensitivity, TrueNegatives, TruePositives, CategoricalHinge,
     CosineSimilarity, F1Score, FBetaScore, Hinge, KLDivergence, LogCoshError, MeanAbsolutePercentageError,
     MeanSquaredLogarithmicError, Poisson, R2Score, SparseTopKCategoricalAccuracy, SquaredHinge,
     TopKCategoricalAccuracy],
    mse=MeanSquaredError, MSE=MeanSquaredError, mae=MeanAbsoluteError, MAE=MeanAbsoluteError, rmse=RootMeanSquaredError,
    RMSE=RootMeanSquaredError, bce=BinaryCrossentropy, BCE=BinaryCrossentropy, mape=MeanAbsolutePercentageError,
    MAPE=MeanAbsolutePercentageError, msle=MeanSquaredLogarithmicError, MSLE=MeanSquaredLogarithmicError,
    fbeta_score=FBetaScore, logcosh=LogCoshError, log_cosh=LogCoshError,
)  # fmt: skip


# Those that the core computes as it trains.
IN_CORE: frozenset[type[Metric]] = frozenset(
    {BinaryAccuracy, CategoricalAccuracy, SparseCategoricalAccuracy, MeanSquaredError, RootMeanSquaredError,
     MeanAbsoluteError, MeanAbsolutePercentageError, MeanSquaredLogarithmicError, LogCoshError, Poisson, KLDivergence,
     Hinge, SquaredHinge, CategoricalHinge, BinaryCrossentropy, CategoricalCrossentropy,
     SparseCategoricalCrossentropy}
)  # fmt: skip


def in_core(metric: Metric) -> bool:
    return type(metric) in IN_CORE  # a subclass may do other things


def get(identifier: Any) -> Metric | None:
    """The metric that `identifier` names: a string, a class, an instance, a description, or a function, of this module
    or your own."""
    if callable(identifier) and not isinstance(identifier, (type, Metric)):
        known = _functions.get(identifier)
        return MeanMetricWrapper(identifier) if known is None else known()
    return _registry.get(identifier)


def resolve(identifier: Any, output_shape: tuple[int | None, ...], sparse: bool) -> Metric:
    """The metric for a model's output. "accuracy" and "crossentropy" take the form that the output and the loss's
    targets ask for. A metric given by a string keeps that name, a loss its own."""
    kinds = {"accuracy": "Accuracy", "acc": "Accuracy", "crossentropy": "Crossentropy", "ce": "Crossentropy"}
    if isinstance(identifier, str) and identifier in kinds:
        form = "Binary" if output_shape[-1] == 1 else "SparseCategorical" if sparse else "Categorical"
        metric: Metric | None = _registry.classes[form + kinds[identifier]]()
    else:
        metric = get(identifier)
    if metric is None or isinstance(metric, Running):
        raise ValueError(f"`metrics`: expected metrics of targets and predictions, got {identifier!r}")
    if isinstance(identifier, str):
        metric.name = identifier
    elif metric is not identifier and isinstance(metric, MeanMetricWrapper):
        metric.name = str(getattr(identifier, "name", metric.name))
    return metric


def serialize(metric: Metric) -> dict[str, Any]:
    """The {"class_name", "config"} description."""
    return dict(to_config(metric))


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Metric | None:
    """The metric of a {"class_name", "config"} description, or of a name.

    Args:
        config: the description or the name.
        custom_objects: your own metric classes and functions by the names that it has for them, beside those that are
            registered (`seqcore.saving`).
    """
    return described(config, with_registered(custom_objects))


def described(config: Any, own: Mapping[str, Any]) -> Metric | None:
    """As `deserialize`, where these alone of the caller's own are known."""
    name = config.get("class_name") if isinstance(config, Mapping) else config
    key = key_of(name, own)
    if key is not None:
        found = own[key]
        if isinstance(found, type) and issubclass(found, Metric) and isinstance(config, Mapping):
            return found.from_config(config.get("config") or {})
        return get(found)
    if name == "MeanMetricWrapper" and isinstance(config, Mapping):
        given = dict(config.get("config") or {})
        fn = given.pop("fn", None)
        key = key_of(fn, own)
        if key is None:
            raise ValueError(f"the metric's function {fn!r} is not known: give it in `custom_objects`")
        given.pop("dtype", None)
        return MeanMetricWrapper(own[key], **given)
    return get(config)
