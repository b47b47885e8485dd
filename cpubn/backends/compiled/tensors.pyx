"""Tensors of other libraries as NumPy's arrays over the same memory, by the table of functions that their type has.

That is DLPack's exchange API (dlpack.h, since 1.2), which torch has. Of one tensor it takes a quarter of the time of its
numpy(), and a twentieth of np.from_dlpack.
"""

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from numpy import dtype as dtype_of

from cpubn.backends.interface import bfloat16

cnp.import_array()

cdef enum:
    CPU = 1  # kDLCPU
    INT = 0
    UINT = 1
    FLOAT = 2
    BFLOAT = 4
    RANK = 8  # of what is read here; calls take 5 at most, and say so

cdef struct Tensor:  # DLTensor
    void* data
    int32_t device_type, device_id
    int32_t ndim
    uint8_t code, bits
    uint16_t lanes
    int64_t* shape
    int64_t* strides
    uint64_t byte_offset

ctypedef int (*Fill)(object a, Tensor* to) except -1

cdef struct Table:  # DLPackExchangeAPI
    uint32_t major, minor
    void* older
    void* allocate
    void* export_owned
    void* import_owned
    Fill fill
    void* stream

cdef dict TABLES = {}  # types that were found to have one, and its address
cdef tuple KINDS = tuple([{16: dtype_of(f"{k}2"), 32: dtype_of(f"{k}4"), 64: dtype_of(f"{k}8")} for k in "iuf"])
KINDS[INT][8], KINDS[UINT][8] = dtype_of("i1"), dtype_of("u1")


cdef const Table* table_of(type kind):
    """NULL where a type has no such table, or one of another major version."""
    known = TABLES.get(kind)
    if known is not None:
        return <const Table*><size_t>known
    capsule = getattr(kind, "__dlpack_c_exchange_api__", None)
    if not PyCapsule_IsValid(capsule, "dlpack_exchange_api"):
        return NULL
    cdef const Table* table = <const Table*>PyCapsule_GetPointer(capsule, "dlpack_exchange_api")
    if table.major != 1:
        return NULL
    TABLES[kind] = <size_t>table
    return table


def borrowed(a, bint requires_grad=False):
    """A NumPy array over a tensor's memory, of any strides, for the time of a call; anything else as it is.

    The tensor lives as long as the array, but its memory may be another one once it was resized. One that requires a
    gradient is taken only by those who see to that.
    """
    cdef const Table* table
    if a is None or isinstance(a, cnp.ndarray):
        return a
    table = table_of(type(a))
    if table == NULL or table.fill == NULL:
        return a
    try:
        if (not requires_grad and a.requires_grad) or a.is_neg():
            return a
        made = array_of(table, a)
    except Exception:  # no tensor of torch's, or one without memory, or without a type of DLPack's
        return a  # who asks for it otherwise is told so
    return a if made is None else made


cdef cnp.ndarray array_of(const Table* table, a):
    cdef Tensor t
    cdef cnp.npy_intp[RANK] shape
    cdef cnp.npy_intp[RANK] strides
    cdef cnp.dtype dtype
    cdef cnp.ndarray made
    cdef Py_ssize_t size = 1
    cdef int k
    table.fill(a, &t)
    if t.device_type != CPU or t.lanes != 1 or t.ndim > RANK or (t.ndim and t.strides == NULL):
        return None
    dtype = bfloat16() if t.code == BFLOAT else KINDS[t.code].get(t.bits) if t.code <= FLOAT else None
    if dtype is None:
        return None
    for k in range(t.ndim):
        shape[k], strides[k] = t.shape[k], t.strides[k] * (t.bits // 8)
        size *= shape[k]
    if t.data == NULL and size:  # of a tensor that only says what one would be
        return None
    made = cnp.PyArray_New(
        cnp.ndarray, t.ndim, shape, dtype.type_num, strides, <char*>t.data + t.byte_offset, 0, cnp.NPY_ARRAY_WRITEABLE, None
    )
    cnp.set_array_base(made, a)
    return made
