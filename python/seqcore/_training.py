"""Training: `compile`, `fit`, `evaluate`, `predict` and the calls on single batches. `Trainer` is Sequential's base; it
knows nothing about layers, only the network they make."""

from __future__ import annotations

import inspect
import warnings
import weakref
from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _data, _engine, losses, optimizers
from . import metrics as _metric_module
from ._compiled_metrics import CompiledMetrics
from ._config import check_mapping, to_config
from .callbacks import CallbackList, History, make_list

if TYPE_CHECKING:
    from ._network import Network

_SAMPLES_AT_ONCE = 1024  # of predict, between two looks at its bar
NOT_COMPILED = "You must call `compile()` before {}: the model has no loss and optimizer yet"


class Trainer:
    """What a model can do once it has a network."""

    def __init__(self) -> None:
        self.stop_training = self.stop_evaluating = self.stop_predicting = False
        self._fitting = False
        self._history: tuple[weakref.ref[History], dict[str, Any]] | None = None
        self.optimizer: optimizers.Optimizer | None = None
        self.loss: Any = None
        self.compiled = False
        self._loss: losses.Loss | None = None
        self._metrics_given: tuple[list[Any], list[Any]] = ([], [])
        self._metrics: CompiledMetrics | None = None  # once the output's shape is known
        self._trainable_at_compile: dict[int, list[bool]] = {}  # by layer, of each weight
        self._decays_at_compile: list[bool] = []
        self._core_compiled: _engine.CoreModel | None = None
        self._shuffles = 0
        self._trained = False
        self._initial_epoch = 0  # where a callback says that `fit` goes on
        self._averages_in_weights = False  # while SwapEMAWeights has them there

    @abstractmethod
    def _network_for(self, x: Any) -> Network:
        """The network, built for data like `x` where it is not yet."""

    @abstractmethod
    def _existing_network(self) -> Network | None:
        """The network where it can be built without seeing data."""

    @property
    @abstractmethod
    def _input_name(self) -> str:
        """The name of the input."""

    @property
    @abstractmethod
    def trainable(self) -> bool:
        """Whether training changes any weight."""

    @property
    @abstractmethod
    def layers(self) -> list[Any]: ...

    # ---- compile

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Says how the model is trained. The optimizer's state begins anew, unless it is the one that the model has.

        Args:
            optimizer: a name or an optimizer.
            loss: a name or a loss; it and the metrics may be the one entry of a dict, under the last layer's name.
            loss_weights: None; there is one output.
            metrics: a list of names, metrics, or functions of (y_true, y_pred). Those in `metrics.IN_CORE` cost next to
                nothing; others, your own among them, are updated in Python after each batch.
            weighted_metrics: the same, with sample weights.
            run_eagerly, steps_per_execution, jit_compile, auto_scale_loss: accepted as Keras's; nothing is traced, and
                the hooks of batches are called around each of them, as with Keras's default of 1.

        Example:
            >>> from seqcore import Sequential, layers
            >>> model = Sequential([layers.Dense(2, activation="softmax", input_shape=(3,))])
            >>> model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        """
        output = self.layers[-1].name if self.layers else None
        loss, loss_weights = _of_output(loss, output, "loss"), _of_output(loss_weights, output, "loss_weights")
        if loss_weights not in (None, 1, 1.0, [1.0], [1]):
            raise ValueError(
                f"`loss_weights`: expected None, there is one output; got {loss_weights!r} "
                f"(metrics are given as `metrics=`)"
            )
        chosen = optimizers.get(optimizer)
        if chosen is None:
            raise ValueError("`optimizer`: expected a name or an optimizer, got None")
        chosen_loss = losses.resolve(loss[0] if isinstance(loss, (list, tuple)) and len(loss) == 1 else loss)
        if chosen_loss is not None and not chosen_loss.known:
            raise ValueError(
                f"`loss`: the gradient of {type(chosen_loss).__name__} is not known; expected a loss of seqcore's own"
            )
        given = (
            _as_list(_of_output(metrics, output, "metrics")),
            _as_list(_of_output(weighted_metrics, output, "weighted_metrics")),
        )
        for entry in (*given[0], *given[1]):  # unknown ones are named now, not at the first fit
            _check_metric(entry)
        self.optimizer, self.loss, self._loss, self._metrics_given = chosen, loss, chosen_loss, given
        self._trainable_at_compile = self._trainable_now()
        self._core_compiled = None
        self.compiled = True
        if self._existing_network() is not None:
            self._compiled_network(self._existing_network(), "training")

    def get_compile_config(self) -> dict[str, Any]:
        """What `compile` was given, as JSON-ready values; {} where it was not called. Functions and metric classes of
        your own are there by their names alone."""
        if not self.compiled:
            return {}
        loss = self.loss if isinstance(self.loss, str) else to_config(self._loss)
        plain, weighted = ([_said(m) for m in some] or None for some in self._metrics_given)
        return {
            "optimizer": to_config(self.optimizer), "loss": loss, "loss_weights": None, "metrics": plain,
            "weighted_metrics": weighted,
        }  # fmt: skip

    def compile_from_config(self, config: Any) -> None:
        """Compiles the model with what `get_compile_config` gave, here or in Keras.

        Args:
            config: a dict of arguments of `compile`.

        Raises:
            ValueError: `config` is empty, or not such a dict; or has a name that is not known here, as those of your
                own functions and classes: give these to `compile`.
        """
        config = check_mapping(config, "`config`")
        known = inspect.signature(self.compile).parameters
        unknown = [k for k in config if k not in known]
        if unknown or not config:
            raise ValueError(
                f"`config`: expected arguments of `compile`, {', '.join(known)}; got "
                f"{unknown or '{}, as a model gives that is not compiled'}"
            )
        self.compile(**config)

    def _trainable_now(self) -> dict[int, list[bool]]:
        """Of each weight whether training changes it; of statistics whether they move."""
        return {id(layer): [self.trainable and trained for trained in layer.trained] for layer in self.layers}

    def _compiled_network(self, network: Network | None, what: str) -> Network:
        assert network is not None
        if not self.compiled:
            raise RuntimeError(NOT_COMPILED.format(what))
        compiled = self._core_compiled is network.core
        if compiled and network.core.iterations + network.core.accumulated:
            return network
        assert self.optimizer is not None
        # As Keras: freezing, and what weight decay leaves alone, count until the optimizer's first step.
        flags, decays = self._trainable_now(), self.optimizer.decays(network.variables)
        if compiled and (flags, decays) == (self._trainable_at_compile, self._decays_at_compile):
            return network
        self._trainable_at_compile, self._decays_at_compile = flags, decays
        sparse = self._loss is not None and self._loss.sparse
        kept = self.optimizer.state(network.core)
        compiled_metrics = CompiledMetrics(*self._metrics_given, network.output_shapes[-1], sparse)
        network.core.compile(
            _engine.to_json(
                {
                    "optimizer": self.optimizer.describe(),
                    "loss": self._loss.describe() if self._loss is not None else None,
                    **compiled_metrics.describe(),
                    "trainable": [t for layer in network.layers for t in self._trainable_at_compile[id(layer)]],
                    "weight_decay": decays,
                }
            )
        )
        self.optimizer.bind(network.core, kept)
        self._metrics = compiled_metrics
        self._core_compiled = network.core
        return network

    @property
    def metrics_names(self) -> list[str]:
        """The names in the logs: loss, then the metrics."""
        return ["loss", *(self._metrics.names if self._metrics is not None else [])]

    @property
    def metrics(self) -> list[_metric_module.Metric]:
        """The metrics of `compile`, once the output's shape is known."""
        return self._metrics.all if self._metrics is not None else []

    def reset_metrics(self) -> None:
        """Starts the running loss and metrics anew."""
        if self._core_compiled is not None and self._metrics is not None:
            self._metrics.reset(self._core_compiled)

    # ---- data

    def _of_input(self, x: Any, name: str = "x") -> Any:
        """Of Keras's {input: x} the array."""
        if not isinstance(x, dict):
            return x
        if list(x) != [self._input_name]:
            raise ValueError(f"`{name}`: expected one entry, for the only input, {self._input_name!r}; got {list(x)}")
        return x[self._input_name]

    def _ready(self, x: Any, what: str) -> Network:
        if not self.compiled:
            raise RuntimeError(NOT_COMPILED.format(what))
        if self._loss is None:
            raise ValueError(f"{what} needs a loss: give `compile` one")
        return self._compiled_network(self._network_for(self._of_input(x)), what)

    def _prepare(
        self, network: Network, x: Any, y: Any, sample_weight: Any, class_weight: Any = None
    ) -> tuple[Any, Any, Any]:
        """x, y and weights as the core takes them; every error in them is raised here."""
        assert self._loss is not None
        if y is None:
            raise ValueError("`y`: expected targets, got None")
        if class_weight is not None and sample_weight is not None:
            raise ValueError("`class_weight` and `sample_weight`: expected one of them, got both")
        ready = network.prepare(self._of_input(x))
        y, sample_weight = _only(y, len(ready)), _only(sample_weight, len(ready))
        target = _engine.to_array(y, "y")
        if target.shape[:1] != ready.shape[:1]:
            raise ValueError(
                f"`x` and `y`: expected the same number of samples, got {len(ready)} and "
                f"{target.shape[0] if target.ndim else 'a scalar'}"
            )
        sparse, output = self._loss.sparse, network.output_shapes[-1]
        target = _engine.fit_target(target, (None, *output[1:]), sparse, "y")
        target = _engine.to_int(target, "y", "labels") if sparse else _engine.to_float(target, "y")
        weight = None
        if class_weight is not None:
            weight = _data.class_weights(target, class_weight, sparse)
        elif sample_weight is not None:
            weight = _engine.to_float(sample_weight, "sample_weight")
            while 1 < weight.ndim <= len(output) and weight.shape[-1] == 1:
                weight = weight[..., 0]
        if weight is not None:
            weight = np.ascontiguousarray(weight, np.float32)
        network.core.check_data(ready, target, weight)
        return ready, target, weight

    def _order(self, n: int) -> Any:
        core = self._core_compiled
        assert core is not None
        order = _engine.permutation(n, core.seed, self._shuffles)
        self._shuffles += 1
        return order

    def _batches(self, network: Network, x: Any, y: Any, weight: Any, class_weight: Any, batch_size: int | None,
                 steps: int | None, shuffle: bool | str) -> _data.ArrayBatches | _data.StreamBatches:  # fmt: skip
        if _data.is_array(x):
            ready = self._prepare(network, x, y, weight, class_weight)
            return _data.ArrayBatches(
                *ready, self._batch_size(network, batch_size, len(ready[0])), steps, shuffle, self._order
            )
        if y is not None or weight is not None:
            raise ValueError("`y` and `sample_weight`: expected None where `x` is a data set that gives them itself")

        def prepare(x: Any, y: Any, w: Any) -> tuple[Any, Any, Any]:
            return self._prepare(network, x, y, w, class_weight)

        return _data.StreamBatches(x, prepare, steps, shuffle, self._order)

    def _batch_size(self, network: Network, batch_size: int | None, n: int) -> int:
        fixed = network.input_shape[0]
        if fixed is None:
            return batch_size or 32
        if batch_size not in (None, fixed) or n % fixed:
            raise ValueError(
                f"`batch_size`: the input's batch size is fixed to {fixed}: expected batch_size={fixed} and a multiple "
                f"of it as the number of samples, got batch_size={batch_size} and {n} samples"
            )
        return fixed

    # ---- fit

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool | str = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | list[int] = 1,
    ) -> History:
        """Trains the model.

        Args:
            x: an array of samples, or {name of the input: array}; or a generator, an iterable or a `PyDataset` that
                gives batches (x, y[, weights]).
            y: an array of targets.
            batch_size: samples per update, 32 where not given.
            epochs: the number of the epoch after the last one.
            verbose: 0 silent, 1 ("auto") a progress bar, 2 one line an epoch.
            callbacks: a list of callbacks.
            validation_split: share of the samples, from the end and before any shuffle, kept for validation.
            validation_data: (x, y[, weights]) or a data set, in place of that.
            shuffle: whether each epoch sees the samples in a new order; "batch" moves whole batches.
            class_weight: weights by class index; classes not named weigh 1.
            sample_weight: weights of the samples, or of the steps.
            initial_epoch: the number of the first epoch.
            steps_per_epoch: batches per epoch; the next epoch goes on from there.
            validation_steps, validation_batch_size: as the above, in validation, which begins at the first batch again.
            validation_freq: validate every so many epochs, or after the epochs listed (the first is 1).

        Returns:
            A `History`.

        Raises:
            ValueError, TypeError: what was wrong with the data, before a weight changes.
            RuntimeError: without `compile`.

        Example:
            >>> import numpy as np
            >>> from seqcore import Sequential, layers
            >>> model = Sequential([layers.Dense(1, input_shape=(2,))])
            >>> model.compile("sgd", "mse")
            >>> history = model.fit(np.ones((8, 2)), np.ones(8), epochs=2, verbose=0)
            >>> sorted(history.history)
            ['loss']
        """
        epochs = _engine.check_count(epochs, "epochs", 0)
        initial_epoch = _engine.check_count(initial_epoch, "initial_epoch", 0)
        batch_size, steps = (
            _engine.optional_count(batch_size, "batch_size"),
            _engine.optional_count(steps_per_epoch, "steps_per_epoch"),
        )
        verbose = _verbose(verbose)
        validates = _validation_freq(validation_freq)
        validation_split = _data.check_split(validation_split)
        if x is None:
            raise ValueError("`x`: expected samples, got None")
        x, network = self._source(x, "training")
        if validation_split and validation_data is None:
            if not _data.is_array(x):
                raise ValueError("`validation_split` is only supported for tensors or NumPy arrays")
            ready = self._prepare(network, x, y, sample_weight, None)
            (x, y, sample_weight), validation_data = _data.split_tail(list(ready), validation_split)
        batches = self._batches(network, x, y, sample_weight, class_weight, batch_size, steps, shuffle)
        validation = None
        if validation_data is not None:
            _data.check_source(validation_data, "validation_data")
            if _data.is_array(validation_data) and not isinstance(validation_data, (tuple, list)):
                raise ValueError(
                    f"`validation_data`: expected (x, y), (x, y, sample_weight) or a data set, got "
                    f"{type(validation_data).__name__}"
                )
            vx, vy, vw = _data.unpack(validation_data)
            vx = self._of_input(vx, "validation_data")
            validation = self._batches(
                network, vx, vy, vw, None,
                _engine.optional_count(validation_batch_size, "validation_batch_size") or batch_size,
                _engine.optional_count(validation_steps, "validation_steps"), False,
            )  # fmt: skip
        hooks = make_list(callbacks, self, verbose=verbose, epochs=epochs, steps=batches.steps)
        if self._averages_in_weights:  # from a fit that did not end
            self._swap_averages()
        self.stop_training = False
        self._trained = True
        self._initial_epoch = initial_epoch
        outer, self._fitting = self._fitting, True
        try:
            hooks.on_train_begin()
            logs = self._fit_epochs(network, batches, validation, hooks, range(self._initial_epoch, epochs), validates)
        finally:
            self._fitting = outer
        if self.optimizer is not None and self.optimizer.use_ema and epochs > initial_epoch:
            if self._averages_in_weights:
                self._swap_averages()
            network.core.finalize_ema()
        hooks.on_train_end(logs)
        history = hooks.history if hooks.history is not None else History()
        self._history = weakref.ref(history), {k: v for k, v in vars(history).items() if k != "_model"}
        return history

    def _swap_averages(self) -> None:
        """The weights trained by an optimizer with `use_ema` and their averages change places."""
        core = self._core_compiled
        assert core is not None
        averages = [(n, v) for n, v in core.optimizer_variables() if n.startswith("average/")]
        weights = [v for layer in self.layers for v in layer.variables]
        trained = [weights[int(n.rpartition("/")[2])] for n, _ in averages]
        now = [w.numpy() for w in trained]
        for weight, (_, average) in zip(trained, averages, strict=True):
            weight.assign(average)
        core.set_optimizer_variables([(n, w) for (n, _), w in zip(averages, now, strict=True)])
        self._averages_in_weights = not self._averages_in_weights

    def _fit_epochs(self, network: Network, batches: Any, validation: Any, hooks: CallbackList, epochs: range,
                    validates: int | frozenset[int]) -> dict[str, Any]:  # fmt: skip
        logs: dict[str, Any] = {}
        for epoch in epochs:
            hooks.on_epoch_begin(epoch)
            done = self._train_epoch(network, batches, hooks)
            if not done and epoch == epochs[0]:
                raise ValueError(_data.NO_BATCHES)
            if batches.ran_out:
                warnings.warn(
                    f"the data set ran out of data, training stops: it must give `steps_per_epoch * epochs` batches; "
                    f"this epoch had {done}",
                    stacklevel=3,
                )
            if not done:
                break
            logs = self._logs(network)
            if batches.steps is None:
                batches.steps = hooks.params["steps"] = done
            if validation is not None and _validates(epoch, validates):
                validation.rewind()  # always the same samples
                done, values = self._test_epoch(network, validation, hooks)
                if validation.ran_out:
                    warnings.warn(
                        f"the validation data ran out: they must give their batches anew for every validation, after "
                        f"epoch {epoch + 1} they gave {done}{'' if done else ', so that epoch has no val_ values'}",
                        stacklevel=3,
                    )
                logs = dict(sorted({**logs, **{f"val_{name}": value for name, value in values.items()}}.items()))
            hooks.on_epoch_end(epoch, logs)
            if self.stop_training or batches.ran_out:
                break
        return logs

    @property
    def history(self) -> History | None:
        """What the last `fit` returned."""
        # Held weakly, its contents strongly: a history knows its model, and a cycle would keep large models alive until
        # the collector comes by.
        if self._history is None:
            return None
        reference, contents = self._history
        found = reference()
        if found is None:
            found = History()
            vars(found).update(contents, _model=self)
            self._history = weakref.ref(found), contents
        return found

    def _source(self, x: Any, what: str) -> tuple[Any, Network]:
        """x, and the compiled network for it. Where the shapes must come from a data set, its first batch is looked at
        and kept."""
        x = self._of_input(x)
        _data.check_source(x, "x")
        if _data.is_array(x) or self._existing_network() is not None:
            return x, self._ready(x, what)
        if hasattr(x, "__getitem__") and hasattr(x, "__len__"):
            return x, self._ready(_data.unpack(x[0])[0], what)
        items = iter(x)
        try:
            first = next(items)
        except StopIteration:
            raise ValueError(_data.NO_BATCHES) from None
        network = self._ready(_data.unpack(first)[0], what)
        # A list can begin again; a generator cannot: its first batch is put back.
        return (x if items is not x else _data.put_back(first, items)), network

    def _train_epoch(self, network: Network, batches: Any, hooks: CallbackList) -> int:
        core, optimizer, counted = network.core, self.optimizer, self._metrics
        assert optimizer is not None and counted is not None
        network.claim()
        counted.reset(core)
        begin, end = hooks.batch_hooks["on_train_batch_begin"], hooks.batch_hooks["on_train_batch_end"]
        bar, train = hooks.bar, counted.step(core, train=True)
        skipped, done = core.skipped_steps, 0

        def logs() -> dict[str, Any]:
            return self._logs(network)

        for x, y, weight, rows in batches.epoch():
            if begin:
                hooks.on_train_batch_begin(done)
                network.claim()
            optimizer.set_rate_of(core)
            train(x, y, weight, rows)
            if core.skipped_steps != skipped:
                skipped = self._warn_skipped(core, skipped, done)
            if end:
                hooks.on_train_batch_end(done, logs())
                network.claim()
            done += 1
            if bar is not None:
                bar.step(done, logs)
            if self.stop_training:
                break
        return done

    def _warn_skipped(self, core: _engine.CoreModel, before: int, batch: int) -> int:
        if before == 0:
            warnings.warn(
                f"batch {batch} (update {core.iterations}): the gradient or a statistic is not finite, the update "
                f"was skipped; so will be later ones like it (`TerminateOnNaN` stops the training)",
                RuntimeWarning,
                stacklevel=4,
            )
        return core.skipped_steps

    def _test_epoch(
        self, network: Network, batches: Any, hooks: CallbackList, bar: bool = False
    ) -> tuple[int, dict[str, Any]]:
        """How many batches there were, and the logs: empty where there was none."""
        core, counted = network.core, self._metrics
        assert counted is not None
        self.stop_evaluating = False
        hooks.on_test_begin()
        network.pull()
        counted.reset(core)
        test = counted.step(core, train=False)
        begin, end = hooks.batch_hooks["on_test_batch_begin"], hooks.batch_hooks["on_test_batch_end"]
        done = 0
        for x, y, weight, rows in batches.epoch():
            if begin:
                hooks.on_test_batch_begin(done)
            test(x, y, weight, rows)
            if end:
                hooks.on_test_batch_end(done, self._logs(network))
            done += 1
            if bar and hooks.bar is not None:
                hooks.bar.step(done, lambda: self._logs(network))
            if self.stop_evaluating:
                break
        logs = self._logs(network) if done else {}
        hooks.on_test_end(logs)
        return done, logs

    def _logs(self, network: Network) -> dict[str, Any]:
        """The running loss and metrics, by name in order."""
        core, counted = network.core, self._metrics
        assert counted is not None
        values = dict(zip(counted.names, counted.results(core), strict=True))
        values["loss"] = core.loss_mean
        return dict(sorted(values.items()))

    def _results(self, network: Network, return_dict: bool) -> Any:
        if return_dict:
            return self._logs(network)
        assert self._metrics is not None
        values = [network.core.loss_mean, *self._metrics.results(network.core)]
        return values if len(values) > 1 else values[0]

    # ---- the rest

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """The loss and metrics on data.

        Args:
            x, y, batch_size, sample_weight, callbacks, verbose: as in `fit`.
            steps: batches to look at, all where not given.
            return_dict: whether names come with the values.

        Returns:
            The loss; [loss, *metrics] where there are metrics; or a dict.
        """
        if x is None:
            raise ValueError("`x`: expected samples, got None")
        verbose = _verbose(verbose)
        x, network = self._source(x, "evaluation")
        batches = self._batches(
            network,
            x,
            y,
            sample_weight,
            None,
            _engine.optional_count(batch_size, "batch_size"),
            _engine.optional_count(steps, "steps"),
            False,
        )
        hooks = make_list(callbacks, self, verbose=verbose, epochs=1, steps=batches.steps)
        if hooks.bar is not None:
            hooks.bar.begin()
        done, logs = self._test_epoch(network, batches, hooks, bar=True)
        if not done:
            raise ValueError(_data.NO_BATCHES)
        _warn_short(batches, done)
        if hooks.bar is not None:
            hooks.bar.finish(logs)
        return self._results(network, return_dict)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        precision: str = "float32",
    ) -> Any:
        """What the model gives for `x`, in inference mode, as a float32 array (a list where the last layer has several
        outputs). May be called from many threads at once.

        Args:
            x: an array of samples, {name of the input: array}, or a data set as in `fit`, whose targets are dropped.
            batch_size: samples at a time; the results do not depend on it.
            verbose: 0 silent, 1 ("auto") a progress bar, 2 one line.
            steps: batches to look at, all where not given.
            callbacks: a list of callbacks.
            precision: in which the weights of products are read: "float32", "bfloat16" or "int8" (README tells what
                each costs and gains). The model's own weights stay as they are.
        """
        size, steps = _engine.optional_count(batch_size, "batch_size"), _engine.optional_count(steps, "steps")
        verbose = _verbose(verbose)
        _engine.check_precision(precision)
        if self._several and precision != "float32":
            raise ValueError(f"`precision`: a model with several outputs predicts in float32 only, got {precision!r}")
        x = self._of_input(x)
        stream: _data.StreamBatches | None = None
        once, together = 1, None  # batches at a time: several, of `together` samples each, where nobody hears of each
        _data.check_source(x, "x")
        if _data.is_array(x):
            network = self._network_for(x)
            ready = network.prepare(x)
            network.pull()
            size = self._batch_size(network, size, len(ready))
            if steps is not None:
                ready = ready[: steps * size]
            if callbacks is None and not self._several:
                if not verbose:
                    return network.core.predict(ready, size, precision)
                once, together = max(1, _SAMPLES_AT_ONCE // size), size
            total: int | None = -(-len(ready) // size)
            parts: Iterator[Any] = (ready[i : i + once * size] for i in range(0, len(ready), once * size))
        else:
            stream = _data.StreamBatches(x, lambda x, y, w: (x, None, None), steps, False, self._order)
            total, parts = stream.steps, (batch[0] for batch in stream.epoch())
        hooks = make_list(callbacks, self, verbose=verbose, epochs=1, steps=total)
        end = hooks.batch_hooks["on_predict_batch_end"]
        if hooks.bar is not None:
            hooks.bar.begin()
        hooks.on_predict_begin()
        self.stop_predicting = False
        results: list[Any] = []
        for i, part in enumerate(parts):
            hooks.on_predict_batch_begin(i)
            results.append(self._predict_on_batch(part, precision, together))
            if end:
                hooks.on_predict_batch_end(i, {"outputs": results[-1]})
            if hooks.bar is not None:
                hooks.bar.step(min((i + 1) * once, total or i + 1), dict)
            if self.stop_predicting:
                break
        if not results:
            raise ValueError(_data.NO_BATCHES)
        if stream is not None:
            _warn_short(stream, len(results))
        hooks.on_predict_end()
        if hooks.bar is not None:
            hooks.bar.finish({})
        if self._several:
            return [np.concatenate(outputs) for outputs in zip(*results, strict=True)]
        return np.concatenate(results)

    @property
    def _several(self) -> bool:
        return bool(self.layers and self.layers[-1].several_outputs)

    def predict_on_batch(self, x: Any) -> Any:
        """What the model gives for one batch."""
        return self._predict_on_batch(x, "float32")

    def _predict_on_batch(self, x: Any, precision: str, batch_size: int | None = None) -> Any:
        x = self._of_input(x)
        network = self._network_for(x)
        ready = network.prepare(x)
        network.pull()
        if self._several:
            return network.core.forward(ready, False, None, None)[0]
        return network.core.predict(ready, batch_size or len(ready), precision)

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """One update on one batch.

        Args:
            x, y, sample_weight, class_weight: as in `fit`.
            return_dict: whether names come with the values.

        Returns:
            The loss, or [loss, *metrics], or a dict: of this batch, before the update.
        """
        network = self._ready(x, "training")
        ready = self._prepare(network, x, y, sample_weight, class_weight)
        core, optimizer, counted = network.core, self.optimizer, self._metrics
        assert optimizer is not None and counted is not None
        network.claim()
        self._trained = True
        optimizer.set_rate_of(core)
        skipped = core.skipped_steps
        counted.reset(core)
        counted.step(core, train=True)(*ready, None)
        if core.skipped_steps != skipped:
            self._warn_skipped(core, skipped, 0)
        return self._results(network, return_dict)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """The loss and metrics of one batch, as `train_on_batch` returns them; nothing is updated."""
        network = self._ready(x, "evaluation")
        ready = self._prepare(network, x, y, sample_weight)
        network.pull()
        counted = self._metrics
        assert counted is not None
        counted.reset(network.core)
        counted.step(network.core, train=False)(*ready, None)
        return self._results(network, return_dict)


def _only(value: Any, n: int) -> Any:
    """Keras's [value] for a model of one output: the value, where that has the samples."""
    one: Any = value[0] if type(value) in (list, tuple) and len(value) == 1 else None
    return one if hasattr(one, "ndim") and one.ndim > 0 and len(one) == n > 1 else value


def _of_output(value: Any, output: str | None, name: str) -> Any:
    """Of Keras's {output: value} the value."""
    if not isinstance(value, dict) or "class_name" in value:
        return value
    if list(value) != [output]:
        raise ValueError(f"`{name}`: expected one entry, for the only output, {output!r}; got {list(value)}")
    return value[output]


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        if len(value) == 1 and isinstance(value[0], (list, tuple)):  # one list per output
            return list(value[0])
        return list(value)
    return [value]


def _said(metric: Any) -> Any:
    return to_config(_metric_module.get(metric) if isinstance(metric, dict) else metric)


def _check_metric(identifier: Any) -> None:
    _metric_module.resolve(identifier, (None, 2), False)


def _verbose(value: Any) -> int:
    if value == "auto":
        return 1
    if value not in (0, 1, 2):
        raise ValueError(f"`verbose`: expected 0, 1, 2 or 'auto', got {value!r}")
    return int(value)


def _validation_freq(value: Any) -> int | frozenset[int]:
    if isinstance(value, (list, tuple, set, frozenset, range)):
        return frozenset(_engine.check_count(epoch, "validation_freq") for epoch in value)
    return _engine.check_count(value, "validation_freq")


def _validates(epoch: int, freq: int | frozenset[int]) -> bool:
    return (epoch + 1) % freq == 0 if isinstance(freq, int) else epoch + 1 in freq


def _warn_short(batches: _data.ArrayBatches | _data.StreamBatches, done: int) -> None:
    if batches.short:
        warnings.warn(f"`steps`: the data set ran out after {done} of {batches.steps} batches", stacklevel=3)
