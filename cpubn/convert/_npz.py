""".npz: NumPy's archive of arrays, read without pickle."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from cpubn.convert._content import ARRAYS, KINDS
from cpubn.convert._metadata import KEY, arrays_of, norms_of
from cpubn.convert._names import Each
from cpubn.convert._norm import UNKNOWN, Momentum, Norm, Unknown
from cpubn.convert._sources import Allowance, file_path, no_other, reading

KIND = KINDS[ARRAYS][0]
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # as NumPy writes them


def from_npz(
    path: str | os.PathLike[str],
    *,
    eps: Each[float | Unknown] = UNKNOWN,
    momentum: Each[Momentum] = UNKNOWN,
) -> dict[str, Norm]:
    """Every batch norm of an .npz file by its prefix.

    A file of to_npz says all that it was written from. Any other is read as a torch state_dict, for which eps and
    momentum have to be given, see from_torch; one with Keras's names is for `from_keras(np.load(path), ...)`. Given eps
    and momentum replace those of the file. Raises ValueError for a damaged file, of which the checksums tell.
    """
    path = file_path(path)
    no_other(path, ARRAYS)
    allowance = Allowance()
    with reading(path, KIND):
        archive = zipfile.ZipFile(path)
    with archive:
        with reading(path, KIND):
            for member in archive.infolist():
                archive.open(member).close()  # compares the two places where its name stands
        keys = [name.removesuffix(".npy") for name in archive.namelist()]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"{path} must hold each array once, got {twice!r} twice; write it again")

        def take(key: str) -> Any:
            with reading(path, KIND):
                entry = archive.getinfo(f"{key}.npy")
                allowance.take(entry.file_size, key)
                if entry.compress_type not in PACKED:
                    raise ValueError(f"{key} is compressed in a way that NumPy does not write")
                stream = io.BytesIO(archive.read(entry))  # whole, so that its checksum is compared
                array = np.lib.format.read_array(stream, allow_pickle=False)
                if stream.read(1):
                    raise ValueError(f"{key} is longer than its shape {array.shape}")
            return array

        metadata = str(take(KEY)) if KEY in keys else None
        return norms_of(path, keys, take, metadata, eps=eps, momentum=momentum)


def to_npz(norms: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write Norms, layers or FrozenBatchNorms by prefix, with eps, momentum, variance and layout, as float64."""
    path = file_path(path)
    arrays, metadata = arrays_of(norms)
    with open(path, "wb") as file:  # given a name, NumPy would add to it
        np.savez(file, allow_pickle=False, **{**arrays, KEY: np.array(metadata)})
