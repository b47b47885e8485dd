"""The table of cpubn.h by ctypes: what a program without a compiler sees of it."""

import ctypes
from ctypes import POINTER, byref, c_char_p, c_double, c_int, c_size_t, c_ssize_t, c_void_p, sizeof

import numpy as np

TYPES = {"float32": 1, "float64": 2, "float16": 3, "bfloat16": 4, "uint8": 5, "int8": 6, "uint16": 7, "int16": 8}
STATUSES = (
    *("OK", "BAD_SIZE", "MISSING", "BAD_TYPE", "BAD_STRIDES", "BAD_NUMBER", "BAD_ACTIVATION", "BAD_VARIANCE"),
    *("FEW_VALUES", "NO_MEMORY", "OVERLAP"),
)
ARRAYS = "x", "y", "residual", "dy", "dx", "g", "output"
INPUTS = "mean", "var", "mean_low", "weight", "bias"
VECTORS = *INPUTS, "running_mean", "running_var", "stats", "sums", "dweight", "dbias", "affine"


class CArray(ctypes.Structure):
    _fields_ = (("data", c_void_p), ("outer", c_ssize_t), ("channel", c_ssize_t), ("inner", c_ssize_t), ("type", c_int))


class CAxes(ctypes.Structure):
    _fields_ = (("rank", c_int), ("channel", c_int), ("shape", c_ssize_t * 5), ("strides", c_ssize_t * 5 * 7))


class CCall(ctypes.Structure):
    _fields_ = (
        *(("size", c_size_t), ("outer", c_ssize_t), ("channels", c_ssize_t), ("inner", c_ssize_t)),
        *(("threads", c_int), ("activation", c_int), ("low", c_double), ("high", c_double)),
        *(("eps", c_double), ("momentum", c_double), ("inference", c_int)),
        *((name, CArray) for name in ARRAYS),
        *((name, c_void_p) for name in VECTORS),
        ("axes", POINTER(CAxes)),
    )


FUNCTIONS = "moments", "normalize", "train_forward", "gradient_sums", "train_backward", "freeze", "frozen"
PASS = ctypes.CFUNCTYPE(c_int, POINTER(CCall))


class CTable(ctypes.Structure):
    _fields_ = (
        ("version", c_int),
        *((name, PASS) for name in FUNCTIONS),
        ("message", ctypes.CFUNCTYPE(c_char_p, c_int)),
        ("order", ctypes.CFUNCTYPE(c_int, POINTER(CCall), POINTER(c_int))),
    )


def table():
    import cpubn.capi  # here, because it is absent without compiled kernels

    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = c_void_p, (ctypes.py_object, c_char_p)
    return CTable.from_address(pointer_of(cpubn.capi.table, b"cpubn.capi.table"))


def array(a):
    """Of an array (outer, channel, inner), or of one whose strides stand elsewhere."""
    return CArray(a.ctypes.data, *(a.strides if a.ndim == 3 else ()), type=TYPES[a.dtype.name])


def request(shape, channel=None, **given):
    """A call over arrays (outer, channel, inner), or of any axes where there is a channel's, and over vectors.

    The caller keeps them alive.
    """
    call = CCall(sizeof(CCall), *(shape if channel is None else ()))
    if channel is not None:
        axes = CAxes(len(shape), channel, (c_ssize_t * 5)(*shape))
        for role, name in enumerate(ARRAYS):
            if given.get(name) is not None:
                axes.strides[role][: len(shape)] = given[name].strides
        call.axes = ctypes.pointer(axes)
    for name, value in given.items():
        if name in VECTORS:
            assert value is None or (value.dtype == np.float64 and value.flags.c_contiguous)
            value = None if value is None else value.ctypes.data
        elif name in ARRAYS:
            value = CArray() if value is None else array(value)
        setattr(call, name, value)
    return call


def do(name, shape, channel=None, **given):
    """The status of a function, in words of cpubn.h."""
    return STATUSES[getattr(table(), name)(byref(request(shape, channel, **given)))]


def order(x, channel):
    """The axes of an array from the outermost in memory to the innermost."""
    axes = (c_int * x.ndim)()
    assert STATUSES[table().order(byref(request(x.shape, channel, x=x)), axes)] == "OK"
    return tuple(axes)
