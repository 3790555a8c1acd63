"""Initializers: how a weight begins. Samples are a pure function of (seed, shape), the same on every machine."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeGuard

import numpy as np

from . import _engine
from ._config import (
    Configurable,
    Registry,
    arg,
    non_negative,
    number,
    one_of,
    positive,
    seed_or_none,
    sizes,
)

__all__ = [
    "Constant", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "Identity", "Initializer", "LecunNormal",
    "LecunUniform", "Ones", "Orthogonal", "RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling",
    "Zeros", "deserialize", "get", "serialize",
]  # fmt: skip


class Initializer(Configurable):
    """Base of all initializers. A class of your own with its own `__call__(shape, dtype=None)`, like a function or an
    array, is asked where a layer's weights are made. Configs cannot hold such a one: they have null in its place, which
    loads as the layer's default; the weights themselves are saved as any others. `.keras` files are refused.

    Call arguments:
        shape: the shape of the weight.
        dtype: of the array that is returned; float32 where not given. Weights are float32.

    Example:
        >>> from seqcore import initializers
        >>> initializers.Ones()((2, 2)).tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """

    def _description(self) -> dict[str, Any] | None:
        return None if is_own(self) else self._for_core()

    def _for_core(self) -> dict[str, Any]:
        known = next((c for c in _registry.classes.values() if c in type(self).__mro__), None)
        if known is None:
            raise NotImplementedError(f"{type(self).__name__}.__call__")
        config = self.get_config()
        return {"class_name": known.__name__, "config": {k: v for k, v in config.items() if k in known._args}}

    def _setup(self) -> None:
        self._drawn: int | None = None

    def __call__(self, shape: Any, dtype: Any = None) -> _engine.Array:
        try:
            kind = np.dtype(dtype or np.float32)
        except TypeError:
            raise TypeError(f"`dtype`: expected one of NumPy's dtypes, got {dtype!r}") from None
        # Called, one instance gives the same values each time, seeded or not, as Keras's do. Layers do not call it: the
        # core draws, and weights that share an unseeded instance each begin differently.
        if self._drawn is None:
            self._drawn = _engine.next_seed()
        return _engine.initialize(self._for_core(), _check_shape(shape), self._drawn).astype(kind, copy=False)

    def clone(self) -> Initializer:
        """A new initializer with the same config."""
        return self.from_config(self.get_config())


class _Given(Initializer):
    """A function `(shape, dtype=None) -> array` of the user's."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return self.function(shape, dtype=dtype)

    def clone(self) -> Initializer:
        return _Given(self.function)


def _of_array(array: _engine.Array, shape: Any, dtype: Any = None) -> _engine.Array:
    return array.astype(dtype or np.float32)


def is_own(value: Any) -> TypeGuard[Initializer]:
    """Whether it is an initializer of the user's: asked in Python, unknown to the core."""
    return isinstance(value, Initializer) and type(value).__call__ is not Initializer.__call__


def _check_shape(value: Any) -> tuple[int, ...]:
    known = sizes(value, "`shape`")
    if None in known:
        raise ValueError(f"`shape`: expected known sizes, got {known}")
    return tuple(n for n in known if n is not None)


class Zeros(Initializer):
    """All zeros."""


class Ones(Initializer):
    """All ones."""


def _numbers(value: Any, where: str) -> Any:
    if not isinstance(value, (list, tuple, np.ndarray)):
        return number(value, where)
    array = _engine.to_float(value, where.strip("`"))
    if not np.isfinite(array).all():
        raise ValueError(f"{where}: expected finite numbers, got {value!r}")
    return array.tolist()


class Constant(Initializer):
    """All equal to `value`: a number, or an array that is broadcast."""

    value: float | list[Any] = arg(_numbers, default=0.0)


class Identity(Initializer):
    """`gain` on the diagonal of a matrix, zero elsewhere."""

    gain: float = arg(number, default=1.0)


class RandomUniform(Initializer):
    """Uniform in [minval, maxval)."""

    minval: float = arg(number, default=-0.05)
    maxval: float = arg(number, default=0.05)
    seed: int | None = arg(seed_or_none, default=None)


class RandomNormal(Initializer):
    """Normal.

    Args:
        mean: the mean.
        stddev: the standard deviation.
        seed: an integer, for values of its own.
    """

    mean: float = arg(number, default=0.0)
    stddev: float = arg(non_negative, default=0.05)
    seed: int | None = arg(seed_or_none, default=None)


class TruncatedNormal(Initializer):
    """Normal, with what lies beyond two standard deviations drawn again.

    Args:
        mean, stddev: of the normal before anything is drawn again.
        seed: an integer, for values of its own.
    """

    mean: float = arg(number, default=0.0)
    stddev: float = arg(non_negative, default=0.05)
    seed: int | None = arg(seed_or_none, default=None)


class VarianceScaling(Initializer):
    """Values of variance scale / n, with n by the weight's shape, so that signals keep their size.

    Args:
        scale: the factor.
        mode: what n is: "fan_in" the inputs of a unit, "fan_out" its outputs, "fan_avg" the mean of both.
        distribution: "truncated_normal" (or "normal"), "untruncated_normal" or "uniform".
        seed: an integer, for values of its own.
    """

    scale: float = arg(positive, default=1.0)
    mode: str = arg(one_of("fan_in", "fan_out", "fan_avg"), default="fan_in")
    distribution: str = arg(
        one_of("truncated_normal", "untruncated_normal", "normal", "uniform"), default="truncated_normal"
    )
    seed: int | None = arg(seed_or_none, default=None)


class _Scaled(Initializer):
    seed: int | None = arg(seed_or_none, default=None)


class GlorotUniform(_Scaled):
    """Uniform within ±sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""


class GlorotNormal(_Scaled):
    """Truncated normal with variance 2 / (fan_in + fan_out) (Glorot and Bengio, 2010)."""


class HeUniform(_Scaled):
    """Uniform within ±sqrt(6 / fan_in) (He et al., 2015)."""


class HeNormal(_Scaled):
    """Truncated normal with variance 2 / fan_in (He et al., 2015)."""


class LecunUniform(_Scaled):
    """Uniform within ±sqrt(3 / fan_in) (LeCun et al., 1998)."""


class LecunNormal(_Scaled):
    """Truncated normal with variance 1 / fan_in (LeCun et al., 1998)."""


class Orthogonal(Initializer):
    """A random matrix with orthonormal rows or columns, times `gain` (Saxe et al., 2014)."""

    gain: float = arg(number, default=1.0)
    seed: int | None = arg(seed_or_none, default=None)


_registry: Registry[Initializer] = Registry(
    "initializer",
    Initializer,
    [Zeros, Ones, Constant, Identity, RandomUniform, RandomNormal, TruncatedNormal, VarianceScaling, GlorotUniform,
     GlorotNormal, HeUniform, HeNormal, LecunUniform, LecunNormal, Orthogonal],
    IdentityInitializer=Identity, OrthogonalInitializer=Orthogonal,
    uniform=RandomUniform, normal=RandomNormal, zero=Zeros, one=Ones, eye=Identity,
)  # fmt: skip
zeros, ones, constant, identity = Zeros, Ones, Constant, Identity
random_uniform, random_normal, truncated_normal = RandomUniform, RandomNormal, TruncatedNormal
variance_scaling, orthogonal = VarianceScaling, Orthogonal
IdentityInitializer, OrthogonalInitializer = Identity, Orthogonal  # Keras has both names
glorot_uniform, glorot_normal = GlorotUniform, GlorotNormal
he_uniform, he_normal, lecun_uniform, lecun_normal = HeUniform, HeNormal, LecunUniform, LecunNormal


def convert(value: Any, where: str = "") -> Initializer | None:
    """As an argument's `convert`: what `get` takes."""
    if isinstance(value, type) and not issubclass(value, Initializer):
        value = value()
    if isinstance(value, np.ndarray) or (hasattr(value, "shape") and hasattr(value, "__array__")):
        array = _engine.to_array(value, where.strip("`").partition("`")[0] or "initializer")
        return _Given(functools.partial(_of_array, array))
    if callable(value) and not isinstance(value, (type, Initializer)):
        return _Given(value)
    found = _registry.get(value, where)
    if found is not None and not is_own(found) and not isinstance(found, tuple(_registry.classes.values())):
        raise ValueError(
            f"{where or '`identifier`'}: expected an initializer, got {type(found).__name__}, which has no "
            f"`__call__` of its own"
        )
    return found


def get(identifier: Any) -> Initializer | None:
    """The initializer that `identifier` stands for: a string, a class, an instance, a {"class_name", "config"} dict, a
    function `(shape, dtype=None) -> array` or an array."""
    return convert(identifier)


def serialize(initializer: Initializer) -> dict[str, Any]:
    """The {"class_name", "config"} description; ValueError for a function or an array, which has none."""
    if isinstance(initializer, _Given):
        raise ValueError("`initializer`: expected an initializer with a config, got a function or an array")
    return {"class_name": type(initializer).__name__, "config": initializer.get_config()}


def deserialize(config: dict[str, Any]) -> Initializer:
    """The initializer of a {"class_name", "config"} description."""
    return _registry.deserialize(config)
