# What a call's arrays are, asked of Python's objects: their memory, what they share of it, and new ones for results.

cimport numpy as cnp
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.planner cimport is_memmap, overlaps_itself, share_memory, type_of
from cpubn.backends.compiled.walks cimport *


cdef inline bint is_array(a) noexcept:
    """Whether `a` is an array of NumPy's own. Another subclass might run code of its own, whatever it is asked."""
    return type(a) is cnp.ndarray or is_memmap(a)


cdef inline void describe(cnp.ndarray a, Samples* to) noexcept:
    """`to` <- an array of at most RANK axes."""
    cdef cnp.npy_intp* shape = cnp.PyArray_DIMS(a)
    cdef cnp.npy_intp* strides = cnp.PyArray_STRIDES(a)
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(a), odd = 0
    cdef int k, shift = 0
    to.data, to.rank, to.type = <char*>cnp.PyArray_DATA(a), cnp.PyArray_NDIM(a), type_of(a)
    to.swapped, to.contiguous = cnp.PyArray_ISBYTESWAPPED(a), cnp.PyArray_IS_C_CONTIGUOUS(a)
    for k in range(to.rank):
        odd |= strides[k]
    if to.swapped or not cnp.PyArray_ISALIGNED(a) or odd & (size - 1):
        size = 1
    while 1 << shift < size:  # no division: five of them took longer than all else here
        shift += 1
    to.size = size
    for k in range(to.rank):
        to.shape[k], to.strides[k] = shape[k], strides[k] >> shift


cdef inline bint read_samples(a, Samples* to, bint floating) noexcept:
    """Whether `a` is an array of at most RANK axes, of a type that samples may have, or of a floating one."""
    if not is_array(a) or cnp.PyArray_NDIM(<cnp.ndarray>a) > RANK:
        return False
    describe(a, to)
    return to.type != OTHER and (not floating or to.type <= BFLOAT16)


cdef inline bint same_shape(const Samples* a, const Samples* b) noexcept nogil:
    cdef int k
    if a.rank != b.rank:
        return False
    for k in range(a.rank):
        if a.shape[k] != b.shape[k]:
            return False
    return True


cdef inline bint read_like(a, const Samples* x, Type type, Samples* to) noexcept:
    """Whether `a` is an array of x's shape and that type."""
    return read_samples(a, to, True) and to.type == type and same_shape(to, x)


cdef inline void move_axis(Samples* a, int first, int to) noexcept nogil:
    """Take an axis to another place, as np.moveaxis does."""
    cdef Py_ssize_t n = a.shape[first], stride = a.strides[first]
    cdef int step = 1 if to > first else -1
    a.contiguous = a.contiguous and first == to
    while first != to:
        a.shape[first], a.strides[first] = a.shape[first + step], a.strides[first + step]
        first += step
    a.shape[to], a.strides[to] = n, stride


cdef inline Py_ssize_t offset_of(cnp.ndarray a, Py_ssize_t at) noexcept:
    """Bytes from an array's first element to its element number `at`, counted through its axes."""
    cdef Py_ssize_t offset = 0
    cdef int k
    for k in range(cnp.PyArray_NDIM(a) - 1, -1, -1):
        offset += at % cnp.PyArray_DIMS(a)[k] * cnp.PyArray_STRIDES(a)[k]
        at //= cnp.PyArray_DIMS(a)[k]
    return offset


cdef inline uint64_t mixed_bits(cnp.ndarray a) noexcept:
    """Bits of an array at 32 places, mixed with where they stand and with its shape: most changes of it change them."""
    cdef const char* data = cnp.PyArray_BYTES(a)
    cdef Py_ssize_t size = cnp.PyArray_NBYTES(a), width = sizeof(uint64_t), last = size - width, k
    cdef uint64_t mixed = <uint64_t>data, bits = 0
    for k in range(cnp.PyArray_NDIM(a)):
        mixed = mixed * 31 + <uint64_t>cnp.PyArray_DIMS(a)[k]
    if size == 0:
        return mixed
    if cnp.PyArray_IS_C_CONTIGUOUS(a) and last >= 0:  # without a division
        for k in range(32):
            memcpy(&bits, data + last * k // 31, sizeof(uint64_t))
            mixed += bits * (<uint64_t>0x9E3779B97F4A7C15 + 2 * <uint64_t>k)
        return mixed
    width, last = min(width, <Py_ssize_t>cnp.PyArray_ITEMSIZE(a)), cnp.PyArray_SIZE(a) - 1
    for k in range(32):
        memcpy(&bits, data + offset_of(a, last * k // 31), width)
        mixed += bits * (<uint64_t>0x9E3779B97F4A7C15 + 2 * <uint64_t>k)
    return mixed


cdef inline object witness_of(tuple arrays):
    """A number by which it shows that one of some arrays was changed; of what is none, nothing."""
    cdef uint64_t mixed = 0
    for a in arrays:
        if isinstance(a, cnp.ndarray):
            mixed = mixed * 31 + mixed_bits(a)
    return mixed


cdef inline void extend(cnp.ndarray a, char** low, char** high) noexcept:
    """The memory from an array's first byte to behind its last one."""
    cdef int k
    cdef Py_ssize_t reach
    low[0] = <char*>cnp.PyArray_DATA(a)
    high[0] = low[0] + cnp.PyArray_ITEMSIZE(a)
    for k in range(cnp.PyArray_NDIM(a)):
        reach = (cnp.PyArray_DIMS(a)[k] - 1) * cnp.PyArray_STRIDES(a)[k]
        if reach < 0:
            low[0] += reach
        else:
            high[0] += reach


cdef inline bint overlap(cnp.ndarray a, cnp.ndarray b):
    """Whether two arrays share memory."""
    cdef char* a_low
    cdef char* a_high
    cdef char* b_low
    cdef char* b_high
    if cnp.PyArray_SIZE(a) == 0 or cnp.PyArray_SIZE(b) == 0:
        return False
    extend(a, &a_low, &a_high)
    extend(b, &b_low, &b_high)
    if a_low >= b_high or b_low >= a_high:
        return False
    if cnp.PyArray_ISONESEGMENT(a) and cnp.PyArray_ISONESEGMENT(b):
        return True
    return share_memory(a, b)


cdef inline bint apart(cnp.ndarray a, tuple others):
    """Whether `a` shares no memory with others, which are arrays or None."""
    for other in others:
        if isinstance(other, cnp.ndarray) and overlap(a, other):
            return False
    return True


cdef inline bint is_same(cnp.ndarray a, cnp.ndarray b):
    cdef int k
    if a is b:
        return True
    if (
        cnp.PyArray_DATA(a) != cnp.PyArray_DATA(b) or not cnp.PyArray_SAMESHAPE(a, b)
        or not cnp.PyArray_EquivArrTypes(a, b)
    ):
        return False
    for k in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_STRIDES(a)[k] != cnp.PyArray_STRIDES(b)[k]:
            return False
    return True


cdef inline bint is_writable(a):
    """Whether an array can be written to, each element of which has memory of its own."""
    return cnp.PyArray_ISWRITEABLE(<cnp.ndarray>a) and (
        cnp.PyArray_ISONESEGMENT(<cnp.ndarray>a) or not overlaps_itself(a)
    )


cdef inline bint is_target(out, tuple instead_of, tuple others):
    """Whether an array can be written to: it may be one of some, or overlap none of them, and nothing else."""
    if not is_writable(out) or not apart(out, others):
        return False
    for a in instead_of:
        if a is not None and overlap(out, a) and not is_same(out, a):
            return False
    return True


cdef inline cnp.ndarray new_turned(const Samples* like, Samples* to, int number):
    """A new array of that shape, contiguous; `to` <- it."""
    cdef cnp.npy_intp[RANK] shape
    cdef int k
    for k in range(like.rank):
        shape[k] = like.shape[k]
    made = cnp.PyArray_EMPTY(like.rank, shape, number, 0)
    describe(made, to)
    return made


cdef inline cnp.ndarray new_array(Call* call, int role, int number):
    """A new array of x's shape and order of memory, which takes its place among the arrays."""
    cdef cnp.npy_intp[RANK] shape
    cdef cnp.npy_intp[RANK] back
    cdef cnp.PyArray_Dims order
    cdef const Samples* x = &call.arrays[OF_X]
    cdef int k, axis
    cdef bint plain = True
    for k in range(x.rank):
        axis = k if x.contiguous else call.walk.axes[k]
        shape[k], back[axis] = x.shape[axis], k
        plain = plain and axis == k
    made = cnp.PyArray_EMPTY(x.rank, shape, number, 0)
    if not plain:
        order.ptr, order.len = back, x.rank
        made = cnp.PyArray_Transpose(made, &order)
    describe(made, &call.arrays[role])
    return made
