""".safetensors: named tensors with metadata."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from cpubn.ask.files import file_path, reading
from cpubn.convert._content import KINDS, SAFETENSORS
from cpubn.convert._metadata import KEY, arrays_of, norms_of
from cpubn.convert._names import Each
from cpubn.convert._norm import UNKNOWN, Momentum, Norm, Unknown
from cpubn.convert._sources import library, no_other

KIND = KINDS[SAFETENSORS][0]


def from_safetensors(
    path: str | os.PathLike[str],
    *,
    eps: Each[float | Unknown] = UNKNOWN,
    momentum: Each[Momentum] = UNKNOWN,
) -> dict[str, Norm]:
    """Every batch norm of a .safetensors file by its prefix; no other tensor is read.

    A file of to_safetensors says all that it was written from. Any other is read as a torch state_dict, for which eps
    and momentum have to be given, see from_torch. The format has no checksum: a number that is wrong but possible does
    not show.

    Parameters
    ----------
    path : the file.
    eps, momentum : in cpubn's (torch's) meanings, one for all or a mapping by prefix; given, they replace the file's.

    Returns
    -------
    A dict of Norms by prefix.

    Raises
    ------
    ValueError : a damaged file, or eps is asked for.
    OSError : it cannot be opened.

    Examples
    --------
    >>> convert.to_safetensors({"bn": cpubn.BatchNorm2d(3)}, "norms.safetensors")
    >>> list(convert.from_safetensors("norms.safetensors"))
    ['bn']
    """
    path = file_path(path)
    safetensors = library("safetensors")
    library("ml_dtypes")  # registers bfloat16 with NumPy
    no_other(path, SAFETENSORS)
    with reading(path, KIND):
        file = safetensors.safe_open(path, framework="numpy")

    def take(key: str) -> Any:
        with reading(path, KIND):
            return file.get_tensor(key)

    with file:
        return norms_of(path, file.keys(), take, (file.metadata() or {}).get(KEY), eps=eps, momentum=momentum)


def to_safetensors(norms: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
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
    >>> convert.to_safetensors({"bn": cpubn.BatchNorm2d(3)}, "norms.safetensors")
    >>> list(convert.from_safetensors("norms.safetensors"))
    ['bn']
    """
    path = file_path(path)
    arrays, metadata = arrays_of(norms)
    library("safetensors.numpy").save_file(arrays, path, metadata={KEY: metadata})
