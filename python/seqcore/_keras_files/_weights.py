"""Where Keras's files have the weights of a model's layers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .._config import snake_case
from .._stored import assign, weight_names
from .._variable import Variable
from ..layers import RNN, Bidirectional, Layer, StackedRNNCells, TimeDistributed
from ..layers._recurrent import Recurrent
from ._containers import Hdf5
from ._nested import Inner, counted, groups_of, roots_of

if TYPE_CHECKING:
    from ..models import Sequential


class Group(NamedTuple):
    """A group of the tree: where it is, the name that Keras notes there, and the weights in its `vars`."""

    path: str
    name: str
    variables: list[Variable]


def _groups(layer: Layer, at: str) -> Iterator[Group]:
    """The layer's groups, in the order of its weights."""
    inner: list[tuple[str, Layer]] = []
    if isinstance(layer, Bidirectional):
        inner = [("forward_layer", layer.forward_layer), ("backward_layer", layer._backward)]
    elif isinstance(layer, TimeDistributed):
        inner = [("layer", layer.layer)]
    elif isinstance(layer, RNN):
        inner = [("cell", layer.cell)]
    elif isinstance(layer, StackedRNNCells):
        names = counted([type(cell).__name__ for cell in layer.cells])
        inner = [(f"cells/{name}", cell) for cell, name in zip(layer.cells, names, strict=True)]
    has_cell = isinstance(layer, Recurrent)  # which is no layer of its own here
    yield Group(at, str(layer.name), [] if inner or has_cell else layer.variables)
    if has_cell:
        yield Group(f"{at}/cell", f"{snake_case(type(layer).__name__)}_cell", layer.variables)
    for name, one in inner:
        yield from _groups(one, f"{at}/{name}")


def _places(layer: Layer, at: str) -> list[str]:
    """Where in the tree the layer's weights are, in their order."""
    return [f"{group.path}/vars/{i}" for group in _groups(layer, at) for i in range(len(group.variables))]


def _tree_places(file: Hdf5, model: Sequential, parts: Sequence[Any]) -> list[str]:
    """One path a weight."""
    if "layers" in file.groups:
        return [place for layer, root in roots_of(parts) for place in _places(layer, root)]
    if any(isinstance(part, Inner) for part in parts):
        raise ValueError("a model in a model, in a file of tf.keras before 2.13: these are not read")
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


def _tree(file: Hdf5, model: Sequential, parts: Sequence[Any]) -> dict[str, Any]:
    """The datasets by the names that weights have here; those that the model has no place for keep theirs."""
    names, places = weight_names(model), _tree_places(file, model, parts)
    found = {n: file.datasets[p] for n, p in zip(names, places, strict=True) if p in file.datasets}
    taken = set(places)
    for path, dataset in file.datasets.items():
        top, *rest = path.split("/")
        drawn = any("seed_generator" in part or "random_generator" in part for part in rest)
        if top in ("layers", "_layer_checkpoint_dependencies") and path not in taken and not drawn:
            found[f"layers/{'/'.join(rest)}"] = dataset
    return found


def _legacy(file: Hdf5, root: str, model: Sequential, parts: Sequence[Any]) -> dict[str, Any]:
    """As `_tree`, of a file whose attributes list the layers and the weights of each."""
    names = iter(weight_names(model))
    ours = [
        (name, layers, [next(names) for layer in layers for _ in layer.variables]) for name, layers in groups_of(parts)
    ]
    ours = [group for group in ours if group[2]]
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
            f"({', '.join(name for name, *_ in ours[:8])}), the file {len(theirs)} "
            f"({', '.join(name for name, _ in theirs[:8])})"
        )
    found = {}
    for (our_name, layers, mine), (name, paths) in zip(ours, theirs, strict=True):
        if len(mine) != len(paths):
            raise ValueError(
                f'layer "{our_name}": expected {len(mine)} weights, got {len(paths)} in layer {name!r} of the file'
            )
        # Keras lists the weights that gradients change first.
        changed = {id(v) for layer in layers for v in layer.trainable_weights}
        variables = [v for layer in layers for v in layer.variables]
        ordered = sorted(range(len(mine)), key=lambda i: id(variables[i]) not in changed)
        for i, path in zip(ordered, paths, strict=True):
            found[mine[i]] = file.dataset(path)
    return found


def _weights_in(file: Hdf5, model: Sequential, parts: Sequence[Any]) -> dict[str, Any]:
    if "model_weights" in file.groups:
        return _legacy(file, "model_weights", model, parts)
    if file.texts("", "layer_names") is not None:
        return _legacy(file, "", model, parts)
    if "layers" not in file.groups and "_layer_checkpoint_dependencies" not in file.groups:
        raise ValueError(f"no weights of Keras's: expected `layers` or `layer_names`, got {sorted(file.groups)[1:9]}")
    return _tree(file, model, parts)


def put_weights(file: Any, model: Sequential) -> None:
    """The weights of a built model into an HDF5 file, as Keras 3 has them."""
    groups = (group for layer, root in roots_of(model.layers) for group in _groups(layer, root))
    for group in (Group("", model.name, []), *groups):
        put_group(file, group.path, group.name, [variable.numpy() for variable in group.variables])


def put_group(file: Any, path: str, name: str, values: Sequence[Any]) -> None:
    """Numbered values, in the `vars` of a group of the tree."""
    into = file.create_group(f"{path}/vars")
    into.attrs["name"] = name
    for i, value in enumerate(values):
        into[str(i)] = value


def take_weights(
    file: Hdf5, model: Sequential, path: str, skip_mismatch: bool, parts: Sequence[Any] | None = None
) -> None:
    """The weights in a file into a built model. parts: where its layers stand in models of the file's."""
    found = _weights_in(file, model, model.layers if parts is None else parts)
    for name, variable in zip(weight_names(model), model.weights, strict=True):
        dataset = found.get(name)
        # Only what fits is read; `assign` says what does not.
        if dataset is not None and dataset.shape == variable.shape and dataset.dtype.kind == "f":
            found[name] = dataset[()]
    assign(model, found, path, skip_mismatch)
