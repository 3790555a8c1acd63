"""What a file says of training: the optimizer with its state, the loss, the metrics. Read and written."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _engine, losses, metrics, optimizers
from .._config import check_mapping, to_config
from .._custom_objects import get_registered_name, key_of
from .._stored import named_metrics
from ..optimizers import schedules
from ._containers import Hdf5
from ._descriptions import NO_WORDS, described, known_words, plain
from ._weights import put_group

if TYPE_CHECKING:
    from ..models import Sequential

# How the optimizers before TensorFlow 2.11 end the names of their slots.
_OLD_SLOTS = {"m": "momentum", "v": "velocity", "vhat": "velocity_hat", "momentum": "momentum", "rms": "velocity",
              "mg": "average_gradient", "accumulator": "accumulator", "linear": "linear",
              "accum_grad": "accumulated_grad", "accum_var": "accumulated_delta_var"}  # fmt: skip
_PRODUCT = "u_product"  # Nadam's number


def compile_model(model: Sequential, training: Mapping[str, Any], file: Hdf5, old: bool,
                  own: Mapping[str, Any]) -> None:  # fmt: skip
    chosen = _optimizer(training.get("optimizer_config", training.get("optimizer")))
    weights = training.get("loss_weights")
    while isinstance(weights, (list, dict)) and len(weights) == 1:
        weights = next(iter(weights.values() if isinstance(weights, dict) else weights))
    model.compile(
        chosen,
        _loss(training.get("loss")),
        weights or None,
        metrics=[_metric(m, own) for m in _flat(training.get("metrics"))],
        weighted_metrics=[_metric(m, own) for m in _flat(training.get("weighted_metrics"))],
    )
    _restore(model, chosen, *_variables(file), old)


def take_state(file: Hdf5, model: Sequential, path: str) -> None:
    """The optimizer's state to one that has made a step, or is about to in a `fit`, as in Keras: before, its optimizers
    have nothing to put it into."""
    found, names = _variables(file)
    optimizer, core = model.optimizer, model._core_compiled
    if optimizer is None or core is None or not found or names:
        return
    if not (model._fitting or core.iterations + core.accumulated):
        return
    try:
        if len(found) != len(optimizer.variables):
            raise ValueError(f"it has {len(optimizer.variables)} variables, that in the file {len(found)}")
        _restore(model, optimizer, found, names, old=False)
    except ValueError as error:
        warnings.warn(f"{path}: the state of the optimizer does not fit and is left alone: {error}", stacklevel=5)


def described_compile(model: Sequential) -> dict[str, Any]:
    """Keras's description of what `compile` was given.

    Raises:
        ValueError: Keras has no words for it.
    """
    optimizer, loss = model.optimizer, model._loss
    assert optimizer is not None
    kind = type(optimizer).__name__
    if optimizers._registry.classes.get(kind) is not type(optimizer):
        raise ValueError(f"the optimizer is a {kind} of your own, {NO_WORDS}")
    config = optimizer.get_config()
    if optimizer.weight_decay and not all(model._decays_at_compile):
        raise ValueError(f"weights are excluded from the optimizer's weight decay, {NO_WORDS}")
    if optimizer.schedule is not None:
        if not schedules.is_known(optimizer.schedule):
            raise ValueError(f"`learning_rate` of the optimizer is a function or a schedule of your own, {NO_WORDS}")
        schedule = to_config(optimizer.schedule)
        config["learning_rate"] = described("optimizers.schedules", **schedule)
    return {
        "optimizer": described("optimizers", kind, config),
        "loss": None if loss is None else described("losses", type(loss).__name__, _said(loss)),
        "loss_weights": None,
        **{
            key: [_described_metric(metric, name) for name, metric in some]
            for key, some in zip(("metrics", "weighted_metrics"), named_metrics(model), strict=True)
        },
    }


def _said(item: losses.Loss | metrics.Metric) -> dict[str, Any]:
    """The config without what is so anyway: versions of Keras that know fewer words read it, too."""
    return {k: v for k, v in item.get_config().items() if k not in item._args or v != item._args[k].default}


def _described_metric(metric: metrics.Metric, name: str) -> dict[str, Any]:
    """Functions and classes of one's own are said by their names, as in Keras: who reads them has `custom_objects`."""
    kind = type(metric).__name__
    if isinstance(metric, metrics.MeanMetricWrapper):
        function = {"module": "builtins", "class_name": "function", "config": metric.registered_name,
                    "registered_name": "function"}  # fmt: skip
        if name == metric.fn_name and not metric.kwargs:
            return function
        return described("metrics", kind, {**_said(metric), "name": name, "fn": function})
    if metrics._registry.classes.get(kind) is not type(metric):
        config = {**metric.get_config(), "name": name}
        return {"module": None, "class_name": kind, "config": config,
                "registered_name": get_registered_name(type(metric))}  # fmt: skip
    return described("metrics", kind, {**_said(metric), "name": name})


def put_state(file: Any, model: Sequential, whole: bool) -> None:
    """The state of a compiled model's optimizer into an HDF5 file, as Keras 3 has it.

    Args:
        file: the HDF5 file.
        model: the model.
        whole: whether the file describes the model too. Who loads it has slots for the weights that are trained now.

    Raises:
        ValueError: there is no such slot, as a layer was unfrozen after the optimizer's first step.
    """
    optimizer, core = model.optimizer, model._core_compiled
    assert optimizer is not None and core is not None
    slots = dict(core.optimizer_variables())
    if whole:
        flags = model._trainable_now()
        now = [flag and not v.statistic for layer in model.layers
               for v, flag in zip(layer.variables, flags[id(layer)], strict=True)]  # fmt: skip
        have = {int(name.partition("/")[2]) for name in slots if "/" in name}
        missing = [v.path for i, v in enumerate(model.weights) if now[i] and have and i not in have]
        if missing:
            raise ValueError(
                f"the optimizer knows nothing of {missing[0]!r}, which was not trainable in its first step: call "
                f"compile again"
            )
        slots = {n: v for n, v in slots.items() if "/" not in n or now[int(n.partition("/")[2])]}
    rate = [] if optimizer.schedule is not None else [np.float32(optimizer.current_learning_rate(core))]
    values = [np.int64(optimizer.batches(core)), *rate, *(slots[name] for name in optimizer.slot_order(slots))]
    put_group(file, "optimizer", str(optimizer.name), values)


def _optimizer(item: Any) -> optimizers.Optimizer:
    if isinstance(item, str):
        item = {"class_name": item, "config": {}}
    name, config = plain(check_mapping(item, "the description of the optimizer"))
    rate = config.pop("lr", None)
    if rate is not None:
        config["learning_rate"] = rate
    decay = config.pop("decay", 0)
    found = optimizers._registry.classes.get(name)
    if decay and found is not None:
        begin = config.get("learning_rate", found._args["learning_rate"].default)
        config["learning_rate"] = {
            "class_name": "InverseTimeDecay",
            "config": {"initial_learning_rate": begin, "decay_steps": 1, "decay_rate": decay},
        }
    return optimizers.deserialize({"class_name": name, "config": known_words(found, config)})


def _loss(item: Any) -> Any:
    while (isinstance(item, list) or (isinstance(item, dict) and "class_name" not in item)) and len(item) == 1:
        item = item[0] if isinstance(item, list) else next(iter(item.values()))
    if item is None:
        return None
    if not isinstance(item, Mapping) or item.get("class_name") == "function":
        return losses.get(_function(item))
    name, config = plain(item)
    config.pop("dtype", None)
    if config.get("reduction") == "auto":
        del config["reduction"]
    if name in ("LossFunctionWrapper", "MeanLossWrapper"):
        name = _function(config.pop("fn", None))
        resolved = losses.resolve(losses.get(name))
        name = type(resolved).__name__
    found = losses._registry.classes.get(name)
    return losses.deserialize({"class_name": name, "config": known_words(found, config)})


def _function(item: Any) -> str:
    """A function's name, which is all that files say of it."""
    return str(item.get("config") if isinstance(item, Mapping) else item)


def _flat(items: Any) -> Iterator[Any]:
    """Lists of lists, or dicts of lists by the output's name, in one row."""
    if isinstance(items, dict) and "class_name" not in items:
        items = list(items.values())
    if isinstance(items, list):
        for item in items:
            yield from _flat(item)
    elif items is not None:
        yield items


def _metric(item: Any, own: Mapping[str, Any]) -> Any:
    if isinstance(item, Mapping) and item.get("class_name") == "function":
        item = _function(item)
    if isinstance(item, str):
        return item if key_of(item, own) is None else metrics.described(item, own)
    item = check_mapping(item, "the description of a metric")
    name, config = plain(item)
    config.pop("dtype", None)
    name = key_of(item.get("registered_name"), own) or key_of(name, own) or name
    if name == "MeanMetricWrapper":
        fn = _function(config.pop("fn", None))
        if key_of(fn, own) is not None:
            return metrics.described({"class_name": name, "config": {**config, "fn": fn}}, own)
        name = type(metrics.get(fn)).__name__
    found = metrics._registry.classes.get(name) if name not in own else None
    return metrics.described({"class_name": name, "config": known_words(found, config)}, own)


def _variables(file: Hdf5) -> tuple[list[Any], list[str]]:
    """The optimizer's datasets in their order, and their names where files have such."""
    if "optimizer_weights" in file.groups:
        names = file.texts("optimizer_weights", "weight_names") or []
        return [file.dataset(f"optimizer_weights/{n}") for n in names], [n.rpartition(":")[0] or n for n in names]
    found: list[Any] = []
    while f"optimizer/vars/{len(found)}" in file.datasets:
        found.append(file.datasets[f"optimizer/vars/{len(found)}"])
    return found, []


def _restore(model: Sequential, optimizer: optimizers.Optimizer, found: Sequence[Any], names: Sequence[str],
             old: bool) -> None:  # fmt: skip
    """Iterations, learning rate and slots."""
    core = model._core_compiled
    assert core is not None
    if not found:
        warnings.warn("the file has no state of the optimizer, which begins anew", stacklevel=5)
        return
    scalars = 0
    while scalars < min(2, len(found)) and found[scalars].shape == ():
        scalars += 1
    if not scalars or found[0].dtype.kind not in "iu" or any(d.dtype.kind != "f" for d in found[1:]):
        raise ValueError("the optimizer's variables: expected the number of iterations, an integer, then floats")
    slots, named = list(found[scalars:]), list(names[scalars:])
    expected = {n for n, _ in core.optimizer_variables()}
    products: list[Any] = []
    if _PRODUCT in expected:
        expected.remove(_PRODUCT)
        if names and scalars > 1 and names[1].rpartition("/")[2] == "momentum_cache":  # before TensorFlow 2.11
            products, scalars = [found[1]], 1
        else:
            products, slots, named = slots[-1:], slots[:-1], named[:-1]
    order = _slot_order(type(optimizer), sorted(expected), named, old)
    if not expected and isinstance(optimizer, optimizers.SGD):
        slots = []  # tf.keras keeps momentum that it does not use
    batches = int(found[0][()])
    if not 0 <= batches < 2**53:
        raise ValueError(f"the optimizer's iterations: expected a natural number, got {batches}")
    if slots or batches:  # else it was never asked for an update
        shapes = {n: v.shape for n, v in enumerate(model.weights)}
        if len(slots) != len(order):  # those of layers that were frozen later are there, too
            of_gradients = [i for i, v in enumerate(model.weights) if not v.statistic]
            every = sorted({f"{n.rpartition('/')[0]}/{i}" for n in expected for i in of_gradients})
            whole = _slot_order(type(optimizer), every, named, old)
            order = whole if len(slots) == len(whole) else order
        if len(slots) != len(order):
            raise ValueError(f"the optimizer has {len(expected)} variables in slots, the file {len(slots)}")
        for name, dataset in zip(order, slots, strict=True):
            shape = shapes[int(name.rpartition("/")[2])]
            if dataset.shape != shape:
                raise ValueError(f"the optimizer's {name}: expected shape {shape}, got {dataset.shape}")
        pairs = [(name, dataset) for name, dataset in zip(order, slots, strict=True) if name in expected]
        pairs += [(_PRODUCT, product) for product in products]
        core.set_optimizer_variables([(name, _engine.to_float(dataset[()], name)) for name, dataset in pairs])
    if scalars > 1 and optimizer.schedule is None:
        optimizer.learning_rate = float(found[1][()])
    # Keras counts batches, also those that only accumulate.
    core.iterations, core.accumulated = divmod(batches, optimizer.gradient_accumulation_steps or 1)
    model._trained = batches > 0


def _slot_order(kind: type[optimizers.Optimizer], ours: Sequence[str], theirs: Sequence[str],
                old: bool) -> list[str]:  # fmt: skip
    """The names that the file's slots have here, in the file's order."""
    indices = sorted({int(n.rpartition("/")[2]) for n in ours})
    have = {n.rpartition("/")[0] for n in ours}
    ends = [_OLD_SLOTS.get(n.rpartition("/")[2]) for n in theirs]
    if kind is optimizers.Adamax:
        ends = ["norm" if end == "velocity" else end for end in ends]
    if theirs and all(ends):  # slot by slot
        seen: Counter[Any] = Counter()
        places = []
        for end in ends:
            if end not in have or seen[end] == len(indices):
                return []
            places.append(f"{end}/{indices[seen[end]]}")
            seen[end] += 1
        return places if len(places) == len(ours) else []
    if old and len(have) > 1 and theirs and not re.match(r"[^/]+/(m|velocity|average)/", theirs[0]):
        raise ValueError(f"the optimizer's variables have names of a form that is not known: {theirs[0]!r}")
    return kind.slot_order(ours)
