"""Arrays of the same values with every kind of strides: what test_strides and test_out walk over."""

from itertools import permutations

import cases
import numpy as np

SHAPE = (4, 6, 5, 8)
DTYPE = np.dtype(np.float32)


def _values(shape=SHAPE, dtype=DTYPE):
    return (10 + cases.rng_of("views", shape).standard_normal(shape)).astype(dtype)


def in_order(values, order):
    """A copy whose memory runs through the axes in `order`, outermost first."""
    return values.transpose(order).copy().transpose(np.argsort(order))


def stepped(values, *steps):
    """A view with these steps (negative ones too), of a larger array that holds NaN, or 99, everywhere else."""
    blank = 99 if values.dtype.kind in "iu" else np.nan
    memory = np.full([n * abs(s) for n, s in zip(values.shape, steps, strict=True)], blank, values.dtype)
    view = memory[tuple(slice(None, None, s) for s in steps)]
    view[...] = values
    return view


def misaligned(values, by=1):
    """A copy that starts `by` bytes past a multiple of 64."""
    memory = np.empty(values.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + by
    copy = memory[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def swapped(values):
    return values.astype(values.dtype.newbyteorder())


def read_only(values):
    copy = values.copy()
    copy.flags.writeable = False
    return copy


def backwards(vector):
    return stepped(vector, -2)


def windows(dtype=DTYPE):
    """Overlapping windows: strides smaller than their extents."""
    return np.lib.stride_tricks.sliding_window_view(_values((4, 6, 12), dtype), 8, axis=2)


STRIDES = {
    "contiguous": lambda v: v,
    "channels last": lambda v: in_order(v, (0, 2, 3, 1)),
    "channels first": lambda v: in_order(v, (1, 0, 2, 3)),
    "Fortran order": np.asfortranarray,
    "spatial axes swapped": lambda v: in_order(v, (0, 1, 3, 2)),
    "every second sample": lambda v: stepped(v, 2, 1, 1, 1),
    "every third channel": lambda v: stepped(v, 1, 3, 1, 1),
    "every second row": lambda v: stepped(v, 1, 1, 2, 1),
    "every second column": lambda v: stepped(v, 1, 1, 1, 2),
    "steps on every axis": lambda v: stepped(v, 2, 3, 2, 3),
    "samples reversed": lambda v: stepped(v, -1, 1, 1, 1),
    "channels reversed": lambda v: stepped(v, 1, -1, 1, 1),
    "rows reversed": lambda v: stepped(v, 1, 1, -1, 1),
    "columns reversed": lambda v: stepped(v, 1, 1, 1, -1),
    "everything reversed": lambda v: stepped(v, -1, -2, -1, -2),
    "channels last, reversed": lambda v: stepped(in_order(v, (0, 2, 3, 1)), 1, -1, -1, 1),
    "misaligned by a byte": misaligned,
    "misaligned by an element": lambda v: misaligned(v, v.itemsize),
    "misaligned channels last": lambda v: misaligned(v.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "byte-swapped": swapped,
    "byte-swapped channels last": lambda v: swapped(in_order(v, (0, 2, 3, 1))),
    "read-only": read_only,
}
# What an output may be.
WRITABLE = [name for name in STRIDES if name != "read-only"]
BROADCAST = {
    "over samples": lambda v: np.broadcast_to(v[:1], SHAPE),
    "over channels": lambda v: np.broadcast_to(v[:, :1], SHAPE),
    "over rows": lambda v: np.broadcast_to(v[:, :, :1], SHAPE),
    "over columns": lambda v: np.broadcast_to(v[..., :1], SHAPE),
    "over samples and columns": lambda v: np.broadcast_to(v[:1, :, :, :1], SHAPE),
    "of one value": lambda v: np.broadcast_to(v[0, 0, 0, 0], SHAPE),
    "of one value a channel": lambda v: np.broadcast_to(v[:1, :, :1, :1], SHAPE),
    "windows": lambda v: windows(v.dtype),
}


def keeps_order(got, x):
    """Whether got is dense and its axes lie in memory in the order of x's, where x says so."""
    axes = [axis for axis in range(x.ndim) if x.shape[axis] > 1 and x.strides[axis]]
    dense = got.transpose(sorted(range(got.ndim), key=lambda axis: -got.strides[axis])).flags.c_contiguous
    outer_and_inner = ((a, b) for a, b in permutations(axes, 2) if abs(x.strides[a]) > abs(x.strides[b]))
    return dense and all(got.strides[a] > got.strides[b] for a, b in outer_and_inner)


def make(name, dtype=DTYPE):
    return (STRIDES | BROADCAST)[name](_values(dtype=dtype))
