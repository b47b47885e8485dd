"""Arrays on a GPU as plans see them, without Numba: shape, strides and addresses, and what kernels take of them."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import numpy as np

from cpubn.typing import Array


class DeviceArray:
    """An array whose memory the host cannot read."""

    __slots__ = ("_words", "addresses", "device", "given", "home", "owner", "stream")

    def __init__(
        self, addresses: Array, owner: Any, stream: int, device: int, given: Any = None, home: int | None = None
    ) -> None:
        self.addresses: Array = addresses  # for its shape, strides, dtype and flags alone: reading it would crash
        self.owner: Any = owner  # of the memory
        self.given: Any = given  # the caller's array that this is all of
        self.stream: int = stream  # the CUDA stream's handle, 0 for the default one
        self.home: int = stream if home is None else home  # the stream that its owner works on
        self.device: int = device
        self._words: tuple[int, ...] | None = None

    shape: Any = property(attrgetter("addresses.shape"))
    strides: Any = property(attrgetter("addresses.strides"))
    dtype: Any = property(attrgetter("addresses.dtype"))
    itemsize: Any = property(attrgetter("addresses.itemsize"))
    ndim: Any = property(attrgetter("addresses.ndim"))
    flags: Any = property(attrgetter("addresses.flags"))
    size: Any = property(attrgetter("addresses.size"))
    nbytes: Any = property(attrgetter("addresses.nbytes"))

    def _view(self, addresses: Array) -> DeviceArray:
        return DeviceArray(addresses, self.owner, self.stream, self.device)

    def __getitem__(self, key: Any) -> DeviceArray:
        return self._view(self.addresses[(*key, ...) if isinstance(key, tuple) else (key, ...)])

    def transpose(self, axes: Any) -> DeviceArray:
        return self._view(self.addresses.transpose(axes))

    def reshape(self, shape: Any) -> DeviceArray:
        """A view; ValueError where there is none."""
        return self._view(np.reshape(self.addresses, shape, copy=False))

    def __reduce__(self) -> Any:
        raise TypeError("an array on a GPU must be copied to the host before it is pickled or copied, got one as it is")

    @property
    def where(self) -> tuple[int, ...]:
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


def is_on_gpu(a: Any) -> bool:
    """Whether it is; an array that cannot say so raises an error of its own."""
    if type(a) is np.ndarray or a is None:
        return False
    if isinstance(a, DeviceArray) or getattr(a, "__cuda_ndarray__", False) is True:  # the latter of numba.cuda
        return True
    return getattr(a, "__cuda_array_interface__", None) is not None
