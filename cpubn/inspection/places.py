"""Where a norm stands in a model, and what it folds into: as a graph says, or as is likely by names and shapes."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cpubn.convert import Norm

Shape = tuple[int, ...]
Say = Callable[[str], None]  # what is being done

# What comes last in the name of a matrix or kernel, and on which axis its outputs are.
OUTPUTS = {"weight": 0, "kernel": -1, "depthwise_kernel": -2, "pointwise_kernel": -1}
# What names say of a layer's kind, and not of which one it is.
KIND = re.compile(r"batch_?norm(alization)?(_?v\d)?|bn|norm|conv(olution)?(_?\dd)?|linear|dense|fc|[\W_]+", re.I)


class Place(NamedTuple):
    stands: str | None  # after and before what; None where nothing tells
    foldable: bool | None  # None where it is not sure
    how: str  # into what, or why not

    @property
    def answer(self) -> str:
        if self.foldable is None:
            return "likely" if self.stands is not None and self.stands.startswith("likely") else "unknown"
        return "yes" if self.foldable else "no"

    def to_dict(self) -> dict[str, str | bool | None]:
        return self._asdict()


@dataclass
class Contents:
    """A file looked into."""

    norms: dict[str, Norm]
    places: dict[str, Place]
    unread: dict[str, str] = field(default_factory=dict)  # norms that cannot be read, with the reason


def by_names(norms: Mapping[str, int], shapes: Mapping[str, Shape], in_order: bool = True) -> dict[str, Place]:
    """The places of norms, given with their channels, among the arrays of a file.

    in_order : whether the arrays stand as the layers of the model do, and not by their names.
    """
    layers = list(_layers(shapes))
    twins = {(_split(layer.name), layer.outputs): layer for layer in layers}
    begin = {re.split(r"[./](?=[^./]*$)", key)[0]: at for at, key in reversed(list(enumerate(shapes)))}
    starts = [layer.at for layer in layers]
    places = {}
    for name, channels in norms.items():
        before = bisect_left(starts, begin.get(name, 0)) if in_order else 0
        places[name] = _place(channels, twins.get((_split(name), channels)), layers[before - 1] if before else None)
    return places


class Layer(NamedTuple):
    name: str
    shape: Shape
    outputs: int
    at: int  # in the file


def _layers(shapes: Mapping[str, Shape]) -> Iterable[Layer]:
    for at, (key, shape) in enumerate(shapes.items()):
        field = re.split(r"[./]", key)[-1]
        if len(shape) < 2 or field not in OUTPUTS:
            continue
        outputs = shape[OUTPUTS[field]] * (shape[-1] if field == "depthwise_kernel" else 1)
        yield Layer(key[: len(key) - len(field)].rstrip("./"), shape, outputs, at)


def _place(channels: int, twin: Layer | None, last: Layer | None) -> Place:
    """Of a norm with a layer of its own name, or with one just before it."""
    layer = twin or last
    if layer is not None and layer.outputs == channels:
        stands = f"likely after {layer.name} ({'x'.join(map(str, layer.shape))})"
        return Place(stands, None, f"into {layer.name}, if nothing stands between")
    other = "" if last is None else f"; {last.name}, just before it, has {last.outputs}"
    return Place(None, None, f"no layer of its name or just before it has {channels} outputs{other}")


def _split(name: str) -> tuple[str, str]:
    """What a layer is in, and what is left of its own name without its kind."""
    *parents, own = re.split(r"[./]", name)
    return ".".join(parents), KIND.sub("", own)
