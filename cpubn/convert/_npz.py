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
    momentum have to be given, see from_torch; one with Keras's names is for `from_keras(np.load(path), ...)`.

    Parameters
    ----------
    path : the file.
    eps, momentum : in cpubn's (torch's) meanings, one for all or a mapping by prefix; given, they replace the file's.

    Returns
    -------
    A dict of Norms by prefix.

    Raises
    ------
    ValueError : a damaged file, of which the checksums tell, or eps is asked for.
    OSError : it cannot be opened.

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
    """Write batch norms, as float64, with eps, momentum, variance and layout.

    Parameters
    ----------
    norms : Norms, layers or FrozenBatchNorms by prefix.
    path : a file of exactly that name, which is written whole or not at all.

    Raises
    ------
    ValueError, TypeError, OSError : what is no batch norm; a file that cannot be written.

    Examples
    --------
    >>> convert.to_npz({"bn": cpubn.BatchNorm2d(3)}, "norms.npz")
    >>> list(convert.from_npz("norms.npz"))
    ['bn']
    """
    path = file_path(path)
    arrays, metadata = arrays_of(norms)
    write_archive(path, {**arrays, KEY: np.array(metadata)})
