"""Activation functions, by name. Each takes an array and gives a float32 array; the last axis is the feature axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from . import _engine
from ._config import Configurable, boolean, integer, non_negative, number, positive

__all__ = ["deserialize", "get", "glu", "serialize", "threshold"]


class Activation:
    """A named activation function. Called on an array some take parameters, which layers' activations do not have:

    - relu, leaky_relu and elu those of the layers ReLU, LeakyReLU and ELU;
    - softmax, log_softmax and sparsemax an `axis`, or several; None stands for all;
    - gelu `approximate`: whether it is `x · sigmoid(1.5958 (x + 0.044715 x³))`, which is Keras's form with tanh;
    - celu `alpha`, > 0: `alpha · (exp(x / alpha) - 1)` where x is negative;
    - hard_shrink and soft_shrink `threshold`: up to what size numbers become 0; soft_shrink's is >= 0;
    - squareplus `b`, >= 0: `(x + sqrt(x² + b)) / 2`.

    Raises:
        TypeError: the function has no such parameter, or was given it twice.
        ValueError: a parameter's value is none that it may have.

    Example:
        >>> from seqcore import activations
        >>> activations.relu([-1.0, 2.0]).tolist()
        [0.0, 2.0]
        >>> activations.relu([-1.0, 2.0, 7.0], negative_slope=0.5, max_value=6).tolist()
        [-0.5, 2.0, 6.0]
        >>> activations.soft_shrink([-1.0, 0.25, 2.0], threshold=0.25).tolist()
        [-0.75, 0.0, 1.75]
    """

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, x: Any, *values: Any, **parameters: Any) -> _engine.Float:
        known = _PARAMETERS.get(self.__name__, ())
        if len(values) > len(known):
            raise TypeError(f"{self.__name__}: expected `x` and {list(known)}, got {len(values)} more values")
        twice = sorted(set(known[: len(values)]) & set(parameters))
        if twice:
            raise TypeError(f"{self.__name__}: expected each argument once, got {twice} twice")
        parameters = {**dict(zip(known, values, strict=False)), **parameters}
        if not parameters:
            return _engine.activation(self.__name__, x)
        if known == ("axis",) and set(parameters) == {"axis"}:
            return self._along(_engine.to_float(x, "x"), parameters["axis"])
        formula = _formulas.get(self.__name__)
        if self.__name__ not in _with_parameters and (formula is None or not set(parameters) <= set(known)):
            some = f"arguments but `x` and {list(known)}" if known else "no arguments but `x`"
            raise TypeError(f"{self.__name__}: expected {some}, got {sorted(parameters)}")
        array = _engine.to_float(x, "x")
        if formula is not None:
            return formula(array, **parameters)
        if not array.size:
            return np.empty_like(array)
        y: _engine.Float = _with_parameters[self.__name__](**parameters)(array.reshape(1, -1))
        return y.reshape(array.shape)

    def _along(self, array: _engine.Float, axis: Any) -> _engine.Float:
        if axis is None:
            return _engine.activation(self.__name__, array.reshape(-1)).reshape(array.shape)
        given = axis if isinstance(axis, (list, tuple)) else (axis,)
        axes = [integer(a, f"`axis` of {self.__name__}") for a in given]
        if (
            not axes
            or any(not -array.ndim <= a < array.ndim for a in axes)
            or len({a % array.ndim for a in axes}) < len(axes)
        ):
            raise ValueError(
                f"`axis` of {self.__name__}: expected axes of an array of shape {array.shape}, got {axis!r}"
            )
        last = range(-len(axes), 0)
        moved = np.moveaxis(array, axes, last)
        rows = moved.reshape(*moved.shape[: moved.ndim - len(axes)], -1)
        return np.ascontiguousarray(
            np.moveaxis(_engine.activation(self.__name__, rows).reshape(moved.shape), last, axes)
        )

    def __repr__(self) -> str:
        return f"<activation {self.__name__}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return get, (self.__name__,)


def _gelu(x: _engine.Float, approximate: Any) -> _engine.Float:
    """Hendrycks and Gimpel, 2016."""
    if not boolean(approximate, "`approximate` of gelu"):
        return _engine.activation("gelu", x)
    with np.errstate(over="ignore", invalid="ignore"):
        inner = np.float32(math.sqrt(8 / math.pi)) * (x + np.float32(0.044715) * (x * x * x))
        return np.asarray(x * _engine.activation("sigmoid", inner))


def _celu(x: _engine.Float, alpha: Any) -> _engine.Float:
    """Barron, 2017."""
    a = np.float32(positive(alpha, "`alpha` of celu"))
    if a == 1:
        return _engine.activation("celu", x)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return np.where(x > 0, x, a * _engine.activation("elu", x / a))


def _hard_shrink(x: _engine.Float, threshold: Any) -> _engine.Float:
    return np.where(np.abs(x) <= np.float32(number(threshold, "`threshold` of hard_shrink")), np.float32(0), x)


def _soft_shrink(x: _engine.Float, threshold: Any) -> _engine.Float:
    limit = np.float32(non_negative(threshold, "`threshold` of soft_shrink"))
    return np.asarray(x - np.clip(x, -limit, limit))


def _squareplus(x: _engine.Float, b: Any) -> _engine.Float:
    """Barron, 2021."""
    if non_negative(b, "`b` of squareplus") == 4:
        return _engine.activation("squareplus", x)
    wide = x.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(0.5 * (wide + np.sqrt(wide * wide + float(b))), np.float32)


# Of an activation by its name the layer that is the same with parameters: the layers say so, above this module.
_with_parameters: dict[str, Callable[..., Any]] = {}
# The same, where there is no such layer; the one parameter's default is the activation without it, to the bit.
_formulas: dict[str, Callable[..., _engine.Float]] = {
    "celu": _celu, "gelu": _gelu, "hard_shrink": _hard_shrink, "soft_shrink": _soft_shrink, "squareplus": _squareplus,
}  # fmt: skip

_PARAMETERS = {
    "relu": ("negative_slope", "max_value", "threshold"), "leaky_relu": ("negative_slope",), "elu": ("alpha",),
    "softmax": ("axis",), "log_softmax": ("axis",), "sparsemax": ("axis",), "celu": ("alpha",),
    "gelu": ("approximate",), "hard_shrink": ("threshold",), "soft_shrink": ("threshold",), "squareplus": ("b",),
}  # fmt: skip
_functions = {name: Activation(name) for name in _engine.activation_names()}
_functions["celu"] = Activation("celu")  # elu as such; only called on an array it may have another alpha
_aliases = {"swish": "silu", "hard_swish": "hard_silu"}
# Those that are functions on arrays alone, and why.
_REFUSED = {
    "glu": "it halves the last axis, and no layer's activation may",
    "threshold": "it has no default arguments; layers.ReLU(threshold=...) has them",
}
for _alias, _name in _aliases.items():
    if _name in _functions:
        _functions[_alias] = _functions[_name]


def __getattr__(name: str) -> Activation:
    if name in _functions:
        return _functions[name]
    raise AttributeError(f"module 'seqcore.activations' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_functions])


def glu(x: Any, axis: int = -1) -> _engine.Float:
    """`a · sigmoid(b)`, a and b the halves of `x` (Dauphin and others, 2016). It is no layer's activation.

    Args:
        x: an array.
        axis: which of its axes is halved.

    Raises:
        ValueError: there is no such axis, or its size is odd.

    Example:
        >>> from seqcore import activations
        >>> activations.glu([[1.0, 2.0, 0.0, 0.0]]).tolist()
        [[0.5, 1.0]]
    """
    array, at = _engine.to_float(x, "x"), integer(axis, "`axis` of glu")
    if not -array.ndim <= at < array.ndim or array.shape[at] % 2:
        raise ValueError(f"glu: expected an axis of even size, got axis {axis} of an array of shape {array.shape}")
    a, b = np.split(array, 2, at)
    return np.multiply(a, _engine.activation("sigmoid", b), dtype=np.float32) if a.size else a.copy()


def threshold(x: Any, threshold: float, default_value: float) -> _engine.Float:
    """`x` where it is above `threshold`, else `default_value`. It is no layer's activation; `layers.ReLU(threshold=…)`
    is a layer much like it.

    Args:
        x: an array.
        threshold: a number.
        default_value: a number.

    Example:
        >>> from seqcore import activations
        >>> activations.threshold([-1.0, 0.5, 2.0], 0.5, -3).tolist()
        [-3.0, -3.0, 2.0]
    """
    array = _engine.to_float(x, "x")
    limit, below = number(threshold, "`threshold`"), number(default_value, "`default_value` of threshold")
    return np.where(array > np.float32(limit), array, np.float32(below))


def get(identifier: Any) -> Activation:
    """The activation that `identifier` names: None ("linear"), a name, or one of this module's functions."""
    return convert(identifier, "activation")


def convert(identifier: Any, where: str) -> Activation:
    if identifier is None:
        return _functions["linear"]
    if isinstance(identifier, Activation):
        return identifier
    if isinstance(identifier, dict):  # Keras's newer files
        identifier = identifier.get("config", identifier.get("class_name"))
    if isinstance(identifier, str) and identifier in _functions:
        return _functions[identifier]
    if isinstance(identifier, Configurable):  # a layer
        name = getattr(identifier, "named_activation", lambda: None)()
        if name is not None:
            return _functions[name]
        raise ValueError(
            f"{where}: expected an activation that has a name, got the layer {identifier!r}: let it stand after this "
            f"one, as a layer of its own"
        )
    if identifier is glu or identifier is threshold:
        identifier = identifier.__name__
    if isinstance(identifier, str) and identifier in _REFUSED:
        raise ValueError(f"{where}: the activation {identifier!r} is not supported: {_REFUSED[identifier]}")
    raise ValueError(f"{where}: unknown activation {identifier!r}; known: {', '.join(sorted(_functions))}")


def serialize(activation: Activation) -> str:
    """The activation's name."""
    return get(activation).__name__


def deserialize(config: Any) -> Activation:
    """The activation of that name."""
    return get(config)
