""".npz: NumPy's archive of arrays, read without pickle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from cpubn.ask.files import archive_of, file_path, write_archive
from cpubn.convert._content import ARRAYS
from cpubn.convert._metadata import KEY, arrays_of, norms_of
from cpubn.convert._names import Each
from cpubn.convert._norm import UNKNOWN, Momentum, Norm, Unknown
from cpubn.convert._sources import no_other


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

    Examples
    --------
    >>> convert.to_npz({"bn": cpubn.BatchNorm2d(3)}, "norms.npz")
    >>> list(convert.from_npz("norms.npz"))
    ['bn']
    """
    path = file_path(path)
    no_other(path, ARRAYS)
    with archive_of(path) as (keys, take):
        metadata = str(take(KEY)) if KEY in keys else None
        return norms_of(path, keys, take, metadata, eps=eps, momentum=momentum)


def to_npz(norms: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write Norms, layers or FrozenBatchNorms by prefix, with eps, momentum, variance and layout, as float64.

    Examples
    --------
    >>> convert.to_npz({"bn": cpubn.BatchNorm2d(3)}, "norms.npz")
    >>> list(convert.from_npz("norms.npz"))
    ['bn']
    """
    path = file_path(path)
    arrays, metadata = arrays_of(norms)
    write_archive(path, {**arrays, KEY: np.array(metadata)})
