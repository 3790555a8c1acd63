"""Keras's files: `.keras` and `.weights.h5`, read and written; and the older `.h5` of whole models and of weights
alone, which are only read.

What is read is material from elsewhere; nothing in it is ever executed."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import layers
from .._config import check_mapping
from .._network import Shape, chain_shapes
from .._stored import check_sizes, weight_names
from ..layers import (
    RNN,
    BatchNormalization,
    Bidirectional,
    Dense,
    Embedding,
    Layer,
    LayerNormalization,
    StackedRNNCells,
    TimeDistributed,
)
from ..layers._base import flat
from ..layers._recurrent import WeightedCell
from ._containers import DAMAGED, LARGEST_RATIO, LARGEST_TEXT, SMALL, Hdf5, Zip, h5py_module, named, read_json
from ._descriptions import keras_own, shown
from ._nested import MODELS, layers_of, read_parts
from ._training import compile_model, take_state
from ._weights import take_weights
from ._writing import check, save_model, save_weights

if TYPE_CHECKING:
    from ..models import Sequential

__all__ = ["check", "h5py_module", "load_model", "load_weights", "save_model", "save_weights"]

_GATES = {"SimpleRNN": 1, "LSTM": 4, "GRU": 3}  # of layers and of their cells


def load_weights(model: Sequential, path: str, skip_mismatch: bool) -> None:
    """The weights of any of Keras's files into a built model.

    Args:
        model: the model.
        path: a `.weights.h5`, `.h5`, `.hdf5` or `.keras` file. The state of an optimizer in the first and the last is
            given to the model's, where that has made a step.
        skip_mismatch: whether weights that are missing or of another shape are left as they are, with a warning.

    Raises:
        ValueError: the file is damaged or hostile, or its weights do not fit.
    """
    weight_names(model)  # whether it is built
    with open(path, "rb") as stream, named(path):
        keras = path.endswith(".keras")
        file = Hdf5(io.BytesIO(Zip(stream).read("model.weights.h5")) if keras else stream)
        take_weights(file, model, path, skip_mismatch)
        take_state(file, model, path)


def load_model(
    kind: type[Sequential], path: str, compile: bool, custom_objects: Mapping[str, Any] | None
) -> Sequential:
    """The model in a `.keras` or an older `.h5` file.

    Args:
        kind: what it is to be.
        path: the file.
        compile: whether the optimizer with its state, the loss and the metrics are restored.
        custom_objects: metrics of the caller's own, by name.

    Raises:
        ValueError: the file is damaged or hostile, or says what is not known here.
    """
    training: Any
    own = custom_objects or {}
    with open(path, "rb") as stream, named(path):
        if path.endswith(".keras"):
            members = Zip(stream)
            description = read_json(members.read("config.json", LARGEST_TEXT), "config.json")
            version = read_json(members.read("metadata.json", LARGEST_TEXT), "metadata.json").get("keras_version")
            training = description.get("compile_config")
            file = Hdf5(io.BytesIO(members.read("model.weights.h5")))
        else:
            file = Hdf5(stream)
            text, training = file.text("", "model_config"), file.text("", "training_config")
            if text is None:
                raise ValueError("the file describes no model (a file of weights alone? use load_weights)")
            description = read_json(text, "`model_config`")
            training = None if training is None else read_json(training, "`training_config`")
            version = file.text("", "keras_version")
        old = str(version or "1").partition(".")[0] in ("0", "1", "2")
        model, parts = _model(kind, description, file, old)
        take_weights(file, model, path, skip_mismatch=False, parts=parts)
        if compile and training:
            try:
                compile_model(model, check_mapping(training, "the description of compile"), file, old, own)
            except (*DAMAGED, ValueError) as error:
                raise ValueError(f"what compile was given cannot be restored: {error}; load the model with "
                                 f"compile=False") from error  # fmt: skip
    return model


def _model(
    made: type[Sequential], description: Mapping[str, Any], file: Hdf5, old: bool
) -> tuple[Sequential, list[Any]]:
    """The model, and where its layers stand in models of the file's."""
    kind, config = description.get("class_name"), description.get("config")
    if isinstance(config, list):
        config = {"layers": config}
    config = check_mapping(config, "the config of the model")
    if kind not in MODELS or not keras_own(description):
        raise ValueError(f"expected a Sequential model or a functional one, got {shown(description)}")
    check_sizes(config, file.datasets)
    parts = read_parts(kind, config, old)
    found = layers_of(parts)
    stateful = any(layer.stateful or getattr(getattr(layer, "layer", None), "stateful", False) for layer in found)
    if isinstance(found[0], layers.InputLayer) and not stateful:
        # The batch is that of the first call, where the model was built by one.
        found[0].batch_shape = (None, *(found[0].batch_shape or ())[1:])
    name = config.get("name")
    if not isinstance(name, (str, type(None))):
        raise ValueError(f"the config of the model: expected `name` to be a string, got {name!r}")
    model = made(found, bool(config.get("trainable", True)), name)
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
    return model, parts


def _check_count(model: Sequential, shape: Shape, file: Hdf5) -> None:
    """Refuses a model of more weights than the file holds numbers, before it is built."""
    shapes = chain_shapes(model.layers, shape)
    claimed = sum(_count(layer, given) for layer, given in zip(model.layers, shapes[:-1], strict=True))
    states = sum(sum(flat(layer.state_size)) * (shape[0] or 1) for layer in model.layers if layer.stateful)
    held = sum(math.prod(d.shape) for d in file.datasets.values())
    if claimed > held:
        raise ValueError(f"the description asks for {claimed} weights or more, the file holds {held} numbers")
    if states > max(SMALL, LARGEST_RATIO * held):
        raise ValueError(f"the batch size asks for states of {states} numbers, the file holds {held}")


def _count(layer: Layer, shape: Shape) -> int:
    """How many weights there would be at least, biases apart."""
    if isinstance(layer, Bidirectional):
        return _count(layer.forward_layer, shape) + _count(layer._backward, shape)
    if isinstance(layer, TimeDistributed):
        return _count(layer.layer, (shape[0], *shape[2:]))
    if isinstance(layer, Embedding):
        return layer.input_dim * layer.output_dim
    if isinstance(layer, RNN):
        return _count(layer.cell, shape)
    if isinstance(layer, StackedRNNCells):
        below = [shape, *((*shape[:-1], cell.output_size) for cell in layer.cells)]
        return sum(_count(cell, given) for cell, given in zip(layer.cells, below, strict=False))
    features = shape[-1] or 0
    if isinstance(layer, WeightedCell):
        return _GATES[type(layer).__name__.removesuffix("Cell")] * layer.units * (features + layer.units)
    if isinstance(layer, Dense):
        return features * layer.units
    if isinstance(layer, LayerNormalization):
        return features * (int(layer.center) + int(layer.scale))
    if isinstance(layer, BatchNormalization):
        return features * (int(layer.center) + int(layer.scale) + 2)
    return 0
