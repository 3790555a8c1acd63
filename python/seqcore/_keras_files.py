"""Keras's files, read: `.keras`, `.weights.h5`, and the older `.h5` of whole models and of weights alone.

All of it is material from elsewhere: links and storage outside the file are refused, sizes are compared with what the
file holds before memory is taken, and names are looked up in closed lists. Nothing is ever executed."""

from __future__ import annotations

import importlib
import io
import json
import math
import os
import re
import struct
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, BinaryIO

from . import _engine, constraints, initializers, layers, losses, metrics, optimizers, regularizers
from ._config import Configurable, Registry, check_mapping, snake_case
from ._network import Shape, chain_shapes
from ._saving import _assign, _check_sizes, _weight_names
from .layers import Bidirectional, Dense, Embedding, Layer, LayerNormalization, TimeDistributed
from .layers._recurrent import Recurrent
from .models import Sequential

_MOST_OBJECTS = 200_000  # groups and datasets in a file
_SMALL = 1 << 16  # bytes that may be claimed without being there
_LARGEST_RATIO = 64  # of what packed data claim to be to what they are
_LARGEST_TEXT = 1 << 26
_HOMES: dict[str, Registry[Any]] = {
    "initializer": initializers._registry, "regularizer": regularizers._registry, "constraint": constraints._registry,
}  # fmt: skip
_GATES = {"SimpleRNN": 1, "LSTM": 4, "GRU": 3}
# Slots in Keras's order: the groups one after another, those in one group variable by variable.
_SLOTS = {
    "SGD": [["momentum"]],
    "Adam": [["momentum", "velocity"], ["velocity_hat"]],
    "AdamW": [["momentum", "velocity"], ["velocity_hat"]],
    "RMSprop": [["velocity"], ["momentum"], ["average_gradient"]],
}
# How the optimizers before TensorFlow 2.11 end the names of their slots.
_OLD_SLOTS = {"m": "momentum", "v": "velocity", "vhat": "velocity_hat", "momentum": "momentum", "rms": "velocity",
              "mg": "average_gradient"}  # fmt: skip
# Words that Keras's newer or older configs have and layers here do not, where they say what happens here anyway.
_SAID_ANYWAY = {"data_format": "channels_last", "input_dtype": "float32"}
_DAMAGED = (ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError, TypeError,
            UnicodeError, struct.error, zipfile.BadZipFile, zlib.error)  # fmt: skip


def _h5py() -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise ImportError(
            "Keras's files are read by h5py, which is not installed: pip install 'seqcore[keras-files]'"
        ) from error


@contextmanager
def _named(path: str) -> Iterator[None]:
    """All that can be wrong with a file is a ValueError that begins with its path."""
    try:
        yield
    except ImportError:
        raise
    except _DAMAGED as error:
        raise ValueError(f"{path}: the file is damaged: {type(error).__name__}: {error}") from error
    except ValueError as error:
        if str(error).startswith(f"{path}: "):
            raise
        raise ValueError(f"{path}: {error}") from error


# ---- containers


class _Hdf5:
    """An HDF5 file's groups and datasets by their paths, each of them inside the file and as large as it says."""

    def __init__(self, file: BinaryIO) -> None:
        h5py = _h5py()
        self._links, self._size = (h5py.SoftLink, h5py.ExternalLink), file.seek(0, os.SEEK_END)
        self._stored = 0  # bytes of all datasets so far; no two share any
        file.seek(0)
        try:
            self.root = h5py.File(file, "r")
        except OSError as error:
            raise ValueError(f"no HDF5 file: {error}") from error
        self.groups: dict[str, Any] = {"": self.root}
        self.datasets: dict[str, Any] = {}
        seen, pending = {h5py.h5o.get_info(self.root.id).addr}, [("", self.root)]
        while pending:
            path, group = pending.pop()
            for name in group:
                # Files written on Windows may have backslashes in names.
                inner = f"{path}/{name}".replace("\\", "/").strip("/")
                link = group.get(name, getlink=True)
                if isinstance(link, self._links):
                    raise ValueError(f"`{inner}` is a link ({type(link).__name__}), which is refused")
                if len(seen) + len(self.datasets) > _MOST_OBJECTS:
                    raise ValueError(f"expected at most {_MOST_OBJECTS} groups and datasets")
                item = group[name]
                if isinstance(item, h5py.Dataset):
                    self._check(inner, item)
                    self.datasets[inner] = item
                elif isinstance(item, h5py.Group):
                    address = h5py.h5o.get_info(item.id).addr
                    if address in seen:
                        raise ValueError(f"`{inner}` is a group that stands elsewhere too, which is refused")
                    seen.add(address)
                    self.groups[inner] = item
                    pending.append((inner, item))

    def _check(self, path: str, dataset: Any) -> None:
        if dataset.external or dataset.is_virtual:
            raise ValueError(f"`{path}`: its data lie outside the file, which is refused")
        if dataset.shape is None:
            raise ValueError(f"`{path}`: expected an array, got an empty dataset")
        if dataset.id.get_create_plist().get_nfilters():  # Keras packs nothing
            raise ValueError(f"`{path}`: expected data as they are, got packed ones")
        stored, shape = dataset.id.get_storage_size(), dataset.shape
        self._stored += stored
        claimed = max(math.prod(shape), math.prod(dataset.chunks or ())) * dataset.dtype.itemsize
        if self._stored > self._size or claimed > max(_SMALL, stored):
            raise ValueError(
                f"`{path}`: shape {shape} claims {claimed} bytes; {stored} are stored in a file of {self._size} bytes"
            )

    def attribute(self, group: str, name: str) -> Any:
        """An attribute's value, None where there is none; only text is ever expected."""
        attributes = self.groups[group].attrs
        if name not in attributes:
            return None
        found = attributes.get_id(name)
        kind = found.dtype.kind
        if math.prod(found.shape or ()) * found.dtype.itemsize > max(_SMALL, _LARGEST_RATIO * self._size):
            raise ValueError(f"attribute `{name}` of `/{group}`: shape {found.shape} does not fit in the file")
        if 0 in (found.shape or ()):
            return []
        if kind != "S" and not (kind == "O" and _h5py().check_string_dtype(found.dtype)):
            raise ValueError(f"attribute `{name}` of `/{group}`: expected text, got dtype {found.dtype}")
        return attributes[name]

    def text(self, group: str, name: str) -> str | None:
        value = self.attribute(group, name)
        return None if value is None else _text(value, f"attribute `{name}` of `/{group}`")

    def texts(self, group: str, name: str) -> list[str] | None:
        """A list of strings; a long one stands in chunks `name0`, `name1` …"""
        whole = self.attribute(group, name)
        if whole is not None:
            return [_text(v, f"attribute `{name}` of `/{group}`") for v in whole]
        chunks: list[str] = []
        for i in range(_MOST_OBJECTS):
            chunk = self.attribute(group, f"{name}{i}")
            if chunk is None:
                return chunks if i else None
            chunks += [_text(v, f"attribute `{name}{i}` of `/{group}`") for v in chunk]
        raise ValueError(f"attribute `{name}` of `/{group}`: too many chunks")


def _text(value: Any, where: str) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise ValueError(f"{where}: expected text, got {type(value).__name__}")
    return str(value)


def _json(text: str | bytes | None, where: str) -> dict[str, Any]:
    try:
        return dict(check_mapping(json.loads(text or "{}"), where))
    except (json.JSONDecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"{where}: no JSON: {error}") from error


class _Zip:
    """The members of a `.keras` file."""

    def __init__(self, file: BinaryIO) -> None:
        try:
            self._zip = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise ValueError(f"no zip file: {error}") from error
        self._members = Counter(self._zip.namelist())

    def read(self, name: str, most: float = math.inf) -> bytes:
        if self._members[name] != 1:
            raise ValueError(f"expected one member `{name}`, got {self._members[name]}: {sorted(self._members)[:8]}")
        info = self._zip.getinfo(name)
        packed = info.compress_size
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"member `{name}`: expected it stored or deflated, and not encrypted")
        if info.file_size > most or info.file_size > max(_SMALL, _LARGEST_RATIO * packed):
            raise ValueError(f"member `{name}` claims {info.file_size} bytes, of which {packed} are stored")
        with self._zip.open(info) as member:
            return member.read(info.file_size)


# ---- weights


def _places(layer: Layer, at: str) -> list[str]:
    """Where in the tree the layer's weights are, in their order."""
    if isinstance(layer, Bidirectional):
        return [*_places(layer.forward_layer, f"{at}/forward_layer"), *_places(layer._backward, f"{at}/backward_layer")]
    if isinstance(layer, TimeDistributed):
        return _places(layer.layer, f"{at}/layer")
    inner = f"{at}/cell" if isinstance(layer, Recurrent) else at
    return [f"{inner}/vars/{i}" for i in range(len(layer.variables))]


def _tree_places(file: _Hdf5, model: Sequential) -> list[str]:
    """One path a weight. Layers are counted by class: `lstm`, `lstm_1`, …, whatever they are called."""
    if "layers" in file.groups:
        seen: Counter[str] = Counter()
        places = []
        for layer in model.layers:
            name = snake_case(type(layer).__name__)
            places += _places(layer, f"layers/{name}_{seen[name]}" if seen[name] else f"layers/{name}")
            seen[name] += 1
        return places
    # tf.keras 2.12 counted some layers twice: what counts is the order.
    root = "_layer_checkpoint_dependencies"
    numbered: dict[str, list[int]] = {}
    for path in file.groups:
        found = re.fullmatch(root + r"/(.+?)(?:_(\d{1,9}))?", path)
        if found and "/" not in found[1]:
            numbered.setdefault(found[1], []).append(int(found[2] or 0))
    order = {name: iter(sorted(numbers)) for name, numbers in numbered.items()}
    places = []
    for layer in model.layers:
        name = snake_case(type(layer).__name__)
        number = next(order.get(name, iter(())), None)
        places += _places(layer, f"{root}/{name}_{number}" if number else f"{root}/{name}")
    return places


def _tree(file: _Hdf5, model: Sequential) -> dict[str, Any]:
    """The datasets by the names that weights have here; those that the model has no place for keep theirs."""
    names, places = _weight_names(model), _tree_places(file, model)
    found = {n: file.datasets[p] for n, p in zip(names, places, strict=True) if p in file.datasets}
    taken = set(places)
    for path, dataset in file.datasets.items():
        top, *rest = path.split("/")
        drawn = any("seed_generator" in part or "random_generator" in part for part in rest)
        if top in ("layers", "_layer_checkpoint_dependencies") and path not in taken and not drawn:
            found[f"layers/{'/'.join(rest)}"] = dataset
    return found


def _legacy(file: _Hdf5, root: str, model: Sequential) -> dict[str, Any]:
    """As `_tree`, of a file whose attributes list the layers and the weights of each."""
    names = iter(_weight_names(model))
    ours = [(layer, [next(names) for _ in layer.variables]) for layer in model.layers]
    ours = [(layer, weights) for layer, weights in ours if weights]
    theirs = []
    for name in file.texts(root, "layer_names") or ():
        group = f"{root}/{name}".strip("/")
        if group not in file.groups:
            raise ValueError(f"`layer_names` lists {name!r}, which is not in the file")
        weights = file.texts(group, "weight_names") or []
        if weights:
            theirs.append((name, [f"{group}/{w}" for w in weights]))
    if len(ours) != len(theirs):
        raise ValueError(
            f"the weights do not fit the model: it has {len(ours)} layers with weights "
            f"({', '.join(str(layer.name) for layer, _ in ours[:8])}), the file {len(theirs)} "
            f"({', '.join(name for name, _ in theirs[:8])})"
        )
    found = {}
    for (layer, mine), (name, paths) in zip(ours, theirs, strict=True):
        if len(mine) != len(paths):
            raise ValueError(
                f'layer "{layer.name}": expected {len(mine)} weights, got {len(paths)} in layer {name!r} of the file'
            )
        # Keras lists the weights that are trained first.
        ordered = sorted(range(len(mine)), key=lambda i: not layer.trained[i])
        for i, path in zip(ordered, paths, strict=True):
            found[mine[i]] = _dataset(file, path)
    return found


def _dataset(file: _Hdf5, path: str) -> Any:
    if path not in file.datasets:
        raise ValueError(f"`{path}` is listed, but not in the file")
    return file.datasets[path]


def _weights_in(file: _Hdf5, model: Sequential) -> dict[str, Any]:
    if "model_weights" in file.groups:
        return _legacy(file, "model_weights", model)
    if file.texts("", "layer_names") is not None:
        return _legacy(file, "", model)
    if "layers" not in file.groups and "_layer_checkpoint_dependencies" not in file.groups:
        raise ValueError(f"no weights of Keras's: expected `layers` or `layer_names`, got {sorted(file.groups)[1:9]}")
    return _tree(file, model)


def _take_weights(file: _Hdf5, model: Sequential, path: str, skip_mismatch: bool) -> None:
    found = _weights_in(file, model)
    for name, variable in zip(_weight_names(model), model.weights, strict=True):
        dataset = found.get(name)
        # Only what fits is read; `_assign` says what does not.
        if dataset is not None and dataset.shape == variable.shape and dataset.dtype.kind == "f":
            found[name] = dataset[()]
    _assign(model, found, path, skip_mismatch)


def load_weights(model: Sequential, path: str, skip_mismatch: bool) -> None:
    """The weights of any of Keras's files into a built model.

    Args:
        model: the model.
        path: a `.weights.h5`, `.h5`, `.hdf5` or `.keras` file. What it says of an optimizer is left alone.
        skip_mismatch: whether weights that are missing or of another shape are left as they are, with a warning.

    Raises:
        ValueError: the file is damaged or hostile, or its weights do not fit.
    """
    _weight_names(model)  # whether it is built
    with open(path, "rb") as stream, _named(path):
        keras = path.endswith(".keras")
        file = _Hdf5(io.BytesIO(_Zip(stream).read("model.weights.h5")) if keras else stream)
        _take_weights(file, model, path, skip_mismatch)


# ---- models


def load_model(path: str, compile: bool, custom_objects: Mapping[str, Any] | None) -> Sequential:
    """The model in a `.keras` or an older `.h5` file.

    Args:
        path: the file.
        compile: whether the optimizer with its state, the loss and the metrics are restored.
        custom_objects: metrics of the caller's own, by name.

    Raises:
        ValueError: the file is damaged or hostile, or says what is not known here.
    """
    training: Any
    with open(path, "rb") as stream, _named(path):
        if path.endswith(".keras"):
            members = _Zip(stream)
            description = _json(members.read("config.json", _LARGEST_TEXT), "config.json")
            version = _json(members.read("metadata.json", _LARGEST_TEXT), "metadata.json").get("keras_version")
            training = description.get("compile_config")
            file = _Hdf5(io.BytesIO(members.read("model.weights.h5")))
        else:
            file = _Hdf5(stream)
            text, training = file.text("", "model_config"), file.text("", "training_config")
            if text is None:
                raise ValueError("the file describes no model (a file of weights alone? use load_weights)")
            description = _json(text, "`model_config`")
            training = None if training is None else _json(training, "`training_config`")
            version = file.text("", "keras_version")
        old = str(version or "1").partition(".")[0] in ("0", "1", "2")
        model = _model(description, file, old)
        _take_weights(file, model, path, skip_mismatch=False)
        if compile and training:
            try:
                _compile(model, check_mapping(training, "the description of compile"), file, old, custom_objects or {})
            except (*_DAMAGED, ValueError) as error:
                raise ValueError(f"what compile was given cannot be restored: {error}; load the model with "
                                 f"compile=False") from error  # fmt: skip
    return model


def _model(description: Mapping[str, Any], file: _Hdf5, old: bool) -> Sequential:
    kind, config = description.get("class_name"), description.get("config")
    if isinstance(config, list):
        config = {"layers": config}
    config = check_mapping(config, "the config of the model")
    if kind not in ("Sequential", "Functional", "Model") or not _keras_own(description):
        raise ValueError(f"expected a Sequential model or a functional one, got {_shown(description)}")
    listed = config.get("layers")
    if not isinstance(listed, list) or not listed:
        raise ValueError("the config of the model: expected a list `layers` with a layer or more")
    _check_sizes(config, file.datasets)
    found = [_layer(item, old) for item in (listed if kind == "Sequential" else _chain(config, listed))]
    stateful = any(layer.stateful or getattr(getattr(layer, "layer", None), "stateful", False) for layer in found)
    if isinstance(found[0], layers.InputLayer) and not stateful:
        # The batch is that of the first call, where the model was built by one.
        found[0].batch_shape = (None, *(found[0].batch_shape or ())[1:])
    name = config.get("name")
    if not isinstance(name, (str, type(None))):
        raise ValueError(f"the config of the model: expected `name` to be a string, got {name!r}")
    model = Sequential(found, bool(config.get("trainable", True)), name)
    shape = model._shape
    if shape is None:
        given = config.get("build_input_shape")
        build = description.get("build_config")
        if given is None and isinstance(build, Mapping):
            given = build.get("input_shape")
        if not isinstance(given, list) or not all(n is None or (isinstance(n, int) and n > 0) for n in given):
            raise ValueError("the description has no input shape")
        shape = tuple(given) if stateful else (None, *given[1:])
    if model._layers and model.layers[-1].several_outputs and kind != "Sequential":
        raise ValueError(f'no chain: layer "{model.layers[-1].name}" has several outputs')
    _check_count(model, shape, file)
    if model._shape is None:
        model.build(shape)
    return model


def _check_count(model: Sequential, shape: Shape, file: _Hdf5) -> None:
    """Refuses a model of more weights than the file holds numbers, before it is built."""
    shapes = chain_shapes(model.layers, shape)
    claimed = sum(_count(layer, given) for layer, given in zip(model.layers, shapes[:-1], strict=True))
    states = sum(sum(layer.state_size) * (shape[0] or 1) for layer in model.layers if layer.stateful)
    held = sum(math.prod(d.shape) for d in file.datasets.values())
    if claimed > held:
        raise ValueError(f"the description asks for {claimed} weights or more, the file holds {held} numbers")
    if states > max(_SMALL, _LARGEST_RATIO * held):
        raise ValueError(f"the batch size asks for states of {states} numbers, the file holds {held}")


def _count(layer: Layer, shape: Shape) -> int:
    """How many weights there would be at least, biases apart."""
    if isinstance(layer, Bidirectional):
        return _count(layer.forward_layer, shape) + _count(layer._backward, shape)
    if isinstance(layer, TimeDistributed):
        return _count(layer.layer, (shape[0], *shape[2:]))
    if isinstance(layer, Embedding):
        return layer.input_dim * layer.output_dim
    features = shape[-1] or 0
    if isinstance(layer, Recurrent):
        return _GATES[type(layer).__name__] * layer.units * (features + layer.units)
    if isinstance(layer, Dense):
        return features * layer.units
    if isinstance(layer, LayerNormalization):
        return features * (int(layer.center) + int(layer.scale))
    return 0


def _keras_own(description: Mapping[str, Any]) -> bool:
    """Whether a description is of a class of Keras's, not of one that somebody registered under its name."""
    module, registered = description.get("module"), description.get("registered_name")
    known = module is None or (isinstance(module, str) and module.split(".")[0] in ("keras", "tf_keras", "tensorflow"))
    return known and registered in (None, description.get("class_name"))


def _shown(description: Mapping[str, Any]) -> str:
    registered = description.get("registered_name")
    name = registered if isinstance(registered, str) else description.get("class_name")
    config = description.get("config")
    own = config.get("name") if isinstance(config, Mapping) else None
    return f'{name!r} (layer "{own}")' if own else repr(name)


def _layer(item: Any, old: bool) -> Layer:
    item = check_mapping(item, "the description of a layer")
    kind = item.get("class_name")
    if kind not in layers._registry.classes or not _keras_own(item):
        raise ValueError(f"unknown layer {_shown(item)}; known: {', '.join(sorted(layers._registry.classes))}")
    try:
        return layers.deserialize({"class_name": kind, "config": _layer_config(str(kind), item.get("config"), old)})
    except (TypeError, ValueError) as error:
        raise ValueError(f"layer {_shown(item)}: {error}") from error


def _layer_config(kind: str, config: Any, old: bool) -> dict[str, Any]:
    """The config in seqcore's words."""
    ready: dict[str, Any] = {}
    known = layers._registry.classes[kind]
    for key, value in check_mapping(config, "its config").items():
        if key in ("layer", "backward_layer") and value is not None:
            value = _layer(value, old)
        elif key.endswith(("initializer", "regularizer", "constraint")) and isinstance(value, Mapping):
            if not _keras_own(value):
                raise ValueError(f"`{key}`: unknown {_shown(value)}")
            name, inner = _plain(value)
            inner = {k: _seed(v) if k == "seed" else v for k, v in inner.items() if (k, v) != ("dtype", "float32")}
            home = _HOMES[key.rpartition("_")[2]]
            value = {"class_name": name, "config": _known_words(home.classes.get(name), inner)}
        elif key == "seed":
            value = _seed(value)
        elif key.endswith("activation") and value == "hard_sigmoid" and old:
            raise ValueError(f"`{key}`: hard_sigmoid was another function in Keras 2 (slope 0.2, here 1/6)")
        if key not in known._args and (value in (None, False, [], {}) or _SAID_ANYWAY.get(key) == value):
            continue
        ready[str(key)] = value
    if kind == "GRU" and old:
        ready.setdefault("reset_after", False)
    return ready


def _seed(value: Any) -> Any:
    """A SeedGenerator's description is as good as its seed."""
    if not isinstance(value, Mapping):
        return value
    config = value.get("config")
    return config.get("seed") if isinstance(config, Mapping) else None


def _chain(config: Mapping[str, Any], listed: list[Any]) -> list[Any]:
    """The layers of a functional model in the order in which data pass them; ValueError where that is no chain."""
    items: dict[str, Mapping[str, Any]] = {}
    operations: dict[str, Mapping[str, Any]] = {}  # those that Keras 3 lists because masks are made by them
    after: dict[str, str] = {}
    masks: dict[str, str] = {}
    first = []
    for item in listed:
        item = check_mapping(item, "the description of a layer")
        inner = item.get("config")
        name = item.get("name") or (inner.get("name") if isinstance(inner, Mapping) else None)
        if not isinstance(name, str) or name in items or name in operations:
            raise ValueError(f"the config of the model: expected layers with names of their own, got {name!r}")
        nodes = item.get("inbound_nodes")
        if item.get("class_name") in ("NotEqual", "Any") and _keras_own({**item, "registered_name": None}):
            operations[name] = item
            continue
        items[name] = item
        if item.get("class_name") == "InputLayer":
            first.append(name)
            continue
        if not isinstance(nodes, list) or len(nodes) != 1:
            raise ValueError(f'no chain: layer "{name}" is called {len(nodes) if nodes else 0} times, expected once')
        source, mask = _source(name, nodes[0])
        if source in after:
            raise ValueError(f'no chain: the output of layer "{source}" goes to "{after[source]}" and to "{name}"')
        after[source] = name
        if mask is not None:
            masks[name] = mask
    ends = [_end(config.get(key), key) for key in ("input_layers", "output_layers")]
    if len(first) != 1 or ends[0] != first[0]:
        raise ValueError(f"no chain: expected one input, got {first}")
    order = [first[0]]
    while order[-1] in after and len(order) <= len(items):
        order.append(after[order[-1]])
    if len(order) != len(items) or order[-1] != ends[1]:
        rest = [name for name in items if name not in order]
        raise ValueError(f'no chain: it ends at "{order[-1]}", the output is that of "{ends[1]}"; besides {rest}')
    _check_masks(items, order, operations, masks)
    return [items[name] for name in order]


def _check_masks(items: Mapping[str, Any], order: list[str], operations: Mapping[str, Any],
                 masks: Mapping[str, str]) -> None:  # fmt: skip
    """Whether the masks that layers are called with are those that the layers before them make here too."""
    made: Any = None
    for before, name in pairwise(order):
        given = masks.get(name)
        if given is not None and (made is None or _mask_made(operations, given) != made):
            raise ValueError(f'no chain: layer "{name}" is called with a mask, "{given}", that no layer before it made')
        inner = check_mapping(items[name].get("config"), f'the config of layer "{name}"')
        if items[name].get("class_name") == "Embedding" and inner.get("mask_zero"):
            made = (before, 0, False)
        elif items[name].get("class_name") == "Masking":
            made = (before, inner.get("mask_value"), True)


def _mask_made(operations: Mapping[str, Any], name: str) -> Any:
    """Of a mask: the layer whose output is compared, with what, and whether over its last axis."""
    operation = operations.get(name)
    if operation is None:
        return None
    (node,) = operation["inbound_nodes"]
    source, *value = node["args"]
    history = _history(source)
    if operation["class_name"] == "NotEqual":
        return (history[0], value[0], False) if history[1:] == [0, 0] and len(value) == 1 else None
    inner = operation["config"]
    inner_made = _mask_made(operations, history[0])
    last = inner.get("axis") == -1 and not inner.get("keepdims") and not value
    return (*inner_made[:2], True) if inner_made and last and not inner_made[2] else None


def _source(name: str, node: Any) -> tuple[str, str | None]:
    """The layer whose (only) output a call takes, and what made the mask beside it."""
    mask = None
    if isinstance(node, Mapping):  # Keras 3: the tensors among the arguments
        given, more = node.get("args"), dict(node.get("kwargs") or {})
        given = [_history(tensor) for tensor in given] if isinstance(given, list) else []
        if isinstance(more.get("mask"), Mapping):
            mask = str((_history(more.pop("mask")) or [None])[0])
    else:  # Keras 2: [[layer, node, tensor, keywords]], or without the outer list
        given = node if isinstance(node, list) and node and isinstance(node[0], list) else [node]
        last = given[0][3] if len(given) == 1 and isinstance(given[0], list) and len(given[0]) > 3 else {}
        more = dict(last or {})
    used = {k: v for k, v in more.items() if v not in (None, False)}
    if used:
        raise ValueError(f'no chain: layer "{name}" is called with {sorted(used)}')
    history = given[0] if len(given) == 1 and isinstance(given[0], list) else []
    if len(history) < 3 or not isinstance(history[0], str) or history[1:3] != [0, 0]:
        raise ValueError(f'no chain: layer "{name}" takes {len(given)} inputs, expected the one output of a layer')
    return history[0], mask


def _history(tensor: Any) -> Any:
    config = tensor.get("config") if isinstance(tensor, Mapping) else None
    return config.get("keras_history") if isinstance(config, Mapping) else None


def _end(value: Any, key: str) -> str:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if not isinstance(value, list) or len(value) != 3 or not isinstance(value[0], str):
        raise ValueError(f"no chain: expected one entry in `{key}`, got {value!r}")
    if value[1:] != [0, 0]:
        raise ValueError(f"no chain: `{key}` is not the first output of its layer: {value!r}")
    return value[0]


# ---- compile


def _compile(model: Sequential, training: Mapping[str, Any], file: _Hdf5, old: bool, own: Mapping[str, Any]) -> None:
    described = training.get("optimizer_config", training.get("optimizer"))
    chosen = _optimizer(described)
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


def _plain(item: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The class's name and its config without what says nothing."""
    name = str(item.get("class_name")).removeprefix("Custom>")
    config = check_mapping(item.get("config") or {}, f"the config of {name}")
    return name, {str(k): v for k, v in config.items() if v is not None}


def _known_words(found: type[Configurable] | None, config: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in config.items() if found is None or k in found._args or v not in (False, [], {})}


def _optimizer(item: Any) -> optimizers.Optimizer:
    if isinstance(item, str):
        item = {"class_name": item, "config": {}}
    name, config = _plain(check_mapping(item, "the description of the optimizer"))
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
    return optimizers.deserialize({"class_name": name, "config": _known_words(found, config)})


def _loss(item: Any) -> Any:
    while (isinstance(item, list) or (isinstance(item, dict) and "class_name" not in item)) and len(item) == 1:
        item = item[0] if isinstance(item, list) else next(iter(item.values()))
    if item is None:
        return None
    if not isinstance(item, Mapping) or item.get("class_name") == "function":
        return losses.get(_function(item))
    name, config = _plain(item)
    config.pop("dtype", None)
    if config.get("reduction") == "auto":
        del config["reduction"]
    if name in ("LossFunctionWrapper", "MeanLossWrapper"):
        name = _function(config.pop("fn", None))
        resolved = losses.resolve(losses.get(name))
        name = type(resolved).__name__
    found = losses._registry.classes.get(name)
    return losses.deserialize({"class_name": name, "config": _known_words(found, config)})


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
        return metrics.deserialize(item, own) if item in own else item
    item = check_mapping(item, "the description of a metric")
    name, config = _plain(item)
    config.pop("dtype", None)
    registered = item.get("registered_name")
    if isinstance(registered, str) and registered in own:
        name = registered
    elif name.rpartition(">")[2] in own:
        name = name.rpartition(">")[2]
    if name == "MeanMetricWrapper":
        fn = _function(config.pop("fn", None))
        if fn in own:
            return metrics.deserialize({"class_name": name, "config": {**config, "fn": fn}}, own)
        name = type(metrics.get(fn)).__name__
    found = metrics._registry.classes.get(name) if name not in own else None
    return metrics.deserialize({"class_name": name, "config": _known_words(found, config)}, own)


def _variables(file: _Hdf5) -> tuple[list[Any], list[str]]:
    """The optimizer's datasets in their order, and their names where files have such."""
    if "optimizer_weights" in file.groups:
        names = file.texts("optimizer_weights", "weight_names") or []
        return [_dataset(file, f"optimizer_weights/{n}") for n in names], [n.rpartition(":")[0] or n for n in names]
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
    slots, named = list(found[scalars:]), names[scalars:]
    expected = {n for n, _ in core.optimizer_variables()}
    order = _slot_order(type(optimizer).__name__, sorted(expected), named, old)
    if not expected and isinstance(optimizer, optimizers.SGD):
        slots = []  # tf.keras keeps momentum that it does not use
    batches = int(found[0][()])
    if not 0 <= batches < 2**53:
        raise ValueError(f"the optimizer's iterations: expected a natural number, got {batches}")
    if slots or batches:  # else it was never asked for an update
        shapes = {n: v.shape for n, v in enumerate(model.weights)}
        if len(slots) != len(order):  # those of layers that were frozen later are there, too
            every = sorted({f"{n.rpartition('/')[0]}/{i}" for n in expected for i in shapes})
            whole = _slot_order(type(optimizer).__name__, every, named, old)
            order = whole if len(slots) == len(whole) else order
        if len(slots) != len(order):
            raise ValueError(f"the optimizer has {len(expected)} variables in slots, the file {len(slots)}")
        for name, dataset in zip(order, slots, strict=True):
            shape = shapes[int(name.rpartition("/")[2])]
            if dataset.shape != shape:
                raise ValueError(f"the optimizer's {name}: expected shape {shape}, got {dataset.shape}")
        pairs = [(name, dataset) for name, dataset in zip(order, slots, strict=True) if name in expected]
        core.set_optimizer_variables([(name, _engine.to_float(dataset[()], name)) for name, dataset in pairs])
    if scalars > 1 and optimizer.schedule is None:
        optimizer.learning_rate = float(found[1][()])
    # Keras counts batches, also those that only accumulate.
    core.iterations, core.accumulated = divmod(batches, optimizer.gradient_accumulation_steps or 1)
    model._trained = batches > 0


def _slot_order(kind: str, ours: Sequence[str], theirs: Sequence[str], old: bool) -> list[str]:
    """The names that the file's slots have here, in the file's order."""
    indices = sorted({int(n.rpartition("/")[2]) for n in ours})
    have = {n.rpartition("/")[0] for n in ours}
    ends = [_OLD_SLOTS.get(n.rpartition("/")[2]) for n in theirs]
    if theirs and all(ends):  # slot by slot
        seen: Counter[Any] = Counter()
        places = []
        for end in ends:
            if end not in have or seen[end] == len(indices):
                return []
            places.append(f"{end}/{indices[seen[end]]}")
            seen[end] += 1
        return places if len(places) == len(ours) else []
    if kind not in _SLOTS:
        raise ValueError(f"the order of {kind}'s slots is not known")
    groups = [["average"], ["gradient_accumulator"], *_SLOTS[kind]]
    if old and len(have) > 1 and theirs and not re.match(r"[^/]+/(m|velocity|average)/", theirs[0]):
        raise ValueError(f"the optimizer's variables have names of a form that is not known: {theirs[0]!r}")
    return [f"{slot}/{index}" for group in groups for index in indices for slot in group if slot in have]
