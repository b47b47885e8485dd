"""Any file, whatever framework wrote it."""

from __future__ import annotations

import os
from typing import Any

from cpubn.ask.files import file_path
from cpubn.convert._content import ARRAYS, HDF5, KERAS, KINDS, OTHER, SAFETENSORS, SCRIPT, TORCH, content_of
from cpubn.convert._keras import from_keras
from cpubn.convert._names import Each, with_given
from cpubn.convert._norm import UNKNOWN, Momentum, Norm, Unknown
from cpubn.convert._npz import from_npz
from cpubn.convert._onnx import from_onnx
from cpubn.convert._safetensors import from_safetensors
from cpubn.convert._torch import from_torch

READERS = {ARRAYS: from_npz, SAFETENSORS: from_safetensors, TORCH: from_torch, SCRIPT: from_torch}


def read(
    path: str | os.PathLike[str],
    *,
    eps: Each[float | Unknown] = UNKNOWN,
    momentum: Each[Momentum] = UNKNOWN,
    **options: Any,
) -> dict[str, Norm]:
    """Every batch norm of a file by name: ONNX, .safetensors, .npz, torch's .pth and .pt, Keras's .keras and .h5.

    Parameters
    ----------
    path : the file. Which of them it is its content tells, not its name.
    eps, momentum : in cpubn's (torch's) meanings, one for all or a mapping by name
        Asked for where the file does not hold them, as those of torch and Keras's weights alone do not; given, they
        replace what the file says.
    options : others of the function that reads such files
        `variance` of ONNX, `axis` of Keras; see from_npz, from_safetensors, from_torch, from_keras and from_onnx.

    Returns
    -------
    A dict of Norms by name.

    Raises
    ------
    ValueError : a damaged file, or one of another kind; a number that is asked for.
    OSError : it cannot be opened.
    ModuleNotFoundError : the library that reads it is not installed. No framework is imported but torch for .pth.

    Examples
    --------
    >>> convert.to_npz({"bn": cpubn.BatchNorm2d(3)}, "norms.npz")
    >>> convert.read("norms.npz")["bn"].num_features
    3
    """
    path = file_path(path)
    content = content_of(path)
    if content in READERS:
        return READERS[content](path, eps=eps, momentum=momentum, **options)
    if content in (KERAS, HDF5):
        return with_given(from_keras(path, epsilon=eps, **options), momentum=momentum)
    if content != OTHER:
        raise ValueError(
            f"{path} must be a file of ONNX, safetensors, npz, torch or Keras, got {KINDS[content][0]}; "
            "pass the file of a model's weights"
        )
    return with_given(from_onnx(path, **options), eps=eps, momentum=momentum)
