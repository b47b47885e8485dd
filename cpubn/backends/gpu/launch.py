"""Launching a kernel: compiled once for every device and types of its arguments, and entered with the arguments packed.

Arguments are DeviceArrays, of which a kernel takes the memory as a flat array; ints and floats; and tuples of either.
Numba's own launch looks at each of them anew, which takes ten times as long as the driver's.
"""

import ctypes
import struct
import threading
from typing import Any, NamedTuple

import numba
import numpy as np

from cpubn.backends.gpu import target
from cpubn.backends.gpu.arrays import DeviceArray
from cpubn.backends.gpu.target import Kernel
from cpubn.backends.interface import Addresses, name_of

Arguments = tuple[Any, ...]
MOST_WORDS = 128


class _Entry(NamedTuple):
    function: int  # the driver's handle
    form: str  # of the packed arguments, which are all of 8 bytes


class _Packed(threading.local):
    """Room for a launch's arguments, which the driver has read when it returns."""

    def __init__(self) -> None:
        self.words = ctypes.create_string_buffer(8 * MOST_WORDS)
        first = ctypes.addressof(self.words)
        self.pointers = (ctypes.c_void_p * MOST_WORDS)(*range(first, first + 8 * MOST_WORDS, 8))


_entries: dict[Any, _Entry] = {}
_packed = _Packed()


def launch(kernel: Kernel, blocks: int, threads: int, x: DeviceArray, arguments: Arguments) -> None:
    """On the device and stream of x; returns before it has run. No blocks: of an empty array."""
    if not blocks:
        return
    if target.SIMULATED:
        taken = (target.argument(_flat(a)) if isinstance(a, DeviceArray) else a for a in arguments)
        kernel[blocks, threads](*taken)
        return
    words: list[Any] = []
    key = [kernel, x.device]
    for a in arguments:
        if isinstance(a, DeviceArray):
            key.append(a.dtype)
            words += a.words
        elif isinstance(a, tuple):
            words += a
        else:
            words.append(a)
    with target.on(x.device):
        entry = _entries.get(tuple(key)) or _enter(tuple(key), kernel, arguments)
        packed = _packed
        struct.pack_into(entry.form, packed.words, 0, *words)
        target.enter(entry.function, blocks, threads, x.stream, packed.pointers)


def _flat(a: DeviceArray) -> Any:
    """The memory of an array on the host, for a kernel that is simulated there."""
    _, _, count, _, address, _, _ = a.words
    described = {"shape": (count,), "typestr": _stored(a.dtype).str, "data": (address, False), "version": 3}
    return np.asarray(Addresses(described, a.addresses))


def _stored(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """As kernels take it: bfloat16, which Numba does not know, as its bits."""
    return np.dtype(np.uint16) if name_of(dtype) == "bfloat16" else dtype


def _enter(key: Arguments, kernel: Kernel, arguments: Arguments) -> _Entry:
    function = target.function_of(kernel, tuple(map(_type_of, arguments)))
    return _entries.setdefault(key, _Entry(function, "=" + "".join(map(_form_of, arguments))))


def _type_of(a: Any) -> Any:
    if isinstance(a, DeviceArray):
        return numba.types.Array(numba.from_dtype(_stored(a.dtype)), 1, "C")
    if isinstance(a, tuple):
        return numba.types.UniTuple(_type_of(a[0]), len(a))
    return numba.int64 if isinstance(a, (bool, int, np.integer)) else numba.float64


def _form_of(a: Any) -> str:
    """As struct has it; of an array Numba passes two pointers of its own, count, size, address, shape and stride."""
    if isinstance(a, DeviceArray):
        return "qqqqQqq"
    if isinstance(a, tuple):
        return _form_of(a[0]) * len(a)
    return "q" if isinstance(a, (bool, int, np.integer)) else "d"
