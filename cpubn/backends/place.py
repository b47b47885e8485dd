"""Where an array lives, and what the data path does to it there: host.py and gpu/vectors.py have the same functions."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from cpubn.backends import foreign, host
from cpubn.backends.gpu.arrays import DeviceArray, is_on_gpu


@cache
def _gpu() -> Any:
    """With the first array that is there, because it brings Numba, which takes half a second."""
    return import_module("cpubn.backends.gpu.vectors")


def place_of(a: Any) -> Any:
    """The module for what a plan was made of: an array on the host, or a DeviceArray."""
    return _gpu() if isinstance(a, DeviceArray) else host


def place_name(a: Any) -> str:
    return f"GPU {a.device}" if isinstance(a, DeviceArray) else "the host"


def located(a: Any, name: str) -> Any:
    """A DeviceArray of what is on a GPU, a NumPy array over shared memory on the host; anything else as it is."""
    if type(a) in (DeviceArray, np.ndarray) or a is None:
        return a
    try:
        if is_on_gpu(a):
            return _gpu().array_of(a)
    except ImportError as error:
        raise ValueError(
            f"{name} is on a GPU, which Numba must be able to use, but: {' '.join(str(error).split())}; "
            'it needs the driver, the CUDA toolkit and pip install "cpubn[cuda]"'
        ) from error
    except Exception as error:  # a tensor that needs detaching first, a mask, another byte order
        raise TypeError(f"{name} must be an array of plain memory, got {type(a).__name__}: {error}") from error
    return foreign.shared(a, name)


def plain(a: Any) -> Any:
    """Without what a subclass of NumPy's arrays changes: a matrix would stay of two dimensions."""
    return a if isinstance(a, DeviceArray) else np.asarray(a)


def addresses(a: Any) -> Any:
    """A NumPy array over a's memory, of which only address, shape and strides are of use."""
    if type(a) is np.ndarray:
        return a
    a = located(a, "an array")
    return a.addresses if isinstance(a, DeviceArray) else np.asarray(a)


def to_host(a: Any) -> Any:
    """A NumPy array; of what is on the host already, itself. Waits for what makes it."""
    return _gpu().to_host(a) if is_on_gpu(a) else a


def to_device(a: Any, device: int | None = None) -> Any:
    """An array of numba.cuda on that device, or the current one; of what is on a GPU already, itself."""
    return _gpu().to_device(a, device)
