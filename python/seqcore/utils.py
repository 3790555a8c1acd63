"""Small helpers of every training script."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import numpy as np

from . import _engine
from ._custom_objects import (
    CustomObjectScope,
    custom_object_scope,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
)
from ._data import PyDataset
from ._names import clear_session
from ._progress import Progbar
from ._timeseries import timeseries_dataset_from_array
from ._variable import Variable

__all__ = [
    "CustomObjectScope", "Progbar", "PyDataset", "Sequence", "Variable", "clear_session", "custom_object_scope",
    "get_custom_objects", "get_registered_name", "get_registered_object", "normalize", "pad_sequences",
    "register_keras_serializable", "set_random_seed", "timeseries_dataset_from_array", "to_categorical",
]  # fmt: skip

Sequence = PyDataset  # its older name


def set_random_seed(seed: int) -> None:
    """Seeds Python's `random`, NumPy and seqcore. What follows in the process (initial weights, shuffles, dropout) is
    the same, to the bit, each time.

    Args:
        seed: an integer in [0, 2**32).
    """
    if isinstance(seed, (bool, np.bool_)) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
        raise ValueError(f"`seed`: expected an integer in [0, 2**32), got {seed!r}")
    random.seed(int(seed))
    np.random.seed(int(seed))
    _engine.seed_stream(int(seed))


def to_categorical(x: Any, num_classes: int | None = None) -> _engine.Array:
    """One-hot rows for class indices.

    Args:
        x: integers of any shape; a last axis of 1 is dropped.
        num_classes: how many classes; the largest index + 1 where not given.

    Example:
        >>> from seqcore.utils import to_categorical
        >>> to_categorical([0, 2]).tolist()
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    labels = _engine.to_int(x, "x", "class indices")
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    classes = int(labels.max()) + 1 if num_classes is None and labels.size else int(num_classes or 0)
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(f"`x`: expected class indices in [0, {classes}), got {labels.min()} to {labels.max()}")
    return np.eye(classes, dtype=np.float64)[labels]


def normalize(x: Any, axis: int = -1, order: float = 2) -> _engine.Array:
    """`x` divided by its norms along an axis; rows of zeros stay.

    Args:
        x: an array.
        axis: the axis.
        order: the order of the norm.
    """
    array = _engine.to_array(x, "x")
    norms = np.atleast_1d(np.linalg.norm(array, order, axis))
    norms[norms == 0] = 1
    return np.asarray(array / np.expand_dims(norms, axis))


def pad_sequences(
    sequences: Iterable[Any],
    maxlen: int | None = None,
    dtype: Any = "int32",
    padding: str = "pre",
    truncating: str = "pre",
    value: float = 0.0,
) -> _engine.Array:
    """Sequences of different lengths as one array.

    Args:
        sequences: lists.
        maxlen: the length of all; the longest one's where not given.
        dtype: of the result.
        padding: "pre" or "post": where short ones are filled.
        truncating: "pre" or "post": where long ones are cut.
        value: what to fill with.

    Example:
        >>> from seqcore.utils import pad_sequences
        >>> pad_sequences([[1], [2, 3]]).tolist()
        [[0, 1], [2, 3]]
    """
    for name, choice in (("padding", padding), ("truncating", truncating)):
        if choice not in ("pre", "post"):
            raise ValueError(f"`{name}`: expected 'pre' or 'post', got {choice!r}")
    rows = list(sequences)
    for i, row in enumerate(rows):
        if not hasattr(row, "__len__"):
            raise ValueError(f"`sequences`: expected a list of lists, got {row!r} at {i}")
    if maxlen is None:
        maxlen = max((len(row) for row in rows), default=0)
    sample: tuple[int, ...] = next((np.shape(row)[1:] for row in rows if len(row)), ())
    out = np.full((len(rows), maxlen, *sample), value, dtype)
    for i, row in enumerate(rows):
        if not len(row) or maxlen == 0:
            continue
        kept = np.asarray(row[-maxlen:] if truncating == "pre" else row[:maxlen], dtype)
        if kept.shape[1:] != sample:
            raise ValueError(f"`sequences`: expected steps of shape {sample}, got {kept.shape[1:]} at {i}")
        if padding == "pre":
            out[i, -len(kept) :] = kept
        else:
            out[i, : len(kept)] = kept
    return out
