"""Keras's files, read by h5py: .keras and .weights.h5 of Keras 3, .h5 of any Keras; no Keras is imported."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cpubn.ask.files import MOST, Allowance, reading
from cpubn.convert._content import HDF5, KERAS, KINDS, content_of
from cpubn.convert._hdf5 import Contents, Path, Vector, contents
from cpubn.convert._keras_config import Config, Configs
from cpubn.convert._names import Names, listed
from cpubn.convert._sources import library, no_other

WEIGHTS = "model.weights.h5"
CONTAINERS = ("layers", "_layer_checkpoint_dependencies")  # of a model; the second in Keras 2.12
NUMBERED = re.compile(r"batch_normalization(_\d+)?")


@dataclass(frozen=True)
class Found:
    """One batch norm in a file."""

    weights: dict[str, Any]  # by Keras's names; or, without names, by their numbers
    config: Config | None


def norms_in(path: str, names: Names) -> dict[str, Found]:
    """Every batch norm of a file by name: its weights, and what the config says of it, if there is one."""
    no_other(path, KERAS, HDF5)
    library("h5py")
    content = content_of(path)
    with reading(path, KINDS[content if content == HDF5 else KERAS][0]):
        if content == KERAS:
            with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
                text: str | bytes | None = _unpacked(archive, "config.json")
                (read,) = contents([_copied(archive, folder)], MOST)
        else:
            (read,) = contents([path], MOST)
            text = None if isinstance(read, str) else read.config
        if isinstance(read, str):
            raise ValueError(read)
        said = Configs(text)
        found = _numbered(read, said, names) or _named(read.arrays, said, names)
    if not found:
        raise ValueError(f"{path}: {names.nothing(map('/'.join, read.arrays))}")
    last = len(said.order)
    order = {name: (said.order.get(id(norm.config), last), _natural(name)) for name, norm in found.items()}
    return {name: found[name] for name in sorted(found, key=order.__getitem__)}


def _unpacked(archive: zipfile.ZipFile, name: str) -> bytes:
    entry = archive.getinfo(name)
    Allowance().take(entry.file_size, name)
    return archive.read(entry)


def _copied(archive: zipfile.ZipFile, folder: str) -> str:
    """The weights as a file of their own; their checksum is compared at the end."""
    if WEIGHTS not in archive.namelist():
        raise ValueError(f"it must hold {WEIGHTS}, got {listed(archive.namelist())}; save it with weights in one")
    entry = archive.getinfo(WEIGHTS)
    Allowance(entry.compress_size + MOST).take(entry.file_size, WEIGHTS)
    copy = os.path.join(folder, WEIGHTS)
    with archive.open(entry) as stream, open(copy, "wb") as file:
        shutil.copyfileobj(stream, file, 1 << 20)
    return copy


def _numbered(file: Contents, said: Configs, names: Names) -> dict[str, Found]:
    """Those of Keras 3, which numbers a layer's weights: gamma, beta, moving_mean, moving_variance, those there are.

    Without a config, what stands under the name of the class is one; and under another name three and more vectors of
    one length, as no other layer of Keras has.
    """
    found: dict[Path, tuple[Path, Found]] = {}
    weights: dict[Path, dict[str, Vector]] = {}
    for path, vector in file.arrays.items():
        if path[-2:-1] == ("vars",):
            weights.setdefault(path[:-2], {})[path[-1]] = vector
    for path, vectors in weights.items():
        owner = tuple("layers" if part == CONTAINERS[1] else part for part in path)
        config = said.of_group(owner, file.groups.get((*path, "vars")))
        keys = [str(i) for i in range(len(vectors))]
        shapes = {vector.shape for vector in vectors.values()}
        alike = set(vectors) == set(keys) and len(shapes) == 1 and len(next(iter(shapes))) == 1
        by_class = len(keys) >= 2 and bool(owner) and NUMBERED.fullmatch(owner[-1]) is not None
        if alike and (config is not None or by_class or 3 <= len(keys) <= 7):
            kept = keys[: len(keys) - 3 if len(keys) > 4 else len(keys)]  # before those of renorm
            found[path] = _chain(path, file, config), Found({key: vectors[key].values for key in kept}, config)
    counts = Counter(chain for chain, _ in found.values())
    return {names.separator.join(chain if counts[chain] == 1 else path): norm for path, (chain, norm) in found.items()}


def _chain(owner: Path, file: Contents, config: Config | None) -> Path:
    """The names of the layers down to this one: from the config, else from the file, else those of the groups."""
    if config is not None:
        return config.names
    said = [file.groups.get((*owner[:end], "vars")) for end in range(1, len(owner) + 1)]
    if said and said[-1] is not None:  # a group without is a list in the layer around it
        return tuple(name for name in said if name is not None)
    return tuple(part for part in owner if part not in CONTAINERS)


def _named(arrays: Mapping[Path, Vector], said: Configs, names: Names) -> dict[str, Found]:
    """Those of other files, whose weights have names, within the group of the model's layer that they belong to."""
    weights: dict[str, Any] = {}
    layers: dict[str, str] = {}
    chosen: dict[tuple[str, str], str] = {}
    for path, vector in arrays.items():
        layer = vector.layer or path[:1]
        outer, inner = names.separator.join(layer), names.separator.join(path[len(layer) :])
        prefix, field = names.split(inner)
        if field in names.fields:
            if (outer, prefix) not in chosen:
                name = _within(outer, prefix, names)
                if name in layers:
                    name = names.join(outer, prefix)
                chosen[outer, prefix], layers[name] = name, outer
            weights[names.join(chosen[outer, prefix], field)] = vector.values
    if not any(names.split(key)[1].startswith("moving_") for key in weights):
        return {}
    ours = {ours: theirs for theirs, ours in names.fields.items()}
    found = {}
    for prefix, values in names.find(weights).items():
        chain = (layers[prefix], *prefix.rpartition(layers[prefix])[2].split(names.separator)[1:])
        found[prefix] = Found({ours[name]: value for name, value in values.items()}, said.of_weights(chain))
    return found


def _within(outer: str, prefix: str, names: Names) -> str:
    """A name with that of the model's layer in it, to which TF1 added a number where it was taken already."""
    whole, there = re.subn(rf"(^|/){re.escape(outer)}(_\d+)?(?=/|$)", lambda found: found[1] + outer, prefix, count=1)
    return whole if there or not outer else names.join(outer, prefix).rstrip(names.separator)


def _natural(name: str) -> list[tuple[str, int]]:
    """Numbers in their order: bn_2 before bn_10."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d{0,18})", name)]
