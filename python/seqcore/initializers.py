"""Initializers: how a weight begins. Samples are a pure function of (seed, shape), the same on every machine."""

from __future__ import annotations

from typing import Any

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
    to_config,
)

__all__ = [
    "Constant", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "Identity", "Initializer", "LecunNormal",
    "LecunUniform", "Ones", "Orthogonal", "RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling",
    "Zeros", "deserialize", "get", "serialize",
]  # fmt: skip


class Initializer(Configurable):
    """Base of all initializers.

    Call arguments:
        shape: the shape of the weight.
        dtype: of the array that is returned; float32 where not given. Weights are float32.

    Example:
        >>> from seqcore import initializers
        >>> initializers.Ones()((2, 2)).tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """

    def _setup(self) -> None:
        self._drawn: int | None = None

    def __call__(self, shape: Any, dtype: Any = None) -> _engine.Array:
        try:
            kind = np.dtype(dtype or np.float32)
        except TypeError:
            raise TypeError(f"`dtype`: expected one of NumPy's dtypes, got {dtype!r}") from None
        # One instance gives the same values at each call, seeded or not, as Keras's do.
        if self._drawn is None:
            self._drawn = _engine.next_seed()
        return _engine.initialize(dict(to_config(self)), _check_shape(shape), self._drawn).astype(kind, copy=False)

    def clone(self) -> Initializer:
        """A new initializer with the same config."""
        return self.from_config(self.get_config())


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
    """Normal with the given mean and standard deviation."""

    mean: float = arg(number, default=0.0)
    stddev: float = arg(non_negative, default=0.05)
    seed: int | None = arg(seed_or_none, default=None)


class TruncatedNormal(Initializer):
    """Normal, with what lies beyond two standard deviations drawn again."""

    mean: float = arg(number, default=0.0)
    stddev: float = arg(non_negative, default=0.05)
    seed: int | None = arg(seed_or_none, default=None)


class VarianceScaling(Initializer):
    """Scales the spread by fan-in, fan-out or their mean, so that signals keep their size."""

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

convert = _registry.convert


def get(identifier: Any) -> Initializer | None:
    """The initializer that `identifier` names: a string, a class, an instance or a {"class_name", "config"} dict."""
    return _registry.get(identifier)


def serialize(initializer: Initializer) -> dict[str, Any]:
    """The {"class_name", "config"} description."""
    return dict(to_config(initializer))


def deserialize(config: dict[str, Any]) -> Initializer:
    """The initializer of a {"class_name", "config"} description."""
    return _registry.deserialize(config)
