# Vectors of channels, in any form that NumPy gives them, as contiguous ones of float64, and back.

cimport numpy as cnp
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from cpubn.backends.compiled.arrays cimport *
from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.machine cimport cpubn_calm, cpubn_restore


cdef inline cnp.ndarray new_vectors(int count, Py_ssize_t n):
    cdef cnp.npy_intp[2] shape
    shape[0], shape[1] = count, n
    return cnp.PyArray_EMPTY(2, shape, cnp.NPY_FLOAT64, 0)


cdef inline bint is_vector(v, Py_ssize_t n) noexcept:
    return is_array(v) and cnp.PyArray_NDIM(<cnp.ndarray>v) == 1 and cnp.PyArray_SIZE(v) == n


cdef inline bint is_plain(cnp.ndarray v) noexcept:
    """Of float32 or float64, contiguous, aligned and native."""
    cdef int number = cnp.PyArray_TYPE(v)
    return (number == cnp.NPY_FLOAT64 or number == cnp.NPY_FLOAT32) and cnp.PyArray_ISCARRAY_RO(v)


cdef inline bint is_whole(cnp.ndarray v) noexcept:
    """Of whole numbers of 32 or 64 bits."""
    cdef int number = cnp.PyArray_TYPE(v)
    return cnp.NPY_INT <= number <= cnp.NPY_ULONGLONG


cdef inline bint is_exact(cnp.ndarray v):
    """Whether float64 holds every number of v."""
    cdef cnp.ndarray whole
    cdef Py_ssize_t c
    cdef int64_t number
    cdef uint64_t natural
    if not is_whole(v):
        return type_of(v) != OTHER
    if cnp.PyArray_ITEMSIZE(v) == 4:
        return True
    if v.dtype.kind == "u":
        whole = cnp.PyArray_ContiguousFromAny(v, cnp.NPY_UINT64, 1, 1)
        for c in range(cnp.PyArray_SIZE(v)):
            natural = (<uint64_t*>cnp.PyArray_DATA(whole))[c]
            if <double>natural >= 18446744073709551616.0 or <uint64_t><double>natural != natural:
                return False
        return True
    whole = cnp.PyArray_ContiguousFromAny(v, cnp.NPY_INT64, 1, 1)
    for c in range(cnp.PyArray_SIZE(v)):
        number = (<int64_t*>cnp.PyArray_DATA(whole))[c]
        if <double>number >= 9223372036854775808.0 or <int64_t><double>number != number:
            return False
    return True


cdef inline bint read_plain(const Kernels* kernels, cnp.ndarray v, Py_ssize_t n, double* into) noexcept:
    cdef uint64_t before
    if cnp.PyArray_TYPE(v) == cnp.NPY_FLOAT32:
        before = cpubn_calm()
        kernels.widen_vector(<const float*>cnp.PyArray_DATA(v), n, into)
        cpubn_restore(before)
    else:
        memcpy(into, cnp.PyArray_DATA(v), n * sizeof(double))
    return True


cdef inline bint read_vector(const Kernels* kernels, v, Py_ssize_t n, double* into):
    """into (n,) <- v; whether v is a vector of n numbers that float64 holds."""
    if not is_vector(v, n):
        return False
    if is_plain(v):
        return read_plain(kernels, v, n, into)
    if not is_exact(v):
        return False
    return read_plain(kernels, cnp.PyArray_ContiguousFromAny(v, cnp.NPY_FLOAT64, 1, 1), n, into)


cdef inline bint read_optional(const Kernels* kernels, v, Py_ssize_t n, double default, double* into):
    cdef Py_ssize_t c
    if v is not None:
        return read_vector(kernels, v, n, into)
    for c in range(n):
        into[c] = default
    return True


cdef inline bint divides(const double* var, Py_ssize_t n, double eps) noexcept nogil:
    """Whether no var + eps is 0 or less; NaN is neither."""
    cdef Py_ssize_t c
    cdef uint64_t bits, signs = 0
    cdef double v
    for c in range(n):  # as integers, which SSE2 takes two at a time: 0.25 ns a channel; comparing took 0.6
        v = var[c] + eps
        memcpy(&bits, &v, sizeof(double))
        signs |= bits | (bits - 1)
    if signs >> 63 == 0:
        return True
    for c in range(n):  # a NaN has a sign, too
        if var[c] + eps <= 0.0:
            return False
    return True


cdef inline double* divided(double* v, Py_ssize_t n, double by) noexcept:
    """v /= by."""
    cdef Py_ssize_t c
    cdef uint64_t before
    if by != 1.0:
        before = cpubn_calm()
        for c in range(n):
            v[c] /= by
        cpubn_restore(before)
    return v


cdef inline bint is_pair(tuple vectors, Py_ssize_t n):
    """Whether they are two vectors that a call can update in place."""
    cdef int number
    for v in vectors:
        if not is_vector(v, n):
            return False
        number = cnp.PyArray_TYPE(<cnp.ndarray>v)
        if not ((number == cnp.NPY_FLOAT64 or number == cnp.NPY_FLOAT32) and is_writable(v)):
            return False
    return apart(vectors[0], vectors[1:])


cdef inline int must_have_stayed(tuple vectors, Py_ssize_t n) except -1:
    """Vectors that a call updates, while kernels ran without the interpreter's lock."""
    if not is_pair(vectors, n):
        got = " and ".join([f"{v.dtype} of shape {v.shape}" for v in vectors])
        raise ValueError(
            f"vectors that a call updates must stay as they are during it, got {got} after it; let no other thread "
            "change them meanwhile"
        )
    return 0


cdef inline cnp.ndarray narrowed(const Kernels* kernels, cnp.ndarray v, Py_ssize_t n, double* values):
    """Values (n,) as a native array of v's type."""
    cdef cnp.npy_intp[1] shape
    cdef cnp.ndarray made
    shape[0] = n
    made = cnp.PyArray_EMPTY(1, shape, cnp.PyArray_TYPE(v), 0)
    write_plain(kernels, made, n, values)
    return made


cdef inline void write_plain(const Kernels* kernels, cnp.ndarray v, Py_ssize_t n, const double* values) noexcept:
    if cnp.PyArray_TYPE(v) == cnp.NPY_FLOAT32:
        kernels.narrow_vector(values, n, <float*>cnp.PyArray_DATA(v))
    else:
        memcpy(cnp.PyArray_DATA(v), values, n * sizeof(double))


cdef inline int write_vector(const Kernels* kernels, cnp.ndarray v, Py_ssize_t n, double* values) except -1:
    """v <- values (n,), in v's type and order. Neither step asks Python whether there was an interrupt."""
    if is_plain(v):
        write_plain(kernels, v, n, values)
    else:
        cnp.PyArray_CopyInto(v, narrowed(kernels, v, n, values))
    return 0


cdef inline int add_to(const Kernels* kernels, cnp.ndarray total, Py_ssize_t n, const double* v, double* room) except -1:
    """total += v (n,); room: of n numbers."""
    cdef Py_ssize_t c
    cdef uint64_t before
    read_vector(kernels, total, n, room)
    before = cpubn_calm()
    for c in range(n):
        room[c] += v[c]
    write_vector(kernels, total, n, room)
    cpubn_restore(before)
    return 0
