"""Models as Keras 3 saves them: `.keras`, and `.weights.h5`. A file is made in memory, then written as a whole."""

from __future__ import annotations

import json
import os
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .. import _engine
from .._stored import weight_names
from ._containers import LARGEST_TEXT, new_hdf5, new_zip
from ._descriptions import described, described_layer
from ._training import described_compile, put_state
from ._weights import put_weights

if TYPE_CHECKING:
    from ..models import Sequential

_VERSION = "3.9.0"  # of Keras; the oldest that is known to read it


def check(model: Sequential, include_optimizer: bool = True) -> None:
    """Whether a built model can be saved as `.keras`.

    Raises:
        ValueError: Keras has no words for something in it.
    """
    _described(model, _compiled(model, include_optimizer))


def save_model(model: Sequential, path: str, include_optimizer: bool) -> None:
    """A `.keras` file of a built model; with the optimizer, where there is one that is to be included.

    Raises:
        ValueError: Keras has no words for something in the model.
    """
    compiled = _compiled(model, include_optimizer)
    description = json.dumps(_described(model, compiled), allow_nan=False)
    if len(description) > LARGEST_TEXT:  # as it would not be read
        raise ValueError(f"the model's description has {len(description)} bytes, at most {LARGEST_TEXT} are written")
    metadata = json.dumps({"keras_version": _VERSION, "date_saved": datetime.now().strftime("%Y-%m-%d@%H:%M:%S")})
    weights = new_hdf5(lambda file: _put(file, model, compiled, whole=True))
    content = new_zip(
        {"metadata.json": metadata.encode(), "config.json": description.encode(), "model.weights.h5": weights}
    )
    _engine.write_file(os.fsencode(path), content)


def save_weights(model: Sequential, path: str) -> None:
    """A `.weights.h5` file of a built model; with the optimizer's state, where there is an optimizer."""
    compiled = _compiled(model, True)
    _engine.write_file(os.fsencode(path), new_hdf5(lambda file: _put(file, model, compiled, whole=False)))


def _compiled(model: Sequential, include_optimizer: bool) -> bool:
    """Whether the file has an optimizer, which is ready then."""
    weight_names(model)  # whether it is built
    included = model.compiled and include_optimizer
    if included:
        model._compiled_network(model._existing_network(), "saving")
    return included


def _put(file: Any, model: Sequential, compiled: bool, whole: bool) -> None:
    put_weights(file, model)
    if compiled:
        put_state(file, model, whole)


def _described(model: Sequential, compiled: bool) -> dict[str, Any]:
    given, shape = model._input_config(), list(model.input_shape)
    names = [given["name"], *(layer.name for layer in model.layers)]
    for name in (model.name, *names):
        if "/" in str(name) or (name == names[0] and names.count(name) > 1):
            raise ValueError(f"the name {name!r}: Keras takes no slash in names, and none of a layer for the Input")
    listed = [described_layer(layer, model.trainable) for layer in model.layers]
    config = {
        "name": model.name,
        "trainable": model.trainable,
        "dtype": "float32",
        "layers": [described("layers", "InputLayer", given), *listed],
        "build_input_shape": shape,
    }
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": config,
        "registered_name": None,
        "build_config": {"input_shape": shape},
        "compile_config": described_compile(model) if compiled else None,
    }
