"""Keras's files, read by h5py: .keras and .weights.h5 of Keras 3, .h5 of any Keras; no Keras is imported."""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from cpubn.convert._content import HDF5, KERAS, KINDS, content_of
from cpubn.convert._keras_config import Config, configs, of_weights
from cpubn.convert._names import Names
from cpubn.convert._sources import MOST, Allowance, library, no_other, reading
from cpubn.typing import Array

WEIGHTS = "model.weights.h5"
OBJECTS, DEPTH = 200_000, 64  # groups and arrays that are looked at, within each other
CONTAINERS = ("layers", "_layer_checkpoint_dependencies")  # of a model; the second in Keras 2.12
Path: TypeAlias = tuple[str, ...]
NUMBERED = re.compile(r"batch_normalization(_\d+)?")


@dataclass(frozen=True)
class Found:
    """One batch norm in a file."""

    weights: dict[str, Any]  # by Keras's names; or, without names, by their numbers
    config: Config | None


def norms_in(path: str, names: Names) -> dict[str, Found]:
    """Every batch norm of a file by name: its weights, and what the config says of it, if there is one."""
    no_other(path, KERAS, HDF5)
    h5py = library("h5py")
    kind = KINDS[content_of(path)][0] if content_of(path) in (KERAS, HDF5) else "a file of Keras"
    with reading(path, kind):
        if content_of(path) == KERAS:
            with zipfile.ZipFile(path) as archive, tempfile.TemporaryFile() as file:
                said = configs(_unpacked(archive, "config.json"))
                _copy(archive, file)
                with closing(h5py.File(file, "r")) as weights:
                    return _norms(h5py, weights, said, names)
        with closing(h5py.File(path, "r")) as file:
            text = file.attrs.get("model_config")
            return _norms(h5py, file, configs(text) if isinstance(text, str | bytes) else [], names)


def _unpacked(archive: zipfile.ZipFile, name: str) -> bytes:
    entry = archive.getinfo(name)
    Allowance().take(entry.file_size, name)
    return archive.read(entry)


def _copy(archive: zipfile.ZipFile, file: Any) -> None:
    """The weights, as a file of their own; their checksum is compared at the end."""
    if WEIGHTS not in archive.namelist():
        raise ValueError(
            f"it must hold {WEIGHTS}, got {', '.join(archive.namelist()[:8])}; save it with weights in one"
        )
    entry = archive.getinfo(WEIGHTS)
    Allowance(entry.compress_size + MOST).take(entry.file_size, WEIGHTS)
    with archive.open(entry) as stream:
        shutil.copyfileobj(stream, file, 1 << 20)
    file.seek(0)


def _norms(h5py: Any, file: Any, said: list[Config], names: Names) -> dict[str, Found]:
    groups, arrays = _listed(h5py, file.get("model_weights", file))
    found = _numbered(groups, said, names) or _named(arrays, said, names)
    if not found:
        raise names.nothing("/".join(path) for path, _, _ in arrays)
    allowance, order = Allowance(), {id(config): i for i, config in enumerate(said)}
    read = {
        name: Found({key: _vector(array, name, allowance) for key, array in norm.weights.items()}, norm.config)
        for name, norm in found.items()
    }
    return dict(sorted(read.items(), key=lambda item: (order.get(id(item[1].config), len(said)), _natural(item[0]))))


def _listed(h5py: Any, root: Any) -> tuple[dict[Path, Any], list[tuple[Path, Path, Any]]]:
    """Groups by path; and arrays, each with its path and that of its layer in files of Keras 2.

    Only what the file itself holds: a link elsewhere could lead to any file, and a group can hold itself.
    """
    groups: dict[Path, Any] = {(): root}
    arrays: list[tuple[Path, Path, Any]] = []
    branches: list[tuple[Path, Path, Any]] = [((), (), root)]
    while branches:
        path, layer, group = branches.pop()
        for key in group:
            if len(groups) + len(arrays) > OBJECTS or len(path) > DEPTH:
                raise ValueError(
                    f"it must hold at most {OBJECTS} objects, in groups of at most {DEPTH} levels, got more"
                )
            here = (*path, key)
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise ValueError(f"it must hold its arrays itself, got a link in place of {'/'.join(here)!r}")
            item = group[key]
            if isinstance(item, h5py.Group):
                groups[here] = item
                of_layer = not layer and any(name.startswith("weight_names") for name in item.attrs)
                branches.append((here, here if of_layer else layer, item))
            elif isinstance(item, h5py.Dataset):
                arrays.append((here, layer, item))
    return groups, arrays


def _numbered(groups: dict[Path, Any], said: list[Config], names: Names) -> dict[str, Found]:
    """Those of Keras 3, which numbers a layer's weights: gamma, beta, moving_mean, moving_variance, those there are.

    Without a config, what stands under the name of the class is one; and under another name three and more vectors of
    one length, as no other layer of Keras has.
    """
    found: dict[Path, tuple[tuple[str, ...], Found]] = {}
    places = {config.place: config for config in said if config.place is not None}
    for path, group in groups.items():
        if path[-1:] != ("vars",):
            continue
        owner = tuple("layers" if part == CONTAINERS[1] else part for part in path[:-1])
        own, config = _own_name(group), places.get("".join(f"/{part}" for part in owner))
        if own is not None and (config is None or config.names[-1:] != (own,)):
            same = [other for other in said if other.names[-1:] == (own,)]
            config = same[0] if len(same) == 1 else None
        keys = sorted((key for key in group if key.isdecimal()), key=int)
        shapes = {np.shape(group[key]) for key in keys}
        alike = len(shapes) == 1 and len(next(iter(shapes))) == 1 and keys == [str(i) for i in range(len(keys))]
        by_class = len(keys) >= 2 and bool(owner) and NUMBERED.fullmatch(owner[-1]) is not None
        if alike and (config is not None or by_class or 3 <= len(keys) <= 7):
            kept = keys[: len(keys) - 3 if len(keys) > 4 else len(keys)]  # before those of renorm
            found[path] = _chain(path[:-1], groups, config), Found({key: group[key] for key in kept}, config)
    counts = Counter(chain for chain, _ in found.values())
    return {
        names.separator.join(chain if counts[chain] == 1 else path[:-1]): norm for path, (chain, norm) in found.items()
    }


def _own_name(group: Any) -> str | None:
    """The name of the layer that these weights belong to, which newer Keras 3 writes."""
    name = group.attrs.get("name")
    return name if isinstance(name, str) else None


def _chain(owner: Path, groups: dict[Path, Any], config: Config | None) -> tuple[str, ...]:
    """The names of the layers down to this one: from the config, else from the file, else those of the groups."""
    if config is not None:
        return config.names
    chain: list[str] = []
    for end in range(1, len(owner) + 1):
        group = groups.get((*owner[:end], "vars"))
        if owner[end - 1] not in CONTAINERS:
            chain.append((group is not None and _own_name(group)) or owner[end - 1])
    return tuple(chain)


def _named(arrays: list[tuple[Path, Path, Any]], said: list[Config], names: Names) -> dict[str, Found]:
    """Those of other files, whose weights have names, within the group of the model's layer that they belong to."""
    weights: dict[str, Any] = {}
    layers: dict[str, str] = {}
    for path, layer, array in arrays:
        layer = layer or path[:1]
        outer, inner = names.separator.join(layer), names.separator.join(path[len(layer) :])
        prefix, field = names.split(inner)
        if field in names.fields:
            around = names.separator
            within = f"{around}{outer}{around}" in f"{around}{prefix}{around}"
            prefix = prefix if within else names.join(outer, prefix).rstrip(around)
            weights[names.join(prefix, field)] = array
            layers[prefix] = outer
    if not any(names.split(key)[1].startswith("moving_") for key in weights):
        return {}
    ours = {ours: theirs for theirs, ours in names.fields.items()}
    found = {}
    for prefix, values in names.find(weights).items():
        inside = prefix.split(names.separator)
        outer = layers[prefix].split(names.separator)[-1]
        chain = (layers[prefix], *(inside[inside.index(outer) + 1 :] if outer in inside else inside))
        found[prefix] = Found({ours[name]: value for name, value in values.items()}, of_weights(said, chain))
    return found


def _natural(name: str) -> list[tuple[str, int]]:
    """Numbers in their order: bn_2 before bn_10."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d{0,18})", name)]


def _vector(array: Any, name: str, allowance: Allowance) -> Array:
    if array.ndim != 1 or array.is_virtual or array.external is not None or array.dtype.kind not in "fV":
        raise ValueError(f"{name} must hold vectors of floating numbers, within the file, got {array}")
    allowance.take(array.size * 8, name)
    values: Array = array[()]
    if array.dtype.str == "|V2" and array.attrs.get("dtype") == "bfloat16":
        return (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return values
