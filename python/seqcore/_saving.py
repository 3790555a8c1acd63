"""Files: one `.safetensors` file holds a model. Tensors "layers/<i>/<weight>" and "optimizer/<slot>/<i>"; all else is
JSON in the metadata key "seqcore". What is read is data: names are looked up in closed lists, nothing is executed.
Keras's own files are those of `_keras_files`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import _engine, losses, metrics, optimizers
from ._config import to_config
from ._custom_objects import get_registered_name
from ._stored import assign, check_sizes, named_metrics, weight_names

if TYPE_CHECKING:
    from .models import Sequential

_FORMAT = 1
_KERAS = (".keras", ".h5", ".hdf5")
READ, MODEL, WEIGHTS = (".safetensors", *_KERAS), (".safetensors", ".keras"), (".safetensors", ".weights.h5")


def check_path(filepath: Any, suffixes: tuple[str, ...]) -> str:
    """The path, if it ends in one of these and the file can be read or written: Keras's need h5py."""
    path = os.fspath(filepath)
    if not isinstance(path, str):
        raise TypeError(f"`filepath`: expected a string, got {type(path).__name__}")
    if "\0" in path:
        raise ValueError(f"`filepath`: expected a path without null characters, got {path!r}")
    if not path.endswith(suffixes):
        suffix = os.path.splitext(path)[1] or "no suffix"
        hint = "; of Keras's files .keras are written, and .weights.h5 of weights alone; the older .h5 are only read"
        raise ValueError(
            f"`filepath`: expected a path ending in {' or '.join(suffixes)}; got {suffix}: {path!r}"
            f"{hint if suffix in _KERAS else ''}"
        )
    if path.endswith(_KERAS):
        from ._keras_files import h5py_module

        h5py_module()
    return path


def _read(path: str) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        return _engine.read_safetensors(os.fsencode(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _check_overwrite(path: str, overwrite: bool) -> None:
    if not overwrite and os.path.exists(path):
        raise FileExistsError(f"`filepath`: {path!r} exists and overwrite=False")


def _weights(model: Sequential) -> dict[str, Any]:
    return dict(zip(weight_names(model), model.get_weights(), strict=True))


def save_weights(model: Sequential, filepath: Any, overwrite: bool) -> None:
    path = check_path(filepath, WEIGHTS)
    _check_overwrite(path, overwrite)
    if path.endswith(_KERAS):
        from . import _keras_files

        return _keras_files.save_weights(model, path)
    _engine.write_safetensors(os.fsencode(path), _weights(model), {"format": "seqcore-weights"})


def save_model(model: Sequential, filepath: Any, overwrite: bool, include_optimizer: bool, zipped: bool | None) -> None:
    path = check_path(filepath, MODEL)
    _check_overwrite(path, overwrite)
    if path.endswith(_KERAS):
        if zipped not in (None, True):
            raise ValueError(f"`zipped`: a .keras file is a zip file, no folder; expected True or None, got {zipped!r}")
        from . import _keras_files

        return _keras_files.save_model(model, path, include_optimizer)
    header, tensors = pack(model, include_optimizer)
    _engine.write_safetensors(os.fsencode(path), tensors, {"format": "seqcore", "seqcore": json.dumps(header)})


def check_model(model: Sequential, path: str) -> None:
    """Whether a file that ends so can hold the (built) model; ValueError says what it cannot."""
    if path.endswith(_KERAS):
        from . import _keras_files

        _keras_files.check(model)


def pack(model: Sequential, include_optimizer: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """Everything there is to a built model: JSON and tensors."""
    tensors = _weights(model)
    header: dict[str, Any] = {
        "format_version": _FORMAT,
        "seqcore_version": _engine.__version__,
        "model": {"class_name": "Sequential", "config": model.get_config()},
        "seed": model.seed,
        "trained": model._trained,
    }
    as_at_inference = [i for i, layer in enumerate(model.layers) if layer.inference_only]
    if as_at_inference:
        header["as_at_inference"] = as_at_inference
    network = model._existing_network()
    assert network is not None
    if model.compiled and include_optimizer:
        model._compiled_network(network, "saving")
        core, optimizer = network.core, model.optimizer
        assert optimizer is not None
        plain, weighted = ([{**to_config(m), "name": n} for n, m in some] for some in named_metrics(model))
        header["compile"] = {
            "optimizer": to_config(optimizer),
            "loss": to_config(model._loss),
            "metrics": plain,
            "weighted_metrics": weighted,
            "trainable": [any(model._trainable_at_compile[id(layer)]) for layer in model.layers],
        }
        if not all(model._decays_at_compile):
            header["compile"]["weight_decay"] = model._decays_at_compile
        header["state"] = {
            "iterations": core.iterations,
            "accumulated": core.accumulated,
            "learning_rate": core.learning_rate,
            "rng_seed": core.seed,
            "rng_counter": core.rng_counter,
            "shuffles": model._shuffles,
        }
        tensors.update({f"optimizer/{name}": value for name, value in core.optimizer_variables()})
    return header, tensors


def load_weights(model: Sequential, filepath: Any, skip_mismatch: bool) -> None:
    path = check_path(filepath, READ)
    if path.endswith(_KERAS):
        from . import _keras_files

        return _keras_files.load_weights(model, path, skip_mismatch)
    tensors, _ = _read(path)
    assign(model, tensors, path, skip_mismatch)


def load_model(
    kind: type[Sequential], filepath: Any, compile: bool, custom_objects: Mapping[str, Any] | None
) -> Sequential:
    """The model in a file, a `kind`."""
    path = check_path(filepath, READ)
    if path.endswith(_KERAS):
        from . import _keras_files

        return _keras_files.load_model(kind, path, compile, custom_objects)
    tensors, metadata = _read(path)
    if "seqcore" not in metadata:
        raise ValueError(
            f"{path}: no seqcore model: the description is missing (a file of weights alone? use load_weights)"
        )
    try:
        return unpack(kind, json.loads(metadata["seqcore"]), tensors, path, compile, custom_objects)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except (AttributeError, IndexError, KeyError, MemoryError, OverflowError, RecursionError, TypeError) as error:
        raise ValueError(f"{path}: the description is damaged: {type(error).__name__}: {error}") from error


def unpack(kind: type[Sequential], header: dict[str, Any], tensors: dict[str, Any], path: str, compile: bool,
           custom_objects: Mapping[str, Any] | None) -> Sequential:  # fmt: skip
    """The model that `pack` took apart, a `kind`. custom_objects: metrics of the caller's own, by name."""
    if header.get("format_version") != _FORMAT:
        raise ValueError(
            f"format_version {header.get('format_version')!r} is not known to this version of seqcore, "
            f"which reads {_FORMAT}"
        )
    check_sizes(header["model"], tensors)
    model = kind._from_description(header["model"])
    model.seed = _natural(header, "seed")
    for i in header.get("as_at_inference", ()):
        model.layers[i].as_at_inference()
    if model._existing_network() is None:
        raise ValueError("the description has no input shape")
    assign(model, tensors, path, skip_mismatch=False)
    described = header.get("compile")
    if compile and described is not None:
        flags = described["trainable"]
        if len(flags) != len(model.layers):
            raise ValueError(f"expected a `trainable` flag a layer, got {len(flags)} for {len(model.layers)} layers")
        now = [layer.trainable for layer in model.layers]
        for layer, flag in zip(model.layers, flags, strict=True):
            layer.trainable = bool(flag)
        optimizer = optimizers.deserialize(described["optimizer"])
        decays = described.get("weight_decay")
        if decays is not None:
            kept = [v for v, decay in zip(model.weights, decays, strict=True) if not decay]
            optimizer.exclude_from_weight_decay(kept)
        model.compile(
            optimizer,
            None if described["loss"] is None else losses.deserialize(described["loss"]),
            metrics=[_metric(m, custom_objects) for m in described["metrics"]],
            weighted_metrics=[_metric(m, custom_objects) for m in described["weighted_metrics"]],
        )
        for layer, flag in zip(model.layers, now, strict=True):
            layer.trainable = flag
        _take_state(model, header["state"], tensors)
    model._trained = bool(header.get("trained", False))
    return model


def _take_state(model: Sequential, state: dict[str, Any], tensors: dict[str, Any]) -> None:
    """All that training goes on from, but for the weights, into a compiled model."""
    core = model._core_compiled
    assert core is not None and model.optimizer is not None
    slots = [(n.removeprefix("optimizer/"), v) for n, v in tensors.items() if n.startswith("optimizer/")]
    expected = {n for n, _ in core.optimizer_variables()}
    if {n for n, _ in slots} != expected:
        raise ValueError(f"the optimizer's tensors are not {sorted(expected)[:4]} …")
    core.set_optimizer_variables([(n, _engine.to_float(v, n)) for n, v in slots])
    core.iterations, core.accumulated = _natural(state, "iterations"), _natural(state, "accumulated")
    core.learning_rate = float(state["learning_rate"])
    core.seed, core.rng_counter = _natural(state, "rng_seed"), _natural(state, "rng_counter")
    model._shuffles = _natural(state, "shuffles")


def save_backup(model: Sequential, path: str, epoch: int) -> None:
    """The model as `save_model` writes it, and the epoch that `fit` would begin with."""
    swapped = model._averages_in_weights  # they are no place to go on from
    if swapped:
        model._swap_averages()
    header, tensors = pack(model)
    if swapped:
        model._swap_averages()
    metadata = {"format": "seqcore", "seqcore": json.dumps(header), "training": json.dumps({"epoch": epoch})}
    _engine.write_safetensors(os.fsencode(path), tensors, metadata)


def load_backup(model: Sequential, path: str) -> int:
    """Puts weights and the state of training back into the model; the epoch to begin with.

    Raises:
        ValueError: the file is damaged, or of another model.
    """
    tensors, metadata = _read(path)
    try:
        state = json.loads(metadata["seqcore"])["state"]
        epoch = _natural(json.loads(metadata["training"]), "epoch")
        network = model._existing_network()
        assert network is not None and model.optimizer is not None
        model._compiled_network(network, "a backup")
        before = pack(model)
        try:
            assign(model, tensors, path, skip_mismatch=False)
            _take_state(model, state, tensors)
            if model.optimizer.schedule is None:
                model.optimizer.learning_rate = float(state["learning_rate"])
        except (KeyError, TypeError, ValueError):
            assign(model, before[1], path, skip_mismatch=False)
            _take_state(model, before[0]["state"], before[1])
            raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: no backup of this model: {error}") from error
    return epoch


def own_metrics(model: Sequential) -> dict[str, Any]:
    """The `custom_objects` that the model's metrics need."""
    own: dict[str, Any] = {}
    for metric in model.metrics:
        if isinstance(metric, metrics.MeanMetricWrapper):
            own[metric.registered_name] = metric.fn
        elif type(metric) not in metrics._registry.classes.values():
            own[get_registered_name(type(metric))] = type(metric)
    return own


def _metric(description: dict[str, Any], custom_objects: Mapping[str, Any] | None) -> metrics.Metric:
    try:
        metric = metrics.described(description, custom_objects or {})
    except ValueError as error:
        raise ValueError(f"{error} (or load the model with compile=False)") from None
    assert metric is not None
    metric.name = str(description["name"])
    return metric


def _natural(values: dict[str, Any], key: str) -> int:
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"expected `{key}` to be a natural number, got {value!r}")
    return value
