"""Keras's descriptions of layers and models, read and written. Names are looked up in closed lists."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from .. import constraints, initializers, layers, regularizers
from .._config import Configurable, Registry, check_mapping
from ..initializers import Initializer
from ..layers import Layer

_HOMES: dict[str, Registry[Any]] = {
    "initializer": initializers._registry, "regularizer": regularizers._registry, "constraint": constraints._registry,
}  # fmt: skip
_INNER = ("layer", "backward_layer", "cell")  # words of layers that stand for a layer
# Words that Keras's newer or older configs have and layers here do not, where they say what happens here anyway.
_SAID_ANYWAY = {"data_format": "channels_last", "input_dtype": "float32"}
# Keras's (3.15) takes off another number, so that its outputs do not add up to 1.
_ANOTHER = "sparsemax"
_ANOTHER_WHY = "sparsemax is another function in Keras, whose outputs do not add up to 1"
_SEEDS = 2**31  # of layers; on PyTorch Keras has them in an int32
_ARRAY = "__numpy__"
NO_WORDS = "for which Keras's files have no words: save as .safetensors"
_UNKNOWN_TO_KERAS = {"SpatialDropout1D": "trainable"}  # its constructor takes no such word


def keras_own(description: Mapping[str, Any]) -> bool:
    """Whether a description is of a class of Keras's, not of one that somebody registered under its name."""
    module, registered = description.get("module"), description.get("registered_name")
    known = module is None or (isinstance(module, str) and module.split(".")[0] in ("keras", "tf_keras", "tensorflow"))
    return known and registered in (None, description.get("class_name"))


def shown(description: Mapping[str, Any]) -> str:
    registered = description.get("registered_name")
    name = registered if isinstance(registered, str) else description.get("class_name")
    config = description.get("config")
    own = config.get("name") if isinstance(config, Mapping) else None
    return f'{name!r} (layer "{own}")' if own else repr(name)


def read_layer(item: Any, old: bool) -> Layer:
    item = check_mapping(item, "the description of a layer")
    kind = item.get("class_name")
    if kind not in layers._registry.classes or not keras_own(item):
        raise ValueError(f"unknown layer {shown(item)}; known: {', '.join(sorted(layers._registry.classes))}")
    try:
        return layers.deserialize({"class_name": kind, "config": _layer_config(str(kind), item.get("config"), old)})
    except (TypeError, ValueError) as error:
        raise ValueError(f"layer {shown(item)}: {error}") from error


def _layer_config(kind: str, config: Any, old: bool) -> dict[str, Any]:
    """The config in seqcore's words."""
    ready: dict[str, Any] = {}
    known = layers._registry.classes[kind]
    for key, value in check_mapping(config, "its config").items():
        if key in _INNER and value is not None:
            value = read_layer(value, old)
        elif key == "cells" and isinstance(value, list):
            value = [read_layer(cell, old) for cell in value]
        elif _home(key) in _HOMES and isinstance(value, Mapping):
            if not keras_own(value):
                raise ValueError(f"`{key}`: unknown {shown(value)}")
            name, inner = plain(value)
            inner = {k: _value(k, v) for k, v in inner.items() if (k, v) != ("dtype", "float32")}
            home = _HOMES[_home(key)]
            value = {"class_name": name, "config": known_words(home.classes.get(name), inner)}
        elif key == "seed":
            value = _seed(value)
        elif key.endswith("activation") and isinstance(value, Mapping) and _is_layer(value):
            value = read_layer(value, old)
        elif key.endswith("activation") and value == "hard_sigmoid" and old:
            raise ValueError(f"`{key}`: hard_sigmoid was another function in Keras 2 (slope 0.2, here 1/6)")
        elif key.endswith("activation") and value == _ANOTHER:
            raise ValueError(f"`{key}`: {_ANOTHER_WHY}")
        if key not in known._args and (value in (None, False, [], {}) or _SAID_ANYWAY.get(key) == value):
            continue
        ready[str(key)] = value
    if ready.get("trainable") is False:  # then Keras says so of all inner layers; to be unfrozen with this one
        for inner in (*(ready.get(key) for key in _INNER), *ready.get("cells", ())):
            if isinstance(inner, Layer):
                inner.trainable = True
    if kind in ("GRU", "GRUCell") and old:
        ready.setdefault("reset_after", False)
    return ready


def _is_layer(description: Mapping[str, Any]) -> bool:
    known = description.get("class_name") in layers._registry.classes
    return known and str(description.get("module")).endswith("layers")


def _home(key: str) -> str:
    """What a word ends in: `kernel_initializer` stands for an initializer."""
    return key.rpartition("_")[2]


def _seed(value: Any) -> Any:
    """A SeedGenerator's description is as good as its seed."""
    if not isinstance(value, Mapping):
        return value
    config = value.get("config")
    return config.get("seed") if isinstance(config, Mapping) else None


def _value(key: str, value: Any) -> Any:
    """An argument of an initializer's; arrays are descriptions, too."""
    if key == "value" and isinstance(value, Mapping) and value.get("class_name") in (_ARRAY, "__tensor__"):
        return check_mapping(value.get("config"), "the description of an array").get("value")
    return _seed(value) if key == "seed" else value


def described(home: str, class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    """Keras's description of an object of its own. home: the module, as in `keras.layers`."""
    return {"module": f"keras.{home}", "class_name": class_name, "config": config, "registered_name": None}


def described_layer(layer: Layer, trainable: bool = True) -> dict[str, Any]:
    """Keras's description of a layer.

    Args:
        layer: the layer.
        trainable: whether training changes any weight of what the layer is in; in Keras's files all inner ones say so.

    Raises:
        ValueError: Keras has no words for it.
    """
    kind = type(layer).__name__
    if layers._registry.classes.get(kind) is not type(layer):
        raise ValueError(f'layer "{layer.name}" is a {kind} of your own, {NO_WORDS}')
    if "/" in str(layer.name):
        raise ValueError(f'layer "{layer.name}": Keras takes no names with a slash in them')
    config, trained = layer.get_config(), trainable and layer.trainable
    if trained and layer.inference_only:
        raise ValueError(f'layer "{layer.name}" is trained in a call with `training=False`, {NO_WORDS}')
    for key, value in config.items():
        given = getattr(layer, layer._args[key].attribute or key)
        if isinstance(given, Layer):
            config[key] = described_layer(given, trained)
        elif key == "cells":
            config[key] = [described_layer(cell, trained) for cell in given]
        elif key.endswith("activation") and value == _ANOTHER:
            raise ValueError(f'layer "{layer.name}": `{key}`: {_ANOTHER_WHY}: save as .safetensors')
        elif isinstance(given, Initializer):
            config[key] = _described_initializer(given, f'layer "{layer.name}": `{key}`')
        elif _home(key) in _HOMES and given is not None:
            config[key] = described(f"{_home(key)}s", value["class_name"], value["config"])
    if (config.get("seed") or 0) >= _SEEDS:
        raise ValueError(f'layer "{layer.name}": Keras takes seeds below 2**31, got seed={config["seed"]}')
    if "trainable" in config:
        config["trainable"] = trained
    config.pop(_UNKNOWN_TO_KERAS.get(kind, ""), None)
    config.update({k: v for k, v in _SAID_ANYWAY.items() if k in layer._args})
    return described("layers", kind, config)


def _described_initializer(initializer: Initializer, where: str) -> dict[str, Any]:
    if initializers.is_own(initializer):
        raise ValueError(f"{where} is a function, a class or an array of your own, {NO_WORDS}")
    known = initializer._for_core()
    config = known["config"]
    if isinstance(config.get("value"), list):
        array = {"value": config["value"], "dtype": "float32"}
        config["value"] = {"module": "builtins", "class_name": _ARRAY, "config": array, "registered_name": None}
    return described("initializers", known["class_name"], config)


def chain(config: Mapping[str, Any], listed: list[Any]) -> list[Any]:
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
        if item.get("class_name") in ("NotEqual", "Any") and keras_own({**item, "registered_name": None}):
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


def plain(item: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The class's name and its config."""
    name = str(item.get("class_name")).removeprefix("Custom>")
    config = check_mapping(item.get("config") or {}, f"the config of {name}")
    return name, {str(k): v for k, v in config.items()}


def known_words(found: type[Configurable] | None, config: dict[str, Any]) -> dict[str, Any]:
    """The config without words that say nothing: unknown ones that are off."""
    if found is None:
        return {k: v for k, v in config.items() if v is not None}
    return {k: v for k, v in config.items() if k in found._args or v not in (None, False, [], {})}
