"""Arrays on a GPU, any with `__cuda_array_interface__`, and host.py's functions for them; Numba comes with the first.

A DeviceArray knows shape, strides and addresses, so that plans are made of it, and hands kernels what they take.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import cache, partial
from importlib import import_module
from operator import attrgetter
from typing import Any, Self

import numpy as np

from cpubn.backends.prologue import bytes_of
from cpubn.typing import Addresses, Array

FLOAT64 = np.dtype(np.float64)
MOST_WORKSPACES = 256  # of at most 2 MB, most of them some KB
_workspaces = threading.local()


class DeviceArray:
    """An array whose memory the host cannot read."""

    __slots__ = ("_words", "addresses", "device", "given", "home", "owner", "stream")

    def __init__(
        self, addresses: Array, owner: Any, stream: int, device: int, given: Any = None, home: int | None = None
    ) -> None:
        self.addresses = addresses  # for its shape, strides, dtype and flags alone: reading it would crash
        self.owner = owner  # of the memory
        self.given = given  # the caller's array that this is all of
        self.stream = stream  # the CUDA stream's handle, 0 for the default one
        self.home = stream if home is None else home  # the stream that its owner works on
        self.device = device
        self._words: tuple[int, ...] | None = None

    @classmethod
    def of(cls, a: Any, interface: dict[str, Any]) -> Self:
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
        return cls(addresses, a, _target().stream_of(a, interface), _target().device_of(address), a)

    shape, strides = property(attrgetter("addresses.shape")), property(attrgetter("addresses.strides"))
    dtype, itemsize = property(attrgetter("addresses.dtype")), property(attrgetter("addresses.itemsize"))
    ndim, flags = property(attrgetter("addresses.ndim")), property(attrgetter("addresses.flags"))
    size, nbytes = property(attrgetter("addresses.size")), property(attrgetter("addresses.nbytes"))

    def _view(self, addresses: Array) -> DeviceArray:
        return DeviceArray(addresses, self.owner, self.stream, self.device)

    def __getitem__(self, key: Any) -> DeviceArray:
        return self._view(self.addresses[(*key, ...) if isinstance(key, tuple) else (key, ...)])

    def transpose(self, axes: Any) -> DeviceArray:
        return self._view(self.addresses.transpose(axes))

    def reshape(self, shape: Any) -> DeviceArray:
        """A view if there is one, else a copy."""
        try:
            return self._view(np.reshape(self.addresses, shape, copy=False))
        except ValueError:
            return copy(self).reshape(shape)

    def astype(self, dtype: np.dtype[Any]) -> DeviceArray:
        made = empty(self, self.shape, dtype)
        assign(made, self)
        return made

    def on_stream_of(self, x: DeviceArray) -> DeviceArray:
        """For work on x's stream, which then waits for what makes this."""
        if self.stream == x.stream:
            return self
        _target().wait(x.stream, self.stream, self.device)
        return DeviceArray(self.addresses, self.owner, x.stream, self.device, self.given, self.home)

    def hand_back(self) -> None:
        """What is launched on its owner's stream from now on runs after what was on this one."""
        if self.home != self.stream:
            _target().wait(self.home, self.stream, self.device)

    def __reduce__(self) -> Any:
        raise TypeError("an array on a GPU must be copied to the host before it is pickled or copied, got one as it is")

    @property
    def place(self) -> tuple[int, ...]:
        """The first element in the flat memory, and the step along each axis, in elements."""
        size, before = self.addresses.itemsize, 0
        for n, stride in zip(self.addresses.shape, self.addresses.strides, strict=True):
            if stride < 0:
                before -= (n - 1) * stride
        return (before // size, *(stride // size for stride in self.addresses.strides))

    @property
    def words(self) -> tuple[int, ...]:
        """The memory from the lowest to the highest element as a kernel of Numba takes a contiguous array."""
        if self._words is not None:
            return self._words
        size, low, high = self.addresses.itemsize, 0, 0
        for n, stride in zip(self.addresses.shape, self.addresses.strides, strict=True):
            if stride < 0:
                low += (n - 1) * stride
            else:
                high += (n - 1) * stride
        count = (high - low) // size + 1
        address = self.addresses.__array_interface__["data"][0] + low
        self._words = 0, 0, count, size, address, count, size
        return self._words


def array_of(a: Any) -> DeviceArray | None:
    """What `a` is on a GPU; None for anything that lives on the host.

    Raises TypeError or ValueError, or what the array raises, where it is on a GPU and cannot be taken as it is.
    """
    if type(a) is np.ndarray or a is None:
        return None
    if isinstance(a, DeviceArray):
        return a
    if getattr(a, "__cuda_ndarray__", False) is True:  # of numba.cuda, also simulated, where it has no interface
        interface = _target().interface_of(a)
    else:
        interface = getattr(a, "__cuda_array_interface__", None)
    return None if interface is None else DeviceArray.of(a, interface)


def empty(x: DeviceArray, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
    """A new array on x's device and stream."""
    owner, address = _memory().take(max(1, math.prod(shape) * dtype.itemsize), x.device, x.stream)
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


def room(x: DeviceArray, shape: tuple[int, ...], *, kept: bool) -> DeviceArray:
    """For what a kernel finds out about x; zeros where x is empty, and no kernel runs."""
    made = empty(x, shape, FLOAT64) if kept else workspace(x, shape, "room")
    if not x.size:
        fill(made, 0.0)
    return made


def constant(x: DeviceArray, count: int, value: float) -> DeviceArray:
    return _constant(x.device, count, value)


@cache
def _constant(device: int, count: int, value: float) -> DeviceArray:
    return upload(np.full(count, value), device)


def to_device(a: Any, device: int | None = None) -> Any:
    """An array of numba.cuda on that device, or the current one; of what is on a GPU already, itself."""
    return a if a is None or array_of(a) is not None else upload(np.asarray(a), device).owner


def to_host(a: Any) -> Any:
    """A NumPy array; of what is on the host already, itself. Waits for what makes it."""
    on_gpu = array_of(a)
    if on_gpu is None:
        return a
    found = require(on_gpu, on_gpu.dtype)
    return _target().to_host(found.addresses, found.owner, found.stream, found.device)


def upload(a: Array, device: int | None) -> DeviceArray:
    """A copy of an array of the host on that device, or the current one; complete on return."""
    owner = _target().to_device(a, device)
    return DeviceArray.of(owner, _target().interface_of(owner))


def copy(a: DeviceArray) -> DeviceArray:
    return a.astype(a.dtype)


def assign(target: DeviceArray, source: DeviceArray) -> None:
    """target[...] = source, of the same shape and perhaps another type."""
    if target.size:
        _kernels().copy(source, target)


def reordered(bits: DeviceArray, shape: tuple[int, ...], steps: tuple[int, ...]) -> DeviceArray:
    """Signs in the order of the axes of that shape, along which they lie so many bits apart."""
    made = empty(bits, (bytes_of(math.prod(shape)),), bits.dtype)
    _kernels().reorder(bits, shape, steps, made)
    return made


def result(a: DeviceArray) -> Any:
    """As the caller gets it: the caller's own, or an array of numba.cuda."""
    a.hand_back()
    return a.given if a.given is not None else _target().array_of(a.addresses, a.owner, a.stream, a.device)


def require(a: DeviceArray, dtype: np.dtype[Any]) -> DeviceArray:
    return a if a.flags.c_contiguous and a.dtype == dtype else a.astype(dtype)


def vector(v: DeviceArray) -> DeviceArray:
    return require(v, v.dtype if v.dtype.type in (np.float32, np.float64) else FLOAT64)


def affine(
    dtype: np.dtype[Any], mean: DeviceArray, var: DeviceArray, weight: DeviceArray, bias: DeviceArray, eps: float
) -> DeviceArray:
    made = workspace(mean, (3, mean.size), "affine")
    low = constant(mean, mean.size, 0.0)
    _each_channel(_channels().affine(dtype.type), mean, mean, low, var, weight, bias, eps, made)
    return made


def weight_gradient(sums: DeviceArray, var: DeviceArray, eps: float) -> DeviceArray:
    made = empty(sums, var.shape, FLOAT64)
    _each_channel(_channels().weight_gradient, sums, sums, var, eps, made)
    return made


def update_running(
    running_mean: DeviceArray, running_var: DeviceArray, tracked: Any, stats: DeviceArray, count: int, momentum: float
) -> None:
    _each_channel(_channels().update_running, stats, running_mean, running_var, stats, float(count), momentum)
    if tracked is not None:
        tracked += 1
    running_mean.hand_back()
    running_var.hand_back()


def variance(m2: DeviceArray, freedom: float, *, root: bool = False) -> DeviceArray:
    made = empty(m2, m2.shape, m2.dtype)
    _each_channel(_channels().deviation if root else _channels().variance, m2, m2, freedom, made)
    return made


def merge(
    count: int, stats: tuple[DeviceArray, ...], other_count: int, other: tuple[DeviceArray, ...]
) -> tuple[DeviceArray, ...]:
    made = tuple(empty(v, v.shape, v.dtype) for v in stats)
    other = tuple(v.on_stream_of(stats[0]) for v in other)
    _each_channel(_channels().merge, stats[0], float(count), *stats, float(other_count), *other, *made)
    return made


def accumulate(totals: Sequence[DeviceArray], new: Sequence[DeviceArray]) -> None:
    totals = [total.on_stream_of(new[0]) for total in totals]
    _each_channel(_channels().accumulate, new[0], *totals, *new)
    for total in totals:
        total.hand_back()


def write(target: DeviceArray, values: Array) -> None:
    """target[...] = values, which are on the host."""
    assign(target, upload(values, target.device))


def fill(target: DeviceArray, value: float) -> None:
    """Of a contiguous array."""
    _each_channel(_channels().fill, target.reshape(-1), target, float(value))


def _each_channel(kernel: Any, v: DeviceArray, *arguments: Any) -> None:
    """On v's stream, for as many channels as its last axis has."""
    if v.size:
        channels = v.shape[-1]
        _kernels().launch(kernel, _kernels().in_turn(channels), v, *arguments, channels)


@cache
def _module(name: str) -> Any:
    return import_module(f"cpubn.backends.gpu.{name}")


_target, _memory = partial(_module, "target"), partial(_module, "memory")
_channels, _kernels = partial(_module, "channels"), partial(_module, "passes")
