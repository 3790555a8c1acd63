"""The door to the compiled core: the only module that imports `_core`. Converts and checks arrays, keeps the seeds.
Private: imported by the public modules."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _core

CoreModel = _core.Model
CoreOptimizer = _core.Optimizer
CoreStream = _core.Stream
CoreWeight = _core.Weight
PRECISIONS = _core.PRECISIONS
Float = NDArray[np.float32]
Array = NDArray[Any]
__version__: str = _core.__version__

show_config = _core.show_config
get_num_threads = _core.get_num_threads
permutation = _core.permutation
read_safetensors = _core.read_safetensors
write_file = _core.write_file
write_safetensors = _core.write_safetensors
measure_read = _core.measure_read


def set_num_threads(n: int) -> None:
    """Sets how many threads computations may use.

    Args:
        n: a positive integer.
    """
    _core.set_num_threads(check_count(n, "n"))


def check_count(value: Any, name: str, low: int = 1) -> int:
    """`value` if it is an integer of at least `low`, else ValueError."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < low:
        raise ValueError(f"`{name}`: expected an integer >= {low}, got {value!r}")
    if value >= 2**31:
        raise ValueError(f"`{name}`: expected an integer below 2**31, got {value!r}")
    return int(value)


def optional_count(value: Any, name: str) -> int | None:
    return None if value is None else check_count(value, name)


def check_precision(precision: str) -> str:
    """`precision` if weights can be read in it, else ValueError."""
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ValueError(f"`precision`: expected one of {PRECISIONS}, got {precision!r}")
    return precision


def library_folder() -> str:
    """Where the compiled parts of the package lie."""
    return os.path.dirname(os.path.abspath(_core.__file__))


# ---- seeds

_stream: tuple[int, int] | None = None  # (seed, how many were drawn) after set_random_seed


def seed_stream(seed: int) -> None:
    """Starts the stream from which models, initializers and dropout draw their seeds."""
    global _stream
    _stream = (seed, 0)


def next_seed() -> int:
    """The next seed of the stream, or fresh entropy where none was started. Always below 2**53."""
    global _stream
    if _stream is None:
        return int.from_bytes(os.urandom(8), "little") >> 11
    seed, drawn = _stream
    _stream = (seed, drawn + 1)
    high, low = (int(u * 2**24) for u in _core.random_uniform(2, seed, drawn))
    return high << 24 | low


# ---- arrays


def to_array(value: Any, name: str) -> Array:
    """Any real numeric array-like as a NumPy array, whatever its layout; the error names the argument."""
    if isinstance(value, np.ndarray):
        array = value
    elif hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        try:
            array = np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError) as error:
            raise TypeError(f"`{name}`: cannot read this {type(value).__name__} through DLPack: {error}") from error
    else:
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"`{name}`: expected a regular array, got {type(value).__name__}: {error}") from None
        except (TypeError, RuntimeError) as error:
            raise TypeError(f"`{name}`: expected an array, got {type(value).__name__}: {error}") from None
    other = ""
    if array.dtype == object and array.ndim and hasattr(value, "__array__") and array is not value:
        # A table whose columns have several dtypes gives this.
        strange = [v for v in array.flat if not isinstance(v, (bool, int, float, np.bool_, np.integer, np.floating))]
        if not strange:
            return array.astype(np.float64)
        other = f" with {strange[0]!r}"
    if array.dtype.kind not in "biuf":
        what = type(value).__name__ if array.ndim == 0 else f"an array of dtype {array.dtype}{other}"
        raise TypeError(f"`{name}`: expected real numbers, got {what}")
    return array


def to_float(value: Any, name: str) -> Float:
    """A C-contiguous float32 array; a copy only where `value` is not one already."""
    if type(value) is np.ndarray and value.dtype == np.float32 and value.flags.c_contiguous and value.flags.aligned:
        return value
    with np.errstate(over="ignore", invalid="ignore"):
        return np.require(to_array(value, name), np.dtype(np.float32), ["C", "A"])


def to_int(value: Any, name: str, what: str) -> NDArray[np.int32]:
    """A C-contiguous int32 array; ValueError where a value is no integer or does not fit. `what` names the values."""
    array = to_array(value, name)
    if array.dtype == np.int32:
        return np.require(array, np.dtype(np.int32), ["C", "A"])
    if array.dtype.kind == "f" and array.size:
        bad = ~(array == np.trunc(array))  # NaN too
        if bad.any():
            raise ValueError(f"`{name}`: expected integer {what}, got {array[bad][0]}")
    if array.dtype.kind != "b" and array.size and not (array.min() >= -(2**31) and array.max() < 2**31):
        raise ValueError(f"`{name}`: expected {what} of 32 bits, got {array.min()} to {array.max()}")
    return np.require(array, np.dtype(np.int32), ["C", "A"])


def to_mask(value: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    array = to_array(value, "mask")
    if array.ndim == len(shape) + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.shape != shape:
        raise ValueError(f"`mask`: expected shape {shape}, got {array.shape}")
    return np.ascontiguousarray(array, np.bool_)


def check_shape(array: Array, expected: tuple[int | None, ...], message: str, empty: bool = False) -> None:
    shape = array.shape
    if shape == expected and 0 not in expected:  # most are
        return
    fits = len(shape) == len(expected)
    for e, n in zip(expected, shape, strict=False):
        fits = fits and (e is None or e == n)
    if not fits:
        raise ValueError(f"{message}: expected shape {expected}, got {shape}")
    if not empty and 0 in shape:
        what = "an empty batch" if shape[0] == 0 else "a zero-length axis"
        raise ValueError(f"{message}: expected shape {expected}, got {what}: {shape}")


# ---- stateless computations


def activation_names() -> list[str]:
    return list(_core.ACTIVATIONS)


def activation(name: str, x: Any) -> Float:
    return _core.activation(name, to_float(x, "x"))


def loss(config: dict[str, Any], y_true: Any, y_pred: Any, sparse: bool) -> Float:
    """Per-sample values, shape `y_pred.shape[:-1]` (of what `same_rank` makes of `y_pred`)."""
    pred = to_float(y_pred, "y_pred")
    if pred.ndim == 0:
        raise ValueError("`y_pred`: expected at least one axis, got a scalar")
    true = to_array(y_true, "y_true")
    if not sparse:
        true, pred = same_rank(true, pred)
    true = fit_target(true, pred.shape, sparse, "y_true")
    ready = to_int(true, "y_true", "class indices") if sparse else to_float(true, "y_true")
    return _core.loss(to_json(config), ready, pred)


def same_rank(a: Array, b: Array) -> tuple[Array, Array]:
    """Keras's rule for arrays whose ranks differ by one: a last axis of 1 is dropped or, where the other one is a
    vector, added there. All else stays."""
    if a.ndim == b.ndim + 1 and a.shape[-1] == 1:
        return (a, b[:, None]) if b.ndim == 1 else (a[..., 0], b)
    if b.ndim == a.ndim + 1 and b.shape[-1] == 1:
        return (a[:, None], b) if a.ndim == 1 else (a, b[..., 0])
    return a, b


def fit_target(y: Array, output: tuple[int | None, ...], sparse: bool, name: str) -> Array:
    """`y` in the shape that belongs to an output: its shape, without the last axis for class indices. A last axis of 1
    may be there or not; anything else is a ValueError."""
    expected = output[:-1] if sparse else output
    if y.ndim == len(expected) + 1 and y.shape[-1] == 1:
        y = y[..., 0]
    elif not sparse and y.ndim == len(output) - 1 and output[-1] == 1:
        y = y[..., None]
    if y.ndim != len(expected) or any(e not in (None, n) for e, n in zip(expected, y.shape, strict=True)):
        raise ValueError(
            f"`{name}`: expected shape {expected} {'of class indices ' if sparse else ''}for an output of shape "
            f"{output}, got {y.shape}"
        )
    return y


def initialize(config: dict[str, Any], shape: tuple[int, ...], seed: int) -> Float:
    return _core.initialize(to_json(config), shape, seed)


def constrain(config: dict[str, Any], w: Any) -> Float:
    return _core.constrain(to_json(config), to_float(w, "w"))


def regularize(config: dict[str, Any], w: Any) -> float:
    return _core.regularize(to_json(config), to_float(w, "w"))


def to_json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def core_optimizer(config: dict[str, Any], shapes: list[tuple[int, ...]]) -> _core.Optimizer:
    return _core.Optimizer(to_json(config), shapes)


def core_model(description: dict[str, Any], seed: int) -> _core.Model:
    return _core.Model(to_json(description), seed)
