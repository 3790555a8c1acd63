"""The progress bar and the lines of `verbose=2`, as Keras prints them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

_GREEN, _WHITE, _BOLD, _END = "\x1b[32m", "\x1b[37m", "\x1b[1m", "\x1b[0m"


def _shown(value: Any) -> float | str:
    """A number; the mean of several; text where there is none."""
    try:
        array = np.asarray(value) if isinstance(value, str) else np.asarray(value, np.float64)
    except (TypeError, ValueError, RuntimeError):
        return str(value)
    return str(value) if value is None or array.dtype.kind != "f" or not array.size else float(array.mean())


def format_values(values: Mapping[str, float | str]) -> str:
    """` - accuracy: 0.5000 - loss: 1.2e-04`: four digits, scientific where that would show nothing."""
    return "".join(
        f" - {k}: {v}" if isinstance(v, str) else f" - {k}: {v:.4f}" if abs(v) > 1e-3 or v == 0 else f" - {k}: {v:.4e}"
        for k, v in values.items()
    )


def _per_step(seconds: float, unit: str) -> str:
    if seconds >= 1 or seconds == 0:
        return f"{seconds:.0f}s/{unit}"
    return f"{seconds * 1e3:.0f}ms/{unit}" if seconds >= 1e-3 else f"{seconds * 1e6:.0f}us/{unit}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}" if minutes else f"{rest}s"


class Progbar:
    """A progress bar on standard output.

    Args:
        target: how many steps there are, None where that is not known.
        width: cells of the bar.
        verbose: 0 silent, 1 a bar, 2 one line at the end.
        interval: seconds between redraws.
        stateful_metrics: names of values that are shown as they are given. All others are averaged over the steps,
            until the line ends: there stands what is given last.
        stateless_metrics: names of the values that are averaged, in place of that.
        unit_name: what a step is called.

    Raises:
        ValueError: both `stateful_metrics` and `stateless_metrics` are given.
    """

    def __init__(self, target: int | None, width: int = 20, verbose: int = 1, interval: float = 0.05,
                 stateful_metrics: Iterable[str] | None = None, stateless_metrics: Iterable[str] | None = None,
                 unit_name: str = "step") -> None:  # fmt: skip
        if stateful_metrics is not None and stateless_metrics is not None:
            raise ValueError("`stateful_metrics` and `stateless_metrics`: expected one of them, got both")
        self.target, self.width, self.verbose, self.interval, self.unit_name = (
            target,
            width,
            verbose,
            interval,
            unit_name,
        )
        self._stateful = None if stateless_metrics is not None else frozenset(stateful_metrics or ())
        self._stateless = frozenset(stateless_metrics or ())
        self._sums: dict[str, tuple[float, int]] = {}
        self._values: dict[str, float | str] = {}
        self._start = time.perf_counter()
        self._seen = 0
        self._shown = 0  # characters of the line on the screen
        self.due = 0.0  # when the next redraw may be
        out = sys.stdout
        self._dynamic = (hasattr(out, "isatty") and out.isatty()) or "ipykernel" in sys.modules

    def due_now(self) -> bool:
        """Whether a redraw would be shown: asked at every batch, so that values are computed only then."""
        return self._dynamic and self.verbose == 1 and time.perf_counter() >= self.due

    def _take(self, current: int, values: Any, finalize: bool) -> None:
        for name, given in values.items() if isinstance(values, Mapping) else values or ():
            value = _shown(given)
            averaged = name not in self._stateful if self._stateful is not None else name in self._stateless
            if averaged and not finalize and not isinstance(value, str):
                steps = max(current - self._seen, 1)
                total, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = total, count = total + value * steps, count + steps
                value = total / count
            self._values[name] = value

    def update(self, current: int, values: Any = None, finalize: bool | None = None) -> None:
        """Shows that some steps are done.

        Args:
            current: how many, from the beginning.
            values: pairs of names and values, or a dict. Of arrays and lists the mean is shown.
            finalize: whether the line ends here; None: where `current` reaches the target.
        """
        if finalize is None:
            finalize = self.target is not None and current >= self.target
        self._take(current, values, finalize)
        self._seen = current
        now = time.perf_counter()
        if finalize and self.target is None:
            self.target = current
        if not self.verbose or (not finalize and (self.verbose == 2 or not self._dynamic or now < self.due)):
            return
        self.due = now + self.interval
        step = _per_step((now - self._start) / max(current, 1), self.unit_name)
        if self.verbose == 2:
            tail = format_values(self._values)
            print(f"{current}/{self.target} - {now - self._start:.0f}s - {step}{tail}", flush=True)
            return
        if self.target is None:
            plain, line = f"{current:7d}/Unknown ", f"{current:7d}/Unknown "
        else:
            count = f"{current:{len(str(self.target))}d}/{self.target}"
            done = min(self.width * current // max(self.target, 1), self.width)
            plain = f"{count} {'━' * self.width} "
            line = f"{_BOLD}{count}{_END} {_GREEN}{'━' * done}{_END}{_WHITE}{'━' * (self.width - done)}{_END} "
        left = now - self._start
        if self.target is not None and not finalize:
            left *= (self.target - current) / max(current, 1)
        tail = f" {step}{format_values(self._values)}"
        plain += _clock(left) + tail
        line += f"{_BOLD}{_clock(left)}{_END}{tail}" + " " * (self._shown - len(plain))
        self._shown = len(plain)
        print(("\r" if self._dynamic else "") + line, end="\n" if finalize else "", flush=True)

    def add(self, n: int, values: Any = None) -> None:
        """Shows `n` more steps done."""
        self.update(self._seen + n, values)
