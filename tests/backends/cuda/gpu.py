"""Arrays on a GPU, for the tests of this folder, which are skipped where there is none.

They are the same under Numba's simulator (NUMBA_ENABLE_CUDASIM=1), where a thread of the GPU is one of Python's: blocks
are shrunken there, so that tiny arrays reach the edges of the grid. This is no conftest.py: two would hide each other.
"""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from cpubn.backends import choice

absence = choice.absence("cuda")
if absence is not None:
    pytest.skip(f"{absence}; test_cuda.py runs this folder under Numba's simulator", allow_module_level=True)

import ml_dtypes
import numba
from numba import cuda

from cpubn.backends.gpu import target, tiles

SIMULATED = target.SIMULATED
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# NumPy's scalars, with which the simulator computes, warn where a GPU is silent.
SILENT = pytest.mark.filterwarnings("ignore::RuntimeWarning")

numba.config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
if SIMULATED:
    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    def shared_array(self, shape, dtype):
        """Made by the first of a block's threads: the simulator's own gives two of them one each now and then."""
        caller = sys._getframe(1)
        return self._allocations.setdefault((caller.f_code, caller.f_lineno), np.empty(shape, dtype))

    FakeCUDAShared.array = shared_array
    vars(tiles).update(THREADS=8, MERGERS=4, SAMPLES=4, BLOCKS=7)
    sys.setswitchinterval(1e-5)


class Shown:
    """An array as CuPy and torch show theirs: nothing but the interface, with the strides of a view of the host."""

    def __init__(self, view, by=0, **changes):
        low, high = np.lib.array_utils.byte_bounds(view)
        flat = np.empty(by + high - low, np.uint8)
        flat[by:] = np.lib.stride_tricks.as_strided(lowest(view), (high - low,), (1,))
        self.memory = cuda.to_device(flat)
        self.view, self.low = view, low - by
        self.__cuda_array_interface__ = {
            "shape": view.shape,
            "strides": view.strides,
            "typestr": view.dtype.str,
            "data": (target.interface_of(self.memory)["data"][0] + view.ctypes.data - self.low, False),
            "version": 3,
            **changes,
        }

    dtype = property(lambda self: self.view.dtype)

    def copy_to_host(self):
        flat = self.memory.copy_to_host()
        return np.ndarray(self.view.shape, self.view.dtype, flat, self.view.ctypes.data - self.low, self.view.strides)


def lowest(view):
    """The bytes of an array from its lowest address on."""
    first = view[tuple(slice(None, None, -1 if step < 0 else 1) for step in view.strides)]
    return np.lib.stride_tricks.as_strided(first, (1,), (view.itemsize,)).view(np.uint8)


def put(a):
    """On the GPU as an array of numba.cuda, which has no bfloat16, or several; None stays."""
    if isinstance(a, (tuple, list)):
        return [put(each) for each in a]
    if a is None:
        return None
    return Shown(a) if a.dtype == BFLOAT16 else cuda.to_device(np.ascontiguousarray(a))


def get(a):
    """A copy on the host, or several."""
    if isinstance(a, (tuple, list)):
        return [get(each) for each in a]
    if a.dtype.itemsize == 2 and a.dtype.kind == "V" and not (SIMULATED or isinstance(a, Shown)):
        bits = cuda.from_cuda_array_interface({**a.__cuda_array_interface__, "typestr": "<u2"}, owner=a)
        return bits.copy_to_host().view(BFLOAT16)
    return a.copy_to_host()


def moments_on_host(m):
    return SimpleNamespace(count=m.count, mean=get(m.mean), m2=get(m.m2), var=lambda ddof=0: get(m.var(ddof)))


def is_ours(a):
    """Whether it is an array of numba.cuda, whatever it was computed from."""
    return isinstance(a, target.DeviceNDArray)


def new_stream():
    """Its handle; the simulator has none, and takes any."""
    _streams.append(7 + len(_streams) if SIMULATED else cuda.stream())
    return int(_streams[-1])


_streams = []


def stream_of(a):
    return target.interface_of(a)["stream"]


def chunks_of(shape, layout="NCHW"):
    """In how many chunks the samples of a channel are summed."""
    n, channels, *inner = shape
    inner = int(np.prod(inner))
    walk = (n, channels, inner) if layout == "NCHW" else (n * inner, channels, 1)
    return tiles.tile_of(walk, sums=True).chunks
