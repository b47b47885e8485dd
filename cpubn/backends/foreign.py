"""Arrays of other libraries in the CPU's memory as NumPy's arrays over it, and back; no library is imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from numbers import Number
from typing import Any

import numpy as np

from cpubn.backends.interface import bfloat16, name_of

VALUES = np.ndarray, np.generic, Number, str, bytes, list, tuple, dict


def shared(a: Any, name: str) -> Any:
    """A NumPy array over a's memory; what promises none, such as a list, as it is.

    By __array_interface__, the buffer protocol or DLPack. An __array__ alone may be a copy.
    """
    if isinstance(a, VALUES):
        return a
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(a, torch.Tensor):
        return _of_tensor(a)
    if hasattr(a, "__array_interface__"):
        return np.asarray(a)
    try:
        return np.asarray(memoryview(a))
    except (TypeError, ValueError, NotImplementedError, BufferError):  # it has no buffer, or one of a type of its own
        return _of_dlpack(a, name) if hasattr(a, "__dlpack__") else a


def _of_tensor(a: Any) -> Any:
    """One that requires a gradient, is sparse or has no data as it is: NumPy says why it can make no array of it."""
    torch = sys.modules["torch"]
    try:
        if a.dtype is torch.bfloat16:
            return a.view(torch.int16).numpy().view(bfloat16())
        return a.numpy()
    except (TypeError, RuntimeError):
        return a


def _of_dlpack(a: Any, name: str) -> Any:
    try:
        return np.from_dlpack(a)
    except Exception as error:  # on another device, or of a type that NumPy has not
        if hasattr(a, "__array__"):  # which may still give a copy
            return a
        reason = str(error).partition("\n")[0]
        raise TypeError(
            f"{name} must be an array in the CPU's memory, got {type(a).__name__}: {reason}; pass a NumPy array of it"
        ) from error


def maker(like: Any) -> Callable[[Any], Any]:
    """What makes of a result the kind of array that `like` is, over the same memory where that kind allows it."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(like, torch.Tensor):
        return _tensor
    if isinstance(like, VALUES):
        return np.asarray
    if not hasattr(like, "__array_namespace__"):
        raise TypeError(
            "like must be an array of NumPy, torch or a library with __array_namespace__, "
            f"got {type(like).__name__}; leave it out for a NumPy array"
        )
    return partial(_of_library, like.__array_namespace__(), type(like))


def _tensor(y: Any) -> Any:
    torch = sys.modules["torch"]
    if not isinstance(y, np.ndarray):
        return y if isinstance(y, torch.Tensor) else torch.as_tensor(y)  # the caller's out, or an array on a GPU
    if name_of(y.dtype) == "bfloat16":
        return torch.from_numpy(y.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(y)


def _of_library(library: Any, kind: type, y: Any) -> Any:
    if isinstance(y, kind):
        return y
    try:
        return library.from_dlpack(y)
    except Exception:  # NumPy gives no bfloat16 by DLPack
        return library.asarray(y)
