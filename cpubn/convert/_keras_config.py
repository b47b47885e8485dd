"""What a Keras model's config says of its batch norms: model_config of .h5, config.json of .keras."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

FIELDS = ("epsilon", "momentum", "axis", "center", "scale")
CLASSES = re.compile(r"(.*>)?(Sync)?BatchNormalization(V1|V2)?")


@dataclass(frozen=True)
class Config:
    """What is said of one batch norm."""

    place: str | None  # its group in a file of Keras 3, where that can be told
    names: tuple[str, ...]  # of the layers around it and its own, without the model's
    fields: dict[str, Any]
    rank: int | None  # of its input


def configs(text: str | bytes) -> list[Config]:
    """Of every batch norm of a model, in its order."""
    model = json.loads(text)
    return list(_inside(model, "", ())) if isinstance(model, dict) else []


def of_weights(said: list[Config], names: tuple[str, ...]) -> Config | None:
    """Which of them is the batch norm of these names: the layer of the model that it stands in, then those inside.

    A wrapper's weights may bear its own name instead of that of the layer in it.
    """
    here = [config for config in said if config.names[:1] == names[:1]]
    if len(here) > 1:
        exact = [config for config in here if config.names == names]
        here = exact or [config for config in here if names[-1] in config.names]
    return here[0] if len(here) == 1 else None


def _inside(node: Any, place: str | None, names: tuple[str, ...]) -> Iterator[Config]:
    """Of a layer's node, or of anything that may hold some."""
    if isinstance(node, list):
        for item in node:
            yield from _inside(item, None, names)
        return
    if not isinstance(node, dict):
        return
    config = node.get("config")
    if not isinstance(node.get("class_name"), str) or not isinstance(config, dict | list):
        for item in node.values():
            yield from _inside(item, None, names)
        return
    if isinstance(config, dict) and (CLASSES.fullmatch(node["class_name"]) or "moving_variance_initializer" in config):
        yield Config(place, names, {name: config[name] for name in FIELDS if name in config}, _rank(node))
        return
    layers = config.get("layers") if isinstance(config, dict) else config
    if isinstance(layers, list):
        taken: dict[str, int] = {}
        for layer in layers:
            if not isinstance(layer, dict) or layer.get("class_name") == "InputLayer":
                continue
            kind = _snake_case(str(layer.get("class_name")))
            taken[kind] = taken.get(kind, -1) + 1
            here = f"{kind}_{taken[kind]}" if taken[kind] else kind
            inner = None if place is None else f"{place}/layers/{here}"
            yield from _inside(layer, inner, (*names, *_name(layer)))
    elif isinstance(config, dict):
        for key, item in config.items():
            inner = f"{place}/{key}" if place is not None and key == "layer" else None
            yield from _inside(item, inner, (*names, *_name(item)))


def _name(layer: Any) -> tuple[str, ...]:
    """A layer's name, if it is one."""
    if not isinstance(layer, dict) or not isinstance(layer.get("class_name"), str):
        return ()
    config = layer.get("config")
    name = layer.get("name", config.get("name") if isinstance(config, dict) else None)
    return (name,) if isinstance(name, str) else ()


def _rank(node: dict[str, Any]) -> int | None:
    build = node.get("build_config")
    shape = build.get("input_shape") if isinstance(build, dict) else None
    return len(shape) if isinstance(shape, list) else None


def _snake_case(name: str) -> str:
    """As Keras names the groups of its files (keras/src/utils/naming.py)."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
