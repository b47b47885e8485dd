"""Arrays on a GPU that come from outside, and memory for new ones.

Small blocks are used again by their stream: giving them back to CUDA would wait for the GPU. Work on a stream runs in
turn, so that what is launched after a block was let go of cannot disturb what was before.
"""

import math
import threading
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from cpubn.backends.gpu import target
from cpubn.backends.gpu.arrays import DeviceArray
from cpubn.backends.interface import Addresses
from cpubn.typing import Array

FLOAT64 = np.dtype(np.float64)

# Vectors of some thousand channels. Larger results are few, and what is kept of them would be missed elsewhere.
SMALL = 1 << 16
LEAST = 256

# Blocks that there may be before one that is let go of is given back: some for each stream.
MOST = 4096

MOST_WORKSPACES = 256  # of at most 2 MB, most of them some KB

_unused: dict[tuple[int, int, int], list[int]] = {}
# By address. Not in the block: what dies with it in a cycle of references is freed before the block knows.
_memory: dict[int, Any] = {}
_workspaces = threading.local()


class Block:
    """Who lets go of it hands it to the next one on the same stream."""

    __slots__ = ("address", "key")

    def __init__(self, size: int, device: int, stream: int) -> None:
        self.key: tuple[int, int, int] = size, device, stream
        self.address: int
        try:
            self.address = _unused.setdefault(self.key, []).pop()
        except IndexError:
            memory, self.address = target.new(size, device)
            _memory[self.address] = memory

    @property
    def memory(self) -> Any:
        return _memory[self.address]

    def __del__(
        self, memory: Any = _memory, unused: Any = _unused, most: int = MOST
    ) -> None:  # at exit globals are gone
        if not hasattr(self, "address"):  # there was no memory left
            return
        if len(memory) <= most:
            unused[self.key].append(self.address)
        else:
            del memory[self.address]


def take(size: int, device: int, stream: int) -> tuple[Any, int]:
    """The owner of at least so many bytes, and their address."""
    if size > SMALL:
        return target.new(size, device)
    block = Block(max(LEAST, 1 << (size - 1).bit_length()), device, stream)
    return block, block.address


def array_of(a: Any) -> DeviceArray:
    """What `a`, which is on a GPU, is there.

    Raises TypeError or ValueError, or what the array raises, where it cannot be taken as it is.
    """
    if isinstance(a, DeviceArray):
        return a
    # Of numba.cuda, also simulated, where it has no interface.
    numbas = getattr(a, "__cuda_ndarray__", False) is True
    return _described(a, target.interface_of(a) if numbas else a.__cuda_array_interface__)


def _described(a: Any, interface: dict[str, Any]) -> DeviceArray:
    """Raises ValueError and TypeError for what no kernel could take."""
    described: Any = {key: interface.get(key) for key in ("shape", "strides", "typestr", "data")}
    address = (described["data"] or (0,))[0]
    if 0 in (described["shape"] or ()):  # has no address, which NumPy 2.1 asks for
        addresses = np.empty(described["shape"], described["typestr"])
    elif not address or interface.get("mask") is not None:
        raise TypeError("its __cuda_array_interface__ must have an address and no mask; pass another array")
    else:
        addresses = np.asarray(Addresses({**described, "version": 3}, a))
    if addresses.dtype.str == "|V2":  # torch's and CuPy's bfloat16
        addresses = addresses.view(import_module("ml_dtypes").bfloat16)
    if not (addresses.flags.aligned and addresses.dtype.isnative):
        raise ValueError("its elements must be aligned and in the byte order of the device; copy it")
    return DeviceArray(addresses, a, target.stream_of(a, interface), target.device_of(address), a)


def empty(x: DeviceArray, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
    """A new array on x's device and stream."""
    owner, address = take(max(1, math.prod(shape) * dtype.itemsize), x.device, x.stream)
    described = {"shape": shape, "typestr": dtype.str, "data": (address, False), "version": 3}
    addresses = np.asarray(Addresses(described, owner)).view(dtype)
    return DeviceArray(addresses, owner, x.stream, x.device)


def workspace(x: DeviceArray, shape: tuple[int, ...], name: str) -> DeviceArray:
    """Float64 memory that the next call on x's stream will use again; every thread of the host has its own."""
    key = x.device, x.stream, name, shape
    kept: dict[Any, DeviceArray] = _workspaces.__dict__
    if key not in kept:
        if len(kept) == MOST_WORKSPACES:
            kept.clear()
        kept[key] = empty(x, shape, FLOAT64)
    return kept[key]


def constant(x: DeviceArray, count: int, value: float) -> DeviceArray:
    return _constant(x.device, count, value)


@cache
def _constant(device: int, count: int, value: float) -> DeviceArray:
    return upload(np.full(count, value), device)


def upload(a: Array, device: int | None) -> DeviceArray:
    """A copy of an array of the host on that device, or the current one; complete on return."""
    return array_of(target.to_device(a, device))
