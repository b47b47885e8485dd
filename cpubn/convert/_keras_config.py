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


class Configs:
    """What is said of every batch norm of a model, in its order, looked up by place or name."""

    def __init__(self, text: str | bytes | None) -> None:
        model = None if text is None else json.loads(text)
        said = list(_inside(model, "", ())) if isinstance(model, dict) else []
        self.order = {id(config): i for i, config in enumerate(said)}
        self._places = {config.place: config for config in said}
        self._by: dict[tuple[Any, ...], list[Config]] = {}
        for config in said:
            outer = config.names[:1]
            for key in {("last", config.names[-1:]), ("in", outer), ("exact", config.names)}:
                self._by.setdefault(key, []).append(config)
            for name in set(config.names):
                self._by.setdefault(("around", outer, name), []).append(config)

    def of_group(self, path: tuple[str, ...], name: str | None) -> Config | None:
        """That of a group of weights in a file of Keras 3, and of the layer's name, if the file says it."""
        config = self._places.get("".join(f"/{part}" for part in path))
        if name is None or (config is not None and config.names[-1:] == (name,)):
            return config
        return self._only("last", (name,))

    def of_weights(self, names: tuple[str, ...]) -> Config | None:
        """That of weights of these names: of the layer of the model that they stand in, then of those inside.

        A wrapper's weights may bear its own name instead of that of the layer in it.
        """
        outer = names[:1]
        return self._only("in", outer) or self._only("exact", names) or self._only("around", outer, names[-1])

    def _only(self, *key: Any) -> Config | None:
        """The one that there is, if there are no others."""
        found = self._by.get(key, [])
        return found[0] if len(found) == 1 else None


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
        fields = {name: config[name] for name in FIELDS if name in config}
        last = _rank(node) - 1
        if last > 0 and fields.get("axis") in (last, [last]):
            fields["axis"] = -1
        yield Config(place, names, fields)
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


def _rank(node: dict[str, Any]) -> int:
    """Of a layer's input, or 0 where it is not said."""
    build = node.get("build_config")
    shape = build.get("input_shape") if isinstance(build, dict) else None
    return len(shape) if isinstance(shape, list) else 0


def _snake_case(name: str) -> str:
    """As Keras names the groups of its files (keras/src/utils/naming.py)."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
