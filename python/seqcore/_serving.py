"""Serving: models run one time step at a time, and what reduced precisions do to them. Private: used through
`Sequential.stream`, `Sequential.streams` and `Sequential.quantization_report`."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _engine

if TYPE_CHECKING:
    from ._network import Network

Float = _engine.Float


def _row(features: int | None, x: Any) -> Any:
    """What a step of one stream takes: a vector of `features`, or an id where None. Called for what is not one yet."""
    if features is None:
        ids = _engine.to_int(x, "x", "token id")
        if ids.ndim != 0:
            raise ValueError(f"`x`: expected one id, got shape {ids.shape}")
        return int(ids)
    array = _engine.to_float(x, "x")
    _engine.check_shape(array, (features,), "`x`")
    return array


class _Served:
    """What one stream and many have in common."""

    def __init__(self, core: _engine.CoreStream, precision: str, threads: int, count: int | None) -> None:
        self._core = core
        self._count = count
        self.precision = precision
        self.threads = threads
        self.features = None if core.takes_ids else core.features
        self.outputs = core.outputs
        self.weight_bytes = core.weight_bytes

    def copy(self) -> Any:
        """Another one with the same weights and, from here on, its own states."""
        return type(self)(self._core.copy(), self.precision, self.threads, self._count)

    def __copy__(self) -> Any:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Any:
        return self.copy()

    @property
    def state(self) -> list[Float]:
        """The states, copied: of each recurrent layer h, then c where there is one, each of shape (units,), or
        (streams, units); of a Conv1D the steps that its windows still see, oldest first, joined into one such array.
        Assign such a list to go (back) to it; ValueError where a shape is another."""
        return [a if self._count else a[0] for a in self._core.get_state()]

    @state.setter
    def state(self, arrays: Sequence[Any]) -> None:
        if not isinstance(arrays, (list, tuple)):
            raise TypeError(f"`state`: expected a list of arrays, got {type(arrays).__name__}")
        ready = [_engine.to_float(a, "state") for a in arrays]
        if [a.shape for a in ready] != [a.shape for a in self.state]:
            expected = [a.shape for a in self.state]
            raise ValueError(f"`state`: expected arrays of shapes {expected}, got {[a.shape for a in ready]}")
        self._core.set_state(ready if self._count else [a[np.newaxis] for a in ready])

    def _rows(self, x: Any, lead: tuple[int | None, ...], name: str) -> _engine.Array:
        if self.features is None:
            # A copy: another thread must not change ids that have been checked.
            array: _engine.Array = _engine.to_int(x, name, "token ids").copy()
            _engine.check_shape(array, lead, f"`{name}`", empty=True)
        else:
            array = _engine.to_float(x, name)
            _engine.check_shape(array, (*lead, self.features), f"`{name}`", empty=True)
        return array

    def _run(self, x: _engine.Array, which: Any, out: Any) -> Float:
        """`x` as _core takes it; the result, or `out`, has its shape with outputs in place of features."""
        if isinstance(out, np.ndarray) and np.may_share_memory(x, out):
            x = x.copy()
        return self._core.run(x, which, out)


class Stream(_Served):
    """A model run one time step at a time, with the weights that it had when the stream was made.

    In float32 the outputs are, bit for bit, what `predict` gives for the same prefix. One thread at a time:
    RuntimeError where another one is in a call. Made by `Sequential.stream`.

    Attributes:
        step: step(x, out=None) runs one time step. `x`: (features,), or an id where the model begins with Embedding.
            Returns the output, (outputs,), in a fresh array or in `out`, a float32 array. ValueError or TypeError for
            other shapes, ids and types; the states are then as before.
        features: of a row of input; None where it is an id.
        outputs: of a row of output.
        weight_bytes: that one step reads; the time to read so much is its floor.
    """

    step: Callable[..., Float]

    def __init__(self, core: _engine.CoreStream, precision: str, threads: int, count: None = None) -> None:
        super().__init__(core, precision, threads, count)
        self.step = core.make_step(functools.partial(_row, self.features))

    def run(self, xs: Any, out: Any = None) -> Float:
        """Runs a block of steps.

        Args:
            xs: (steps, features), or ids of shape (steps,).
            out: a float32 array of the result's shape to write to.

        Returns:
            The outputs, (steps, outputs): what `step` gives for one row after the other.
        """
        return self._run(self._rows(xs, (None,), "xs"), None, out)

    def reset(self) -> None:
        """States to zero."""
        self._core.reset(None)


class Streams(_Served):
    """Many independent streams of one model, advanced together or in any subset: one pass over the weights for all.
    Made by `Sequential.streams`. `len()` tells how many."""

    def __init__(self, core: _engine.CoreStream, precision: str, threads: int, count: int) -> None:
        super().__init__(core, precision, threads, count)

    def __len__(self) -> int:
        assert self._count is not None
        return self._count

    def _which(self, which: Any) -> _engine.Array | None:
        if which is None:
            return None
        array = _engine.to_array(which, "which")
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise ValueError(f"`which`: expected a vector of indices, got shape {array.shape}, dtype {array.dtype}")
        if array.dtype == np.uint64:  # too large stays too large
            array = np.minimum(array, np.uint64(2**63 - 1))
        return array.astype(np.int64)  # a copy: another thread must not change indices that have been checked

    def step(self, x: Any, which: Any = None, out: Any = None) -> Float:
        """One time step of all streams, or of those listed.

        Args:
            x: (streams, features), or ids of shape (streams,); a row for each index where `which` is given.
            which: indices of the streams to advance, in any order, each at most once. The others stay as they are.
            out: a float32 array of the result's shape to write to.

        Returns:
            The outputs, a row for each row of `x`.
        """
        chosen = self._which(which)
        n = len(self) if chosen is None else len(chosen)
        rows = self._rows(x, (n,), "x")
        return self._run(rows, chosen, out)

    def run(self, xs: Any, which: Any = None, out: Any = None) -> Float:
        """A block of steps: `xs[t]` is what `step` takes, and the result's [t] what it gives. Returns the outputs, of
        shape (steps, streams, outputs)."""
        chosen = self._which(which)
        n = len(self) if chosen is None else len(chosen)
        rows = self._rows(xs, (None, n), "xs")
        return self._run(rows, chosen, out)

    def reset(self, which: Any = None) -> None:
        """States of all streams, or of those listed, to zero."""
        self._core.reset(self._which(which))


def stream(network: Network, precision: str, threads: int) -> Stream:
    _engine.check_precision(precision)
    threads = _engine.check_count(threads, "threads")
    return Stream(_engine.CoreStream(network.core, precision, 1, threads), precision, threads)


def streams(network: Network, n: int, precision: str, threads: int) -> Streams:
    _engine.check_precision(precision)
    threads, n = _engine.check_count(threads, "threads"), _engine.check_count(n, "n")
    return Streams(_engine.CoreStream(network.core, precision, n, threads), precision, threads, n)


class PrecisionReport(NamedTuple):
    """What one precision does to a model's outputs, beside float32's."""

    precision: str
    max_error: float
    mean_error: float
    argmax_agreement: float  # share of rows whose largest output is the same one
    step_us: float | None  # median time of one step of one stream; None where the model cannot be a stream


class QuantizationReport(tuple[PrecisionReport, ...]):
    """A row for each precision, float32 first. `print` shows a table."""

    def __str__(self) -> str:
        lines = [f"{'precision':<10} {'max error':>10} {'mean error':>10} {'same argmax':>11} {'step':>10}"]
        for r in self:
            step = "-" if r.step_us is None else f"{r.step_us:.2f} us"
            lines.append(
                f"{r.precision:<10} {r.max_error:>10.2e} {r.mean_error:>10.2e} {r.argmax_agreement:>11.2%} {step:>10}"
            )
        return "\n".join(lines)


def _step_time(network: Network, precision: str, rows: Iterable[Any], seconds: float = 0.1) -> float | None:
    """The median time of a step over `rows`, in microseconds."""
    try:
        step = stream(network, precision, 1).step
    except ValueError:
        return None
    times: list[int] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for row in rows:
            begin = time.perf_counter_ns()
            step(row)
            times.append(time.perf_counter_ns() - begin)
    return statistics.median(times) / 1e3


def quantization_report(network: Network, x: _engine.Array, batch_size: int) -> QuantizationReport:
    reports: list[PrecisionReport] = []
    exact = network.core.predict(x, batch_size, "float32")
    rows: Iterable[Any] = x[0] if network.dtype == "float32" else [int(i) for i in x[0].ravel()]
    for precision in _engine.PRECISIONS:
        y = network.core.predict(x, batch_size, precision)
        error = np.abs(y.astype(np.float64) - exact)
        agree = ((y.argmax(-1) == exact.argmax(-1)) & ~np.isnan(y).any(-1)).mean()
        time_us = _step_time(network, precision, rows)
        reports.append(PrecisionReport(precision, float(error.max()), float(error.mean()), float(agree), time_us))
    return QuantizationReport(reports)
