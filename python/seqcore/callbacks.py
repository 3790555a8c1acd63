"""Callbacks: what happens around epochs and batches."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np

from ._progress import Progbar

__all__ = [
    "BackupAndRestore", "CSVLogger", "Callback", "CallbackList", "EarlyStopping", "History", "LambdaCallback",
    "LearningRateScheduler", "ModelCheckpoint", "ProgbarLogger", "ReduceLROnPlateau", "SwapEMAWeights",
    "TerminateOnNaN",
]  # fmt: skip

Logs = dict[str, Any] | None  # numbers, or arrays where a metric says several


class Callback:
    """Base of all callbacks; its hooks do nothing.

    Attributes:
        params: {"verbose", "epochs", "steps"} of the running `fit`.
        model: the model.

    Example:
        >>> import numpy as np
        >>> from seqcore import Sequential, callbacks, layers
        >>> class Stop(callbacks.Callback):
        ...     def on_epoch_end(self, epoch, logs=None):
        ...         self.model.stop_training = epoch == 1
        >>> model = Sequential([layers.Dense(1, input_shape=(2,))])
        >>> model.compile("sgd", "mse")
        >>> history = model.fit(np.ones((4, 2)), np.ones(4), epochs=9, verbose=0, callbacks=[Stop()])
        >>> history.epoch
        [0, 1]
    """

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self._model: Any = None

    @property
    def model(self) -> Any:
        """The model that is trained."""
        return self._model

    def set_params(self, params: dict[str, Any]) -> None:
        """Tells the callback about the run."""
        self.params = params

    def set_model(self, model: Any) -> None:
        """Tells the callback its model."""
        self._model = model

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Before an epoch of training."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """After an epoch of training and validation; `logs` may be added to."""

    def on_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """As `on_train_batch_begin`."""

    def on_batch_end(self, batch: int, logs: Logs = None) -> None:
        """As `on_train_batch_end`."""

    def on_train_begin(self, logs: Logs = None) -> None:
        """Before `fit`."""

    def on_train_end(self, logs: Logs = None) -> None:
        """After `fit`."""

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Before a batch of training."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """After a batch of training, with the running means of the epoch."""
        self.on_batch_end(batch, logs)

    def on_test_begin(self, logs: Logs = None) -> None:
        """Before `evaluate` or a validation."""

    def on_test_end(self, logs: Logs = None) -> None:
        """After `evaluate` or a validation."""

    def on_test_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Before a batch of evaluation."""

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        """After a batch of evaluation."""

    def on_predict_begin(self, logs: Logs = None) -> None:
        """Before `predict`."""

    def on_predict_end(self, logs: Logs = None) -> None:
        """After `predict`."""

    def on_predict_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Before a batch of prediction."""

    def on_predict_batch_end(self, batch: int, logs: Logs = None) -> None:
        """After a batch of prediction; `logs` holds "outputs"."""


class History(Callback):
    """What `fit` returns: `epoch`, the numbers of the epochs, and `history`, the logs of each."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch: list[int] = []
        self.history: dict[str, list[Any]] = {}

    def on_train_begin(self, logs: Logs = None) -> None:
        self.epoch = []

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)


class ProgbarLogger(Callback):
    """The progress bar of `fit`, `evaluate` and `predict`."""

    def __init__(self) -> None:
        super().__init__()
        self.bar: Progbar | None = None
        self._seen = 0

    def begin(self) -> None:
        """A new line begins."""
        self._seen = 0
        self.bar = Progbar(self.params.get("steps"), verbose=self.params.get("verbose", 1), stateless_metrics=())

    def step(self, done: int, logs: Callable[[], dict[str, Any]]) -> None:
        """`done` batches are through; `logs` is asked only where the bar is drawn."""
        self._seen = done
        bar = self.bar
        if bar is not None and bar.due_now():
            bar.update(done, logs(), finalize=False)

    def finish(self, logs: Logs) -> None:
        """The line ends."""
        if self.bar is not None:
            self.bar.update(self._seen, logs or {}, finalize=True)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        epochs = self.params.get("epochs", 1)
        if epochs > 1 and self.params.get("verbose"):
            print(f"Epoch {epoch + 1}/{epochs}", flush=True)
        self.begin()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self.params.get("steps") is None:
            self.params["steps"] = self._seen
        self.finish(logs)


_BATCH_HOOKS = {
    "on_train_batch_begin": ("on_train_batch_begin", "on_batch_begin"),
    "on_train_batch_end": ("on_train_batch_end", "on_batch_end"),
    "on_test_batch_begin": ("on_test_batch_begin",),
    "on_test_batch_end": ("on_test_batch_end",),
    "on_predict_batch_begin": ("on_predict_batch_begin",),
    "on_predict_batch_end": ("on_predict_batch_end",),
}


class CallbackList(Callback):
    """Calls a list of callbacks, in order.

    Args:
        callbacks: callbacks, or one.
        add_history: whether a `History` is added.
        add_progbar: whether a `ProgbarLogger` is added.
        model: the model.
        **params: verbose, epochs, steps.
    """

    def __init__(self, callbacks: Any = None, add_history: bool = False, add_progbar: bool = False, model: Any = None,
                 **params: Any) -> None:  # fmt: skip
        super().__init__()
        if isinstance(callbacks, CallbackList):
            callbacks = callbacks.callbacks
        if isinstance(callbacks, Callback):
            callbacks = [callbacks]
        self.callbacks: list[Callback] = list(callbacks or ())
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(f"`callbacks`: expected Callback instances, got {callback!r}")
        self.bar = next((c for c in self.callbacks if isinstance(c, ProgbarLogger)), None)
        if add_progbar and self.bar is None:
            self.bar = ProgbarLogger()
            self.callbacks.append(self.bar)
        history = next((c for c in self.callbacks if isinstance(c, History)), None)
        if add_history and history is None:
            history = History()
            self.callbacks.append(history)
        self.history = history
        # Only who has something to do at a batch is called there.
        self.batch_hooks: dict[str, list[Callable[..., None]]] = {
            hook: [
                getattr(c, hook)
                for c in self.callbacks
                if any(getattr(getattr(c, n), "__func__", None) is not getattr(Callback, n) for n in names)
            ]
            for hook, names in _BATCH_HOOKS.items()
        }
        if model is not None:
            self.set_model(model)
        self.set_params(params)

    def set_params(self, params: dict[str, Any]) -> None:
        self.params = params
        for callback in self.callbacks:
            callback.set_params(params)

    def set_model(self, model: Any) -> None:
        self._model = model
        for callback in self.callbacks:
            callback.set_model(model)

    def append(self, callback: Callback) -> None:
        """Adds one."""
        self.__init__([*self.callbacks, callback], model=self._model, **self.params)  # type: ignore[misc]

    def _call(self, hook: str, *args: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(*args)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._call("on_epoch_begin", epoch, {} if logs is None else logs)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self._call("on_epoch_end", epoch, {} if logs is None else logs)

    def on_train_begin(self, logs: Logs = None) -> None:
        self._call("on_train_begin", {} if logs is None else logs)

    def on_train_end(self, logs: Logs = None) -> None:
        self._call("on_train_end", {} if logs is None else logs)

    def on_test_begin(self, logs: Logs = None) -> None:
        self._call("on_test_begin", {} if logs is None else logs)

    def on_test_end(self, logs: Logs = None) -> None:
        self._call("on_test_end", {} if logs is None else logs)

    def on_predict_begin(self, logs: Logs = None) -> None:
        self._call("on_predict_begin", {} if logs is None else logs)

    def on_predict_end(self, logs: Logs = None) -> None:
        self._call("on_predict_end", {} if logs is None else logs)

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        self._batch("on_train_batch_begin", batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._batch("on_train_batch_end", batch, logs)

    def on_test_batch_begin(self, batch: int, logs: Logs = None) -> None:
        self._batch("on_test_batch_begin", batch, logs)

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._batch("on_test_batch_end", batch, logs)

    def on_predict_batch_begin(self, batch: int, logs: Logs = None) -> None:
        self._batch("on_predict_batch_begin", batch, logs)

    def on_predict_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._batch("on_predict_batch_end", batch, logs)

    def _batch(self, hook: str, batch: int, logs: Logs) -> None:
        for call in self.batch_hooks[hook]:
            call(batch, {} if logs is None else logs)


class _Monitor(Callback):
    """Watches one entry of the logs and knows which way is better."""

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        super().__init__()
        if mode not in ("auto", "min", "max"):
            what = f"{type(self).__name__} mode {mode!r} is unknown, fallback to auto mode; others are 'min' and 'max'"
            warnings.warn(what, stacklevel=3)
            mode = "auto"
        self.monitor, self.mode, self.min_delta = monitor, mode, abs(min_delta)
        self._warned = False

    def _rises(self) -> bool:
        name = self.monitor.removeprefix("val_")
        if self.mode != "auto" or name == "loss":
            return self.mode == "max"
        metrics = dict(zip(self.model.metrics_names[1:], self.model.metrics, strict=True))
        if name not in metrics:
            raise ValueError(
                f"`mode` of {type(self).__name__}: {self.monitor!r} is neither the loss nor a metric of the model "
                f"({', '.join(metrics) or 'it has none'}): say whether less is better, 'min', or more, 'max'"
            )
        return bool(metrics[name].larger_is_better)

    def better(self, value: float, than: float | None) -> bool:
        if than is None:
            return True
        return value - self.min_delta > than if self._rises() else value + self.min_delta < than

    def value(self, logs: Logs, otherwise: str = "") -> float | None:
        """What is monitored or, with a warning that ends in `otherwise`, None; ValueError where `mode` must be told."""
        self._rises()
        found: Any = (logs or {}).get(self.monitor)
        if found is None and not self._warned:
            self._warned = True
            warnings.warn(
                f"{type(self).__name__} monitors {self.monitor!r}, which is not in the logs; there are "
                f"{', '.join(sorted(logs or {}))}{otherwise}",
                stacklevel=2,
            )
        if np.size(found) != 1:
            raise ValueError(
                f"`monitor` of {type(self).__name__}: expected the name of one number, {self.monitor!r} are "
                f"{np.size(found)}"
            )
        return None if found is None else float(found)


class EarlyStopping(_Monitor):
    """Stops `fit` when a value no longer gets better.

    Args:
        monitor: the entry of the logs.
        min_delta: how much counts as better.
        patience: epochs without before stopping.
        verbose: 1 prints when it stops.
        mode: "min", "max", or "auto": by what is monitored, if that is the loss or a metric of the model.
        baseline: a value to get better than.
        restore_best_weights: whether the weights of the best epoch are put back at the end.
        start_from_epoch: epochs to wait first.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience, self.verbose, self.baseline = patience, verbose, baseline
        self.restore_best_weights, self.start_from_epoch = restore_best_weights, start_from_epoch
        self._reset()

    def _reset(self) -> None:
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best: float | None = None
        self.best_weights: list[Any] | None = None

    def on_train_begin(self, logs: Logs = None) -> None:
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        current = self.value(logs)
        if current is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if self.better(current, self.best):
            self.best, self.best_epoch = current, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self.better(current, self.baseline):
                self.wait = 0
            return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs = None) -> None:
        if self.stopped_epoch > 0 and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.restore_best_weights and self.best_weights is not None:
            if self.verbose:
                print(f"Restoring model weights from the end of the best epoch: {self.best_epoch + 1}.")
            self.model.set_weights(self.best_weights)


class ModelCheckpoint(_Monitor):
    """Saves the model as it trains.

    Args:
        filepath: a path ending in `.safetensors` or `.keras` (`.weights.safetensors` or `.weights.h5` with
            `save_weights_only`), as in `model.save` and `model.save_weights`; may hold `{epoch}` and names of the logs,
            as in `"{epoch:02d}-{val_loss:.2f}.safetensors"`.
        monitor: the entry of the logs that says which is best.
        verbose: 1 prints what is saved.
        save_best_only: whether only a better one is saved (each one, where the logs do not hold what is monitored).
        save_weights_only: whether only the weights are.
        mode: "min", "max", or "auto": by what is monitored, if that is the loss or a metric of the model.
        save_freq: "epoch", or a number of batches.
        initial_value_threshold: a value that the first save must better.

    Raises:
        ImportError: the file would be Keras's, and h5py is not installed.
        ValueError: another suffix; or, when `fit` begins, a model that a `.keras` file cannot hold.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: int | Literal["epoch"] = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode)
        from . import _saving

        suffixes = (".weights.safetensors", ".weights.h5") if save_weights_only else _saving.MODEL
        self.filepath = _saving.check_path(filepath, suffixes)
        if save_freq != "epoch" and (not isinstance(save_freq, int) or save_freq < 1):
            raise ValueError(f"`save_freq`: expected 'epoch' or a positive integer, got {save_freq!r}")
        self.verbose, self.save_best_only, self.save_weights_only = verbose, save_best_only, save_weights_only
        self.save_freq = save_freq
        self.best = initial_value_threshold
        self._epoch = self._batches = 0
        if save_freq != "epoch":
            self.on_train_batch_end = self._after_batch  # type: ignore[method-assign]

    def on_train_begin(self, logs: Logs = None) -> None:
        if not self.save_weights_only:
            from ._saving import check_model

            check_model(self.model, self.filepath)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._epoch = epoch

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self.save_freq == "epoch":
            self._save(logs)

    def _after_batch(self, batch: int, logs: Logs = None) -> None:
        self._batches += 1
        if self._batches == self.save_freq:
            self._batches = 0
            self._save(logs, {"batch": batch + 1})

    def _save(self, logs: Logs, place: dict[str, int] | None = None) -> None:
        if self.save_best_only:
            current = self.value(logs, "; the model is saved all the same")
            if current is not None:
                best = "None" if self.best is None else f"{self.best:.5f}"
                better = self.better(current, self.best)
                if self.verbose:
                    change = f"improved from {best} to {current:.5f}" if better else f"did not improve from {best}"
                    print(f"\nEpoch {self._epoch + 1}: {self.monitor} {change}")
                if not better:
                    return
                self.best = current
        try:
            path = self.filepath.format(epoch=self._epoch + 1, **(place or {}), **(logs or {}))
        except KeyError as error:
            raise KeyError(
                f"`filepath` {self.filepath!r} names {error}, which is not in the logs {sorted(logs or {})}"
            ) from None
        if self.verbose:
            print(f"\nEpoch {self._epoch + 1}: saving model to {path}")
        folder = os.path.dirname(path)
        if folder:
            os.makedirs(folder, exist_ok=True)
        (self.model.save_weights if self.save_weights_only else self.model.save)(path)


class BackupAndRestore(Callback):
    """Lets a `fit` that was interrupted go on where its last backup was made: the same call begins there, with the
    weights, the state of the optimizer and the random state of then, and gives the bits that it would have given.

    Args:
        backup_dir: a folder for this alone. Its `latest.safetensors` is a model as `model.save` writes it.
        save_freq: "epoch", or a number of batches. An epoch that was interrupted begins again, with the weights of its
            last backup.
        double_checkpoint: whether the backup before the last is kept, for where the last one is damaged.
        delete_checkpoint: whether backups are deleted when `fit` is through.

    Raises:
        TypeError: `backup_dir` is no path.
        ValueError: `backup_dir` is None or empty, or there is no such `save_freq`.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from seqcore import Sequential, callbacks, layers
        >>> class Interrupt(callbacks.Callback):
        ...     def on_epoch_begin(self, epoch, logs=None):
        ...         if epoch == 4:
        ...             raise KeyboardInterrupt
        >>> model = Sequential([layers.Dense(1, input_shape=(2,))])
        >>> model.compile("sgd", "mse")
        >>> x, y = np.ones((4, 2)), np.ones(4)
        >>> backup = callbacks.BackupAndRestore(tempfile.mkdtemp())
        >>> try:
        ...     model.fit(x, y, epochs=10, verbose=0, callbacks=[backup, Interrupt()])
        ... except KeyboardInterrupt:
        ...     history = model.fit(x, y, epochs=10, verbose=0, callbacks=[backup])
        >>> history.epoch
        [4, 5, 6, 7, 8, 9]
    """

    def __init__(
        self,
        backup_dir: str | os.PathLike[str],
        save_freq: int | Literal["epoch"] = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ) -> None:
        super().__init__()
        if not backup_dir:
            raise ValueError(f"`backup_dir`: expected the path of a folder, got {backup_dir!r}")
        path = os.fspath(backup_dir) if isinstance(backup_dir, (str, os.PathLike)) else backup_dir
        if not isinstance(path, str):
            raise TypeError(f"`backup_dir`: expected the path of a folder, a string, got {path!r}")
        self.backup_dir = path
        if save_freq != "epoch" and (isinstance(save_freq, bool) or not isinstance(save_freq, int) or save_freq < 1):
            raise ValueError(f"`save_freq`: expected 'epoch' or a positive integer, got {save_freq!r}")
        self.save_freq, self.double_checkpoint, self.delete_checkpoint = save_freq, double_checkpoint, delete_checkpoint
        self._path = os.path.join(self.backup_dir, "latest.safetensors")
        self._previous = f"{self._path}.bkp"
        self._epoch = self._batches = 0
        if save_freq != "epoch":
            self.on_train_batch_end = self._after_batch  # type: ignore[method-assign]

    def on_train_begin(self, logs: Logs = None) -> None:
        from ._saving import load_backup

        self._batches = 0
        self._epoch = self.model._initial_epoch
        there = [path for path in (self._path, self._previous) if os.path.exists(path)]
        for path in there:
            try:
                self._epoch = self.model._initial_epoch = load_backup(self.model, path)
            except (OSError, ValueError) as error:
                if path == there[-1]:
                    raise
                warnings.warn(f"{error}; the backup before it is taken", stacklevel=2)
            else:
                return

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self._epoch = epoch + 1
        if self.save_freq == "epoch":
            self._save()

    def _after_batch(self, batch: int, logs: Logs = None) -> None:
        self._batches += 1
        if self._batches == self.save_freq:
            self._batches = 0
            self._save()

    def _save(self) -> None:
        from ._saving import save_backup

        os.makedirs(self.backup_dir, exist_ok=True)
        if self.double_checkpoint and os.path.exists(self._path):
            os.replace(self._path, self._previous)
        save_backup(self.model, self._path, self._epoch)

    def on_train_end(self, logs: Logs = None) -> None:
        if not self.delete_checkpoint:
            return
        for path in (self._path, self._previous):
            if os.path.exists(path):
                os.remove(path)
        if os.path.isdir(self.backup_dir) and not os.listdir(self.backup_dir):
            os.rmdir(self.backup_dir)


class SwapEMAWeights(Callback):
    """Evaluates and predicts with the averages that an optimizer with `use_ema` keeps of the weights; training goes on
    from the weights themselves.

    Args:
        swap_on_epoch: whether the averages are in the model already when an epoch ends, for callbacks behind this one
            in the list, such as `ModelCheckpoint`, until the next begins.

    Raises:
        ValueError: when it begins, where the optimizer keeps no averages.
    """

    def __init__(self, swap_on_epoch: bool = False) -> None:
        super().__init__()
        self.swap_on_epoch = swap_on_epoch

    def _averages(self, wanted: bool) -> None:
        optimizer = self.model.optimizer
        if optimizer is None or not optimizer.use_ema:
            raise ValueError("SwapEMAWeights: expected a model compiled with an optimizer of `use_ema=True`")
        # Before the first update there are none.
        if int(optimizer.iterations) and self.model._averages_in_weights != wanted:
            self.model._swap_averages()

    def on_train_begin(self, logs: Logs = None) -> None:
        self._averages(False)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._averages(False)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self.swap_on_epoch:
            self._averages(True)

    def on_test_begin(self, logs: Logs = None) -> None:
        self._averages(True)

    def on_test_end(self, logs: Logs = None) -> None:
        self._averages(False)

    def on_predict_begin(self, logs: Logs = None) -> None:
        self._averages(True)

    def on_predict_end(self, logs: Logs = None) -> None:
        self._averages(False)


class TerminateOnNaN(Callback):
    """Stops `fit` when the loss is NaN or infinite.

    Args:
        raise_error: whether to raise a RuntimeError instead.
    """

    def __init__(self, raise_error: bool = False) -> None:
        super().__init__()
        self.raise_error = raise_error

    def on_batch_end(self, batch: int, logs: Logs = None) -> None:
        loss = (logs or {}).get("loss")
        if loss is None or math.isfinite(loss):
            return
        if self.raise_error:
            raise RuntimeError(f"Batch {batch}: the loss is {loss}")
        print(f"Batch {batch}: Invalid loss, terminating training")
        self.model.stop_training = True


class LambdaCallback(Callback):
    """Calls functions.

    Args:
        on_epoch_begin, on_epoch_end: called with (epoch, logs).
        on_train_begin, on_train_end: called with (logs).
        on_train_batch_begin, on_train_batch_end: called with (batch, logs).
        **kwargs: functions for any other hook.
    """

    def __init__(
        self,
        on_epoch_begin: Callable[..., Any] | None = None,
        on_epoch_end: Callable[..., Any] | None = None,
        on_train_begin: Callable[..., Any] | None = None,
        on_train_end: Callable[..., Any] | None = None,
        on_train_batch_begin: Callable[..., Any] | None = None,
        on_train_batch_end: Callable[..., Any] | None = None,
        **kwargs: Callable[..., Any],
    ) -> None:
        super().__init__()
        given = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
            **kwargs,
        }
        for name, function in given.items():
            if function is None:
                continue
            if not name.startswith("on_") or not hasattr(Callback, name):
                raise ValueError(f"LambdaCallback: no hook is called {name!r}")
            setattr(self, name, function)


class LearningRateScheduler(Callback):
    """Sets the learning rate at the beginning of each epoch.

    Args:
        schedule: a function of the epoch and the present rate (or of the epoch alone) that gives the new rate.
        verbose: 1 prints it.
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        super().__init__()
        self.schedule, self.verbose = schedule, verbose

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        try:
            rate = self.schedule(epoch, float(np.float32(self.model.optimizer.learning_rate)))
        except TypeError:  # a function of the epoch alone
            rate = self.schedule(epoch)
        if isinstance(rate, bool) or not isinstance(rate, (float, int, np.floating)):
            raise ValueError(f"`schedule` of LearningRateScheduler: expected it to give a float, got {rate!r}")
        self.model.optimizer.learning_rate = rate
        if self.verbose:
            print(f"\nEpoch {epoch + 1}: LearningRateScheduler setting learning rate to {rate}.")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)


class ReduceLROnPlateau(_Monitor):
    """Lowers the learning rate when a value no longer gets better.

    Args:
        monitor: the entry of the logs.
        factor: the new rate is the old one times this.
        patience: epochs without getting better before that.
        verbose: 1 prints it.
        mode: "min", "max", or "auto": by what is monitored, if that is the loss or a metric of the model.
        min_delta: how much counts as better.
        cooldown: epochs to wait afterwards.
        min_lr: the lowest rate.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if factor >= 1.0:
            raise ValueError(f"`factor`: expected a number below 1, got {factor}")
        self.factor, self.patience, self.verbose, self.cooldown, self.min_lr = (
            factor,
            patience,
            verbose,
            cooldown,
            min_lr,
        )
        self.on_train_begin()

    def on_train_begin(self, logs: Logs = None) -> None:
        self.best: float | None = None
        self.wait = self.cooldown_counter = 0

    def in_cooldown(self) -> bool:
        """Whether the last change is too recent for another."""
        return self.cooldown_counter > 0

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        rate = float(self.model.optimizer.learning_rate)
        if logs is not None:
            logs["learning_rate"] = rate
        current = self.value(logs)
        if current is None:
            return
        if self.in_cooldown():
            self.cooldown_counter -= 1
            self.wait = 0
        if self.better(current, self.best):
            self.best, self.wait = current, 0
        elif not self.in_cooldown():
            self.wait += 1
            if self.wait >= self.patience and rate > np.float32(self.min_lr):
                rate = max(rate * self.factor, self.min_lr)
                self.model.optimizer.learning_rate = rate
                if self.verbose:
                    print(f"\nEpoch {epoch + 1}: ReduceLROnPlateau reducing learning rate to {rate}.")
                self.cooldown_counter, self.wait = self.cooldown, 0


class CSVLogger(Callback):
    """Writes the logs of each epoch to a file, one line an epoch.

    Args:
        filename: the path.
        separator: what stands between values.
        append: whether an existing file is continued.
    """

    def __init__(self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False) -> None:
        super().__init__()
        self.filename, self.separator, self.append = os.fspath(filename), separator, append
        self.keys: list[str] | None = None
        self._file: Any = None

    def on_train_begin(self, logs: Logs = None) -> None:
        header = not (self.append and os.path.exists(self.filename) and os.path.getsize(self.filename))
        self._file = open(self.filename, "a" if self.append else "w", newline="", encoding="utf-8")  # noqa: SIM115
        self.keys, self._header = None, header

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        import csv

        logs = logs or {}
        writer = csv.writer(self._file, delimiter=self.separator)
        if self.keys is None:
            # Validation may come only every few epochs: its columns are there from the first line.
            self.keys = sorted(logs)
            if not any(k.startswith("val_") for k in logs):
                self.keys += [f"val_{k}" for k in self.keys]
            if self._header:
                writer.writerow(["epoch", *self.keys])
        writer.writerow([epoch, *(_cell(logs.get(k, "NA")) for k in self.keys)])
        self._file.flush()

    def on_train_end(self, logs: Logs = None) -> None:
        self._file.close()
        self._file = None


def _cell(value: Any) -> Any:
    """An array as Keras writes it."""
    return f'"[{", ".join(map(str, value))}]"' if np.ndim(value) else value


def make_list(callbacks: Any, model: Any, **params: Any) -> CallbackList:
    """The list of a `fit`, `evaluate` or `predict`; a list made by the user is taken as it is."""
    if isinstance(callbacks, CallbackList):
        callbacks.set_model(model)
        callbacks.set_params(params)
        return callbacks
    if callbacks is not None and not isinstance(callbacks, (Callback, Iterable)):
        raise TypeError(f"`callbacks`: expected a list of callbacks, got {callbacks!r}")
    verbose = params.get("verbose", 0)
    return CallbackList(callbacks, add_history=True, add_progbar=bool(verbose), model=model, **params)
