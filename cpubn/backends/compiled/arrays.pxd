# What the direct path asks of Python's objects, and how it reads and writes vectors of channels.

cimport numpy as cnp
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from cpubn.backends.compiled.job cimport BFLOAT16, FLOAT32, Kernels
from cpubn.backends.compiled.machine cimport cpubn_calm, cpubn_restore
from cpubn.backends.compiled.planner cimport type_of


cdef inline cnp.ndarray new_vectors(int count, Py_ssize_t n):
    cdef cnp.npy_intp[2] shape
    shape[0], shape[1] = count, n
    return cnp.PyArray_EMPTY(2, shape, cnp.NPY_FLOAT64, 0)


cdef inline bint is_single(x) noexcept:
    return cnp.PyArray_TYPE(<cnp.ndarray>x) == cnp.NPY_FLOAT32


cdef inline bint is_contiguous(a) noexcept:
    return type(a) is cnp.ndarray and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>a)


cdef inline bint is_sample(a) noexcept:
    """Whether `a` is a contiguous, aligned, native array of a floating type that samples may have."""
    return is_contiguous(a) and FLOAT32 <= type_of(a) <= BFLOAT16


cdef inline bint is_plain(a) noexcept:
    """Whether `a` is a contiguous, aligned, native array of float32 or float64."""
    return is_contiguous(a) and (cnp.PyArray_TYPE(<cnp.ndarray>a) == cnp.NPY_FLOAT64 or is_single(a))


cdef inline bint is_number(value, double low, double high) noexcept:
    if type(value) is int and 0 <= value <= 1:  # eps=0, as it is written for images
        value = float(value)
    return type(value) is float and low <= <double>value <= high


cdef inline bint is_like(a, x) noexcept:
    """Whether `a` is a sample array of x's shape and dtype."""
    return (
        is_sample(a) and cnp.PyArray_TYPE(<cnp.ndarray>a) == cnp.PyArray_TYPE(<cnp.ndarray>x)
        and cnp.PyArray_SAMESHAPE(<cnp.ndarray>a, <cnp.ndarray>x)
    )


cdef inline uint64_t mixed_bits(a) noexcept:
    """Bits of a contiguous array at 32 places, mixed with where they stand: most changes of it change them."""
    cdef const char* data = cnp.PyArray_BYTES(<cnp.ndarray>a)
    cdef Py_ssize_t size = cnp.PyArray_NBYTES(<cnp.ndarray>a), last = size - <Py_ssize_t>sizeof(uint64_t), k
    cdef uint64_t mixed = <uint64_t>data + <uint64_t>size, bits = 0
    if last < 0:
        memcpy(&bits, data, size)
        return mixed + bits
    for k in range(32):
        memcpy(&bits, data + last * k // 31, sizeof(uint64_t))
        mixed += bits * (<uint64_t>0x9E3779B97F4A7C15 + 2 * <uint64_t>k)
    return mixed


cdef inline object witness_of(x, output, residual):
    """A number by which it shows that one of three arrays, or None, was changed; None where one is not contiguous."""
    cdef uint64_t mixed = 0
    for a in (x, output, residual):
        if type(a) is cnp.ndarray:
            if not is_contiguous(a):
                return None
            mixed = mixed * 31 + mixed_bits(a)
    return mixed


cdef inline bint overlap(a, b) noexcept:
    """Whether two contiguous arrays share memory."""
    cdef char* p = cnp.PyArray_BYTES(<cnp.ndarray>a)
    cdef char* r = cnp.PyArray_BYTES(<cnp.ndarray>b)
    return p < r + cnp.PyArray_NBYTES(<cnp.ndarray>b) and r < p + cnp.PyArray_NBYTES(<cnp.ndarray>a)


cdef inline bint apart(a, tuple others):
    """Whether `a` is a contiguous array, the others that are not None are too, and it shares no memory with them."""
    if not is_sample(a):
        return False
    for other in others:
        if other is not None and (not is_sample(other) or overlap(a, other)):
            return False
    return True


cdef inline object output_for(dy, x, out):
    """A new array like x, or `out` if it is dy, x or a contiguous array apart from both; else None."""
    if out is None:
        return cnp.PyArray_EMPTY(
            cnp.PyArray_NDIM(<cnp.ndarray>x), cnp.PyArray_DIMS(<cnp.ndarray>x), cnp.PyArray_TYPE(<cnp.ndarray>x), 0
        )
    if not is_like(out, x) or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out):
        return None
    if (out is not x and overlap(out, x)) or (out is not dy and dy is not x and overlap(out, dy)):
        return None
    return out


cdef inline bint read_vector(const Kernels* kernels, v, Py_ssize_t n, double* into) noexcept:
    """into (n,) <- v; whether v is a plain vector of n."""
    cdef uint64_t before
    if not is_plain(v) or cnp.PyArray_NDIM(<cnp.ndarray>v) != 1 or cnp.PyArray_SIZE(v) != n:
        return False
    if is_single(v):
        before = cpubn_calm()
        kernels.widen_vector(<const float*>cnp.PyArray_DATA(<cnp.ndarray>v), n, into)
        cpubn_restore(before)
    else:
        memcpy(into, cnp.PyArray_DATA(<cnp.ndarray>v), n * sizeof(double))
    return True


cdef inline bint read_optional(const Kernels* kernels, v, Py_ssize_t n, double default, double* into) noexcept:
    cdef Py_ssize_t c
    if v is not None:
        return read_vector(kernels, v, n, into)
    for c in range(n):
        into[c] = default
    return True


cdef inline bint divides(const double* var, Py_ssize_t n, double eps) noexcept:
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


cdef inline void write_vector(const Kernels* kernels, v, Py_ssize_t n, const double* values) noexcept:
    if is_single(v):
        kernels.narrow_vector(values, n, <float*>cnp.PyArray_DATA(<cnp.ndarray>v))
    else:
        memcpy(cnp.PyArray_DATA(<cnp.ndarray>v), values, n * sizeof(double))
