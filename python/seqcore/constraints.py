"""Constraints: projections applied to a weight after each update."""

from __future__ import annotations

from typing import Any

from . import _engine
from ._config import Configurable, Registry, arg, fraction, integer, non_negative, to_config

__all__ = ["Constraint", "MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm", "deserialize", "get", "serialize"]


def _axes(value: Any, where: str) -> int | list[int] | None:
    if value is None:
        return None
    return [integer(axis, where) for axis in value] if isinstance(value, (list, tuple)) else integer(value, where)


class Constraint(Configurable):
    """Base of all constraints.

    Call arguments:
        w: a weight.

    Example:
        >>> from seqcore import constraints
        >>> constraints.NonNeg()([-1.0, 2.0]).tolist()
        [0.0, 2.0]
    """

    def __call__(self, w: Any) -> _engine.Float:
        return _engine.constrain(dict(to_config(self)), w)


class MaxNorm(Constraint):
    """Norms along `axis`, one axis or a list or None for all, are at most `max_value`."""

    max_value: float = arg(non_negative, default=2)
    axis: int | list[int] | None = arg(_axes, default=0)


class NonNeg(Constraint):
    """No value is negative."""


class UnitNorm(Constraint):
    """Norms along `axis`, one axis or a list or None for all, are one."""

    axis: int | list[int] | None = arg(_axes, default=0)


class MinMaxNorm(Constraint):
    """Norms along `axis`, one axis or a list or None for all, move into [min_value, max_value], by the share `rate` of
    the way."""

    min_value: float = arg(non_negative, default=0.0)
    max_value: float = arg(non_negative, default=1.0)
    rate: float = arg(fraction, default=1.0)
    axis: int | list[int] | None = arg(_axes, default=0)


_registry: Registry[Constraint] = Registry("constraint", Constraint, [MaxNorm, NonNeg, UnitNorm, MinMaxNorm])
max_norm, non_neg, unit_norm, min_max_norm = MaxNorm, NonNeg, UnitNorm, MinMaxNorm

convert = _registry.convert


def get(identifier: Any) -> Constraint | None:
    """The constraint that `identifier` names: a string, a class, an instance or a {"class_name", "config"} dict."""
    return _registry.get(identifier)


def serialize(constraint: Constraint) -> dict[str, Any]:
    """The {"class_name", "config"} description."""
    return dict(to_config(constraint))


def deserialize(config: dict[str, Any]) -> Constraint:
    """The constraint of a {"class_name", "config"} description."""
    return _registry.deserialize(config)
