"""Models in models. Keras's files keep them apart; here their layers stand in one chain, and this module knows where
they were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .._config import check_mapping, snake_case
from ..layers import InputLayer, Layer
from ._descriptions import chain, keras_own, read_layer, shown

MODELS = ("Sequential", "Functional", "Model")


class Inner(NamedTuple):
    """A model in a model: its class's name and its own, and what stands in it."""

    kind: str
    name: str
    parts: list[Any]  # Layer or Inner


def read_parts(kind: Any, config: Mapping[str, Any], old: bool) -> list[Any]:
    """What stands in a model, in the order in which data pass it.

    Raises:
        ValueError: what is not known here, or no chain.
    """
    listed = config.get("layers")
    if not isinstance(listed, list) or not listed:
        raise ValueError("the config of the model: expected a list `layers` with a layer or more")
    return [_part(item, old) for item in (listed if kind == "Sequential" else chain(config, listed))]


def _part(item: Any, old: bool) -> Any:
    item = check_mapping(item, "the description of a layer")
    kind, config = item.get("class_name"), item.get("config")
    if kind not in MODELS or not keras_own(item):
        return read_layer(item, old)
    if isinstance(config, list):  # Keras before 2.2.3
        config = {"layers": config}
    config = check_mapping(config, f"the config of model {shown(item)}")
    try:
        parts = read_parts(kind, config, old)
    except ValueError as error:
        raise ValueError(f"model {shown(item)}: {error}") from error
    if config.get("trainable") is False:
        for layer in layers_of(parts):
            layer.trainable = False
    return Inner(str(kind), str(config.get("name") or item.get("name") or snake_case(str(kind))), parts)


def layers_of(parts: Sequence[Any]) -> list[Layer]:
    """All layers in one row. An Input counts at the very beginning only. Names that are there twice get those of their
    models in front."""
    found: list[Layer] = []
    _collect(parts, "", found, set())
    return [layer for i, layer in enumerate(found) if i == 0 or not isinstance(layer, InputLayer)]


def _collect(parts: Sequence[Any], inside: str, found: list[Layer], names: set[str]) -> None:
    for part in parts:
        if isinstance(part, Inner):
            _collect(part.parts, f"{inside}{part.name}_", found, names)
            continue
        if not isinstance(part, InputLayer):
            while inside and part.name in names:
                part.name = f"{inside}{part.name}"
            names.add(str(part.name))
        found.append(part)


def groups_of(parts: Sequence[Any]) -> list[tuple[str, list[Layer]]]:
    """The outermost layers and models, with their names and all layers that they have."""
    return [
        (part.name, _without_input(layers_of(part.parts))) if isinstance(part, Inner) else (str(part.name), [part])
        for part in parts
        if not isinstance(part, InputLayer)
    ]


def _without_input(layers: list[Layer]) -> list[Layer]:
    return [layer for layer in layers if not isinstance(layer, InputLayer)]


def roots_of(parts: Sequence[Any], at: str = "layers") -> Iterator[tuple[Layer, str]]:
    """The layers, with where in Keras 3's tree they are: in each model counted by class, whatever they are called."""
    names = counted([part.kind if isinstance(part, Inner) else type(part).__name__ for part in parts])
    for part, name in zip(parts, names, strict=True):
        here = f"{at}/{name}"
        if isinstance(part, Inner):
            yield from roots_of(part.parts, f"{here}/layers")
        elif not isinstance(part, InputLayer):
            yield part, here


def counted(kinds: Sequence[str]) -> list[str]:
    """Keras counts what stands side by side by class: `lstm`, `lstm_1`, …, whatever it is called."""
    seen: Counter[str] = Counter()
    names = []
    for kind in map(snake_case, kinds):
        names.append(f"{kind}_{seen[kind]}" if seen[kind] else kind)
        seen[kind] += 1
    return names
