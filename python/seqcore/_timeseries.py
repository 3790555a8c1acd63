"""Windows over a series as a data set."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _engine
from ._data import PyDataset


class _Windows(PyDataset):
    """Batches of windows, cut when asked for."""

    def __init__(self, data: _engine.Array, targets: _engine.Array | None, starts: Any, offsets: Any,
                 batch_size: int | None, generator: np.random.Generator | None) -> None:  # fmt: skip
        super().__init__()
        self._data, self._targets, self._starts, self._offsets = data, targets, starts, offsets
        self._batch_size, self._generator = batch_size, generator
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self._starts) // (self._batch_size or 1))

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        size = self._batch_size
        starts = self._starts[index] if size is None else self._starts[index * size : (index + 1) * size]
        windows = self._data[starts[..., None] + self._offsets]
        return windows if self._targets is None else (windows, self._targets[starts])

    def on_epoch_end(self) -> None:
        """A new order, where they are shuffled."""
        if self._generator is not None:
            self._starts = self._generator.permutation(self._starts)


def timeseries_dataset_from_array(
    data: Any,
    targets: Any,
    sequence_length: int,
    sequence_stride: int = 1,
    sampling_rate: int = 1,
    batch_size: int | None = 128,
    shuffle: bool = False,
    seed: int | None = None,
    start_index: int | None = None,
    end_index: int | None = None,
) -> PyDataset:
    """Windows over a series, as batches for `fit`, `evaluate` and `predict`. Nothing is copied but the batch at hand.

    Args:
        data: the series, time first.
        targets: targets[i] belongs to the window that begins at i; or None.
        sequence_length: entries of a window.
        sequence_stride: from the begin of a window to the next.
        sampling_rate: from an entry of a window to the next.
        batch_size: windows of a batch; None: single windows.
        shuffle: whether each pass has another order.
        seed: of the order.
        start_index, end_index: the part of the series (and of the targets) that is used, the end apart.

    Raises:
        ValueError: which argument does not fit the series.

    Example:
        >>> import numpy as np
        >>> from seqcore.utils import timeseries_dataset_from_array
        >>> windows = timeseries_dataset_from_array(np.arange(6), np.arange(6) * 10, 3, batch_size=2)
        >>> x, y = windows[1]
        >>> x.tolist(), y.tolist()
        ([[2, 3, 4], [3, 4, 5]], [20, 30])
    """
    series = _engine.to_array(data, "data")
    n = len(series) if series.ndim else 0
    length = _engine.check_count(sequence_length, "sequence_length")
    stride = _engine.check_count(sequence_stride, "sequence_stride")
    rate = _engine.check_count(sampling_rate, "sampling_rate")
    for name, value in (("sequence_stride", stride), ("sampling_rate", rate)):
        if value >= n:
            raise ValueError(f"`{name}`: expected less than the {n} entries of `data`, got {value}")
    begin = 0 if start_index is None else _engine.check_count(start_index, "start_index", 0)
    end = n if end_index is None else _engine.check_count(end_index, "end_index")
    if not begin < end <= n:
        raise ValueError(f"`start_index` and `end_index`: expected 0 <= start < end <= {n}, got {begin} and {end}")
    batch_size = _engine.optional_count(batch_size, "batch_size")
    count = end - begin - (length - 1) * rate
    wanted = None
    if targets is not None:
        wanted = _engine.to_array(targets, "targets")
        count = min(count, len(wanted))
        wanted = wanted[begin:end]
        count = min(count, len(wanted))
    if count < 1:
        raise ValueError(f"`sequence_length`: no window of {length} entries fits into {end - begin}")
    generator = np.random.default_rng(seed) if shuffle else None
    starts = np.arange(0, count, stride)
    return _Windows(series[begin:end], wanted, starts, np.arange(length) * rate, batch_size, generator)
