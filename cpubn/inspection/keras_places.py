"""The norms of a Keras file: where they stand, as the config in it says."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from cpubn.ask.files import MOST
from cpubn.convert._content import KERAS, content_of
from cpubn.convert._hdf5 import Contents, contents
from cpubn.convert._keras_files import _chain, _unpacked
from cpubn.inspection.places import Place, Shape, by_names

# Layers that the norm after them folds into: the outputs of each are sums of products.
AFFINE = {"Dense"} | {f"{kind}{n}D" for kind in ("Conv", "DepthwiseConv", "SeparableConv") for n in (1, 2, 3)}
AFFINE |= {f"Conv{n}DTranspose" for n in (1, 2, 3)}
DEPTH = 64  # of models within each other


class Layer(NamedTuple):
    kind: str
    config: Mapping[str, Any]
    before: tuple[str, ...]  # layers by the names that this mapping has them by


def in_keras(path: str, channels: Mapping[str, int]) -> dict[str, Place]:
    """The places of norms, given with their channels, in a file that convert.read has read."""
    shapes: dict[str, Shape] = {}
    text: str | bytes | None
    if content_of(path) == KERAS:
        with zipfile.ZipFile(path) as archive:
            text = _unpacked(archive, "config.json")
    else:
        (read,) = contents([path], MOST)
        if isinstance(read, str):
            raise ValueError(read)
        text, shapes = read.config, dict(_named_shapes(read))
    layers = {} if text is None else layers_of(text)
    return by_config(channels, layers) if layers else by_names(channels, shapes, in_order=False)


def _named_shapes(file: Contents) -> Iterator[tuple[str, Shape]]:
    """Keras 3 numbers the weights of a layer, a kernel first."""
    for path, array in file.arrays.items():
        field, owner = path[-1].partition(":")[0], path[:-1]
        if owner[-1:] == ("vars",):
            owner = _chain(owner[:-1], file, None)
            field = "kernel" if field == "0" and len(array.shape) > 1 else field
        yield "/".join((*owner, field)), array.shape


def layers_of(text: str | bytes) -> dict[str, Layer]:
    """Every layer of a config, by the names of the models around it and its own."""
    return dict(_inside(json.loads(text), "", 0))


def by_config(norms: Iterator[str] | Mapping[str, Any], layers: Mapping[str, Layer]) -> dict[str, Place]:
    takers: dict[str, list[str]] = {}
    for name, layer in layers.items():
        for before in layer.before:
            takers.setdefault(before, []).append(name)
    return {name: _place(_named(name, layers), layers, takers) for name in norms}


def _inside(model: Any, prefix: str, depth: int) -> Iterator[tuple[str, Layer]]:
    config = model.get("config") if isinstance(model, dict) else None
    listed = config.get("layers") if isinstance(config, dict) else config
    if not isinstance(listed, list) or depth > DEPTH:
        return
    named = [(name, layer) for layer in listed if isinstance(layer, dict) and (name := _name(layer))]
    known = {name for name, _ in named}
    last: tuple[str, ...] = ()
    for name, layer in named:
        own = layer.get("config")
        given = layer.get("inbound_nodes")
        before = last if given is None else tuple(dict.fromkeys(_givers(given, known, 0)))
        here = f"{prefix}{name}"
        yield (
            here,
            Layer(
                str(layer.get("class_name")).rpartition(">")[2],
                own if isinstance(own, dict) else {},
                tuple(f"{prefix}{other}" for other in before),
            ),
        )
        yield from _inside(layer, f"{here}/", depth + 1)
        last = (name,)


def _name(layer: Mapping[str, Any]) -> str | None:
    config = layer.get("config")
    name = layer.get("name", config.get("name") if isinstance(config, dict) else None)
    return name if isinstance(name, str) else None


def _givers(node: Any, known: set[str], depth: int) -> Iterator[str]:
    """Keras 2 writes [name, node, tensor, ...], Keras 3 the first three as the history of a tensor."""
    if depth > DEPTH:
        return
    if isinstance(node, list):
        if len(node) >= 3 and isinstance(node[0], str) and node[0] in known and isinstance(node[1], int):
            yield node[0]
            return
        for item in node:
            yield from _givers(item, known, depth + 1)
    elif isinstance(node, dict):
        for item in node.values():
            yield from _givers(item, known, depth + 1)


def _named(name: str, layers: Mapping[str, Layer]) -> str | None:
    """The layer that a norm's name in a file stands for, which may hold names of groups around it or twice."""
    if name in layers:
        return name
    same = [other for other in layers if other.rpartition("/")[2] == name.rpartition("/")[2]]
    return same[0] if len(same) == 1 else None


def _place(name: str | None, layers: Mapping[str, Layer], takers: Mapping[str, list[str]]) -> Place:
    if name is None:
        return Place(None, None, "the config in the file does not name it")
    before = [layers[other] for other in layers[name].before if other in layers]
    own = [other.rpartition("/")[2] for other in layers[name].before]
    after = dict.fromkeys(layers[other].kind for other in takers.get(name, []))
    stands = [f"after {layer.kind} {of}" for layer, of in zip(before, own, strict=False)] or ["at an input"]
    stands += [f"before {', '.join(after)}"] if after else []
    return Place(", ".join(stands), *_folds(before, own, len(takers.get(layers[name].before[0], [])) if before else 0))


def _folds(before: list[Layer], names: list[str], takers: int) -> tuple[bool, str]:
    if len(before) != 1 or before[0].kind not in AFFINE:
        return False, "what is before it is no convolution and no dense layer"
    activation = before[0].config.get("activation")
    if isinstance(activation, dict):  # one of the user's own, or as a layer
        activation = (
            activation.get("config") if isinstance(activation.get("config"), str) else activation.get("class_name")
        )
    if activation not in (None, "linear"):
        return False, f"the activation {activation} of {names[0]} stands between"
    if takers > 1:
        return False, f"others take the output of {names[0]}, too"
    return True, f"into {names[0]}"
