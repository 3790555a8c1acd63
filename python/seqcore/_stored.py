"""What files of all kinds have of a model: its weights and metrics by name, and sizes that a description claims.
Private: used by `_saving` and `_keras_files`."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from . import metrics

if TYPE_CHECKING:
    from .models import Sequential


def weight_names(model: Sequential) -> list[str]:
    """The name of each weight of a built model, in their order; ValueError for one that is not built."""
    network = model._existing_network()
    if network is None:
        raise ValueError(
            f'model "{model.name}" has no weights yet: build it, or call it on data, before saving or loading'
        )
    return [f"layers/{w.layer}/{w.name}" for w in network.core.weights]


def named_metrics(model: Sequential) -> tuple[list[tuple[str, metrics.Metric]], list[tuple[str, metrics.Metric]]]:
    """The plain metrics of a compiled model and the weighted ones, with their names in the logs."""
    named = list(zip(model.metrics_names[1:], model.metrics, strict=True))
    plain = len(model._metrics_given[0])
    return named[:plain], named[plain:]


def assign(model: Sequential, tensors: dict[str, Any], path: str, skip_mismatch: bool) -> None:
    """The weights by their names into a built model: ValueError, or a warning with `skip_mismatch`, for what does not
    fit."""
    names, variables = weight_names(model), model.weights
    found = {n for n in tensors if n.startswith("layers/")}
    problems = [f"{n}: not in the file" for n in names if n not in found]
    problems += [f"{n}: not in the model" for n in sorted(found - set(names))]
    fitting = []
    for name, variable in zip(names, variables, strict=True):
        value = tensors.get(name)
        if value is None:
            continue
        if value.shape != variable.shape:
            problems.append(f"{name}: shape {variable.shape} in the model, {value.shape} in the file")
        elif value.dtype.kind != "f":
            problems.append(f"{name}: expected floats, got {value.dtype} in the file")
        else:
            fitting.append((variable, value))
    if problems and not skip_mismatch:
        raise ValueError(f"{path}: the weights do not fit the model: {'; '.join(problems[:8])}")
    if problems:
        warnings.warn(f"{path}: skipped {'; '.join(problems[:8])}", stacklevel=3)
    for variable, value in fitting:
        variable.assign(value)


def check_sizes(description: Any, tensors: dict[str, Any]) -> None:
    """Refuses sizes that the file's own tensors do not bear out, before memory is taken for them."""
    largest = max((max(v.shape, default=1) for v in tensors.values()), default=1)
    pending = [description]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            for key in ("units", "output_dim", "input_dim"):
                if isinstance(value.get(key), (int, float)) and value[key] > largest:
                    raise ValueError(f"`{key}` is {value[key]}, but no tensor in the file is larger than {largest}")
            pending += value.values()
        elif isinstance(value, list):
            pending += value
