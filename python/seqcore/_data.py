"""What `fit`, `evaluate` and `predict` take, as batches: arrays, generators, `PyDataset`s. Private."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _engine

Rows = NDArray[np.int64] | None
# x, y, sample_weight as the core takes them, and which of their rows make the batch
Batch = tuple[Any, Any, Any, Rows]
Prepare = Callable[[Any, Any, Any], tuple[Any, Any, Any]]
NO_BATCHES = "`x`: the data set gave no batches"


class PyDataset:
    """A data set given batch by batch: subclass it, with `__len__` (the number of batches) and `__getitem__`.

    Args:
        workers, use_multiprocessing, max_queue_size: accepted as Keras's; batches are made in the calling thread.
    """

    def __init__(self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10) -> None:
        self.workers, self.use_multiprocessing, self.max_queue_size = workers, use_multiprocessing, max_queue_size

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__}.__getitem__")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__}.__len__")

    def on_epoch_begin(self) -> None:
        """Before an epoch."""

    def on_epoch_end(self) -> None:
        """After an epoch."""


def check_source(x: Any, name: str) -> None:
    """TypeError where `x` is neither an array nor a data set, though it may look like one."""
    if isinstance(x, (str, bytes, dict)) or np.isscalar(x):
        raise TypeError(f"`{name}`: expected an array or a data set, got {type(x).__name__}")


def is_array(x: Any) -> bool:
    return isinstance(x, (np.ndarray, list, tuple)) or hasattr(x, "__array__") or hasattr(x, "__dlpack__")


def unpack(item: Any) -> tuple[Any, Any, Any]:
    """(x,), (x, y) or (x, y, sample_weight) as a data set gives them; anything else is x alone."""
    if not isinstance(item, (tuple, list)):
        return item, None, None
    if not 1 <= len(item) <= 3:
        raise ValueError(f"expected a data set to give (x, y) or (x, y, sample_weight), got {len(item)} parts")
    x, y, w = (*item, None, None)[:3]
    return x, y, w


class ArrayBatches:
    """Arrays in memory, prepared once; a batch is a set of row numbers."""

    short = ran_out = False

    def __init__(self, x: Any, y: Any, weight: Any, batch_size: int, steps: int | None, shuffle: bool | str,
                 order: Callable[[int], NDArray[np.int64]]) -> None:  # fmt: skip
        self.data = (x, y, weight)
        self.n, self.batch_size, self.shuffle, self._order = len(x), batch_size, shuffle, order
        whole = -(-self.n // batch_size)
        self.steps: int | None = steps or whole
        self._limited = steps is not None
        self._current: Iterator[Batch] = iter(())

    def _pass(self) -> Iterator[Batch]:
        x, y, weight = self.data
        size = self.batch_size
        if self.shuffle == "batch":
            starts = self._order(-(-self.n // size)) * size
            rows = np.concatenate([np.arange(s, min(s + size, self.n), dtype=np.int64) for s in starts])
            bounds = np.cumsum([0, *(min(s + size, self.n) - s for s in starts)])
            for a, b in pairwise(bounds):
                yield x, y, weight, rows[a:b]
            return
        rows = self._order(self.n) if self.shuffle else np.arange(self.n, dtype=np.int64)
        for start in range(0, self.n, size):
            yield x, y, weight, rows[start : start + size]

    def rewind(self) -> None:
        """The next epoch begins at the first batch."""
        self._current = iter(())

    def epoch(self) -> Iterator[Batch]:
        """The batches of one epoch. With a number of steps given, an epoch goes on where the last one stopped, and ends
        early where the data end, as Keras's does."""
        return self._steps() if self._limited else self._pass()

    def _steps(self) -> Iterator[Batch]:
        assert self.steps is not None
        for done in range(self.steps):
            batch = next(self._current, None)
            if batch is None:
                self._current = self._pass()
                if done:
                    return
                batch = next(self._current)
            yield batch


def _length(source: Any) -> int | None:
    try:
        return len(source)
    except TypeError:  # it has none, or does not know (some loaders')
        return None


class StreamBatches:
    """A generator, any other iterable, or something with `__len__` and `__getitem__`."""

    def __init__(self, source: Any, prepare: Prepare, steps: int | None, shuffle: bool | str,
                 order: Callable[[int], NDArray[np.int64]]) -> None:  # fmt: skip
        self.source, self._prepare, self._shuffle, self._order = source, prepare, shuffle, order
        self.indexed = hasattr(source, "__getitem__") and hasattr(source, "__len__")
        if not self.indexed and not hasattr(source, "__iter__"):
            raise TypeError(f"`x`: expected an array, an iterable or a PyDataset, got {type(source).__name__}")
        self.limit = steps
        self.steps = steps or _length(source)
        if self.indexed and len(source) == 0:
            raise ValueError(NO_BATCHES)
        self._current: Iterator[Any] | None = None
        self.short = False  # the last epoch had no batches, or fewer than the steps asked for
        self.ran_out = False  # and there are no more to come

    def _items(self) -> Iterator[Any]:
        if not self.indexed:
            return iter(self.source)
        count = len(self.source)
        order = self._order(count) if self._shuffle else range(count)
        return (self.source[int(i)] for i in order)

    def rewind(self) -> None:
        """The next epoch begins at the first batch, where the source can."""
        if self._begins_anew():
            self._current = None

    def epoch(self) -> Iterator[Batch]:
        """The batches of one epoch. With a number of steps given, an epoch goes on where the last one stopped, and ends
        early where the data end, as Keras's does; what can begin anew does so in the next."""
        if hasattr(self.source, "on_epoch_begin"):
            self.source.on_epoch_begin()
        items = self._current if self._current is not None else self._items()
        went_on, self._current = self._current is not None, items if self.limit else None
        done, ended = 0, False
        while self.limit is None or done < self.limit:
            try:
                item = next(items)
            except StopIteration:
                if done == 0 and went_on and self._begins_anew():  # the last epoch took all there was
                    went_on, items = False, self._items()
                    self._current = items
                    continue
                ended = True
                break
            done += 1
            yield (*self._prepare(*unpack(item)), None)
        self.short = done == 0 or (self.limit is not None and done < self.limit)
        self.ran_out = self.short and not (done and self._begins_anew())
        if ended and not self.ran_out:
            self._current = None
        if hasattr(self.source, "on_epoch_end"):
            self.source.on_epoch_end()

    def _begins_anew(self) -> bool:
        return self.indexed or iter(self.source) is not self.source


def put_back(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    """The iterator as it was before `first` was taken from it."""
    yield first
    yield from rest


def split_tail(arrays: list[Any], share: float) -> tuple[list[Any], list[Any]]:
    """The first rows, and the last `share` of them, of each array (None stays None)."""
    n = len(arrays[0])
    at = int(np.floor(n * (1.0 - share)))
    if not 0 < at < n:
        raise ValueError(
            f"`validation_split`: {n} samples cannot be split into training and validation data by {share}; "
            f"give more data or another share"
        )
    return [None if a is None else a[:at] for a in arrays], [None if a is None else a[at:] for a in arrays]


def check_split(value: Any) -> float:
    if value is None:
        return 0.0
    if not isinstance(value, (int, float, np.integer, np.floating)) or not 0.0 <= value <= 1.0:
        raise ValueError(f"`validation_split`: expected a number between 0 and 1, got {value!r}")
    return float(value)


def class_weights(y: Any, weights: Any, labels: bool) -> _engine.Float:
    """`class_weight` as sample weights: of each label, or of the largest entry of a one-hot y. Classes that are not
    named weigh 1."""
    if not isinstance(weights, dict) or not all(
        isinstance(k, (int, float, np.integer, np.floating)) and float(k).is_integer() for k in weights
    ):
        raise ValueError(f"`class_weight`: expected a dict from class indices to weights, got {weights!r}")
    classes = np.asarray(y)
    if not labels and classes.ndim > 1:
        classes = classes.argmax(-1) if classes.shape[-1] != 1 else classes[..., 0]
    out = np.ones(classes.shape, np.float32)
    rounded = np.round(classes)
    for index, weight in weights.items():
        try:
            finite = np.isfinite(value := float(weight))
        except (TypeError, ValueError):
            finite = False
        if not finite:
            raise ValueError(f"`class_weight`: expected finite numbers, got {weight!r} for class {index}")
        out[rounded == index] = value
    return out
