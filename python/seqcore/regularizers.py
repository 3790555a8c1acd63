"""Regularizers: penalties on weights or outputs that are added to the loss (sums, not means)."""

from __future__ import annotations

from typing import Any

from . import _engine
from ._config import Configurable, Registry, arg, non_negative, one_of, to_config

__all__ = ["L1", "L1L2", "L2", "OrthogonalRegularizer", "Regularizer", "deserialize", "get", "serialize"]


class Regularizer(Configurable):
    """Base of all regularizers.

    Call arguments:
        x: an array.

    Example:
        >>> from seqcore import regularizers
        >>> regularizers.L2(0.5)([1.0, 2.0])
        2.5
    """

    def __call__(self, x: Any) -> float:
        return _engine.regularize(dict(to_config(self)), x)


class L1(Regularizer):
    """`l1 · Σ|x|`."""

    l1: float = arg(non_negative, default=0.01)


class L2(Regularizer):
    """`l2 · Σx²`."""

    l2: float = arg(non_negative, default=0.01)


class L1L2(Regularizer):
    """`l1 · Σ|x| + l2 · Σx²`."""

    l1: float = arg(non_negative, default=0.0)
    l2: float = arg(non_negative, default=0.0)


class OrthogonalRegularizer(Regularizer):
    """`factor` times the mean of `|cosine|` of the angles between any two rows of a weight with two axes; 0 where there
    is one row alone. It is no `activity_regularizer`.

    Args:
        factor: >= 0.
        mode: "rows", or "columns" in their place.

    Raises:
        ValueError: a weight (or the array in a call) has not two axes.

    Example:
        >>> from seqcore import regularizers
        >>> regularizers.OrthogonalRegularizer(0.5)([[1.0, 0.0], [0.0, 2.0]])
        0.0
        >>> regularizers.OrthogonalRegularizer(0.5)([[1.0, 0.0], [-3.0, 0.0]])
        0.5
    """

    factor: float = arg(non_negative, default=0.01)
    mode: str = arg(one_of("rows", "columns"), default="rows")


_registry: Registry[Regularizer] = Registry(
    "regularizer",
    Regularizer,
    [L1, L2, L1L2, OrthogonalRegularizer],
    l1=L1,
    l2=L2,
    l1_l2=lambda: L1L2(0.01, 0.01),
    l1l2=L1L2,
)
l1, l2, l1_l2, orthogonal_regularizer = L1, L2, L1L2, OrthogonalRegularizer

convert = _registry.convert


def get(identifier: Any) -> Regularizer | None:
    """The regularizer that `identifier` names: a string, a class, an instance or a {"class_name", "config"} dict."""
    return _registry.get(identifier)


def serialize(regularizer: Regularizer) -> dict[str, Any]:
    """The {"class_name", "config"} description."""
    return dict(to_config(regularizer))


def deserialize(config: dict[str, Any]) -> Regularizer:
    """The regularizer of a {"class_name", "config"} description."""
    return _registry.deserialize(config)
