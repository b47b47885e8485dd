"""The names and shapes of the arrays in a file, in its order, without their numbers."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator

import numpy as np

from cpubn.convert._content import ARRAYS, SAFETENSORS, SCRIPT, TORCH, content_of
from cpubn.convert._sources import library
from cpubn.convert._torch_files import flat, load

Shape = tuple[int, ...]


def shapes_of(path: str) -> dict[str, Shape]:
    """Of a file that convert.read has read; {} where it holds no arrays by name."""
    content = content_of(path)
    readers = {ARRAYS: _npz, SAFETENSORS: _safetensors, TORCH: _torch, SCRIPT: _torch}
    return dict(readers[content](path)) if content in readers else {}


def _npz(path: str) -> Iterator[tuple[str, Shape]]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as stream:
                version = np.lib.format.read_magic(stream)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                yield name.removesuffix(".npy"), read(stream)[0]


def _safetensors(path: str) -> Iterator[tuple[str, Shape]]:
    """By name, with numbers in them counted: the file's own order is one of sizes and letters."""
    with library("safetensors").safe_open(path, framework="numpy") as file:
        for name in sorted(
            file.keys(), key=lambda name: [(len(n), n) if n.isdigit() else (0, n) for n in re.split(r"(\d+)", name)]
        ):
            yield name, tuple(file.get_slice(name).get_shape())


def _torch(path: str) -> Iterator[tuple[str, Shape]]:
    for name, value in flat(load(path)).items():
        yield name, tuple(getattr(value, "shape", ()))
