# The types of samples: read into float32 or float64, which is what every kernel computes in, and written from it.

from libc.stdint cimport int8_t, int16_t, uint8_t, uint16_t, uint32_t

cdef enum Type:
    OTHER
    FLOAT32
    FLOAT64
    FLOAT16
    BFLOAT16
    UINT8
    INT8
    UINT16
    INT16

cdef extern from "_types.h" nogil:
    float cpubn_from_half(uint16_t half)
    uint16_t cpubn_to_half(float value)
    float cpubn_from_bfloat(uint16_t bfloat)
    uint16_t cpubn_to_bfloat(float value)
    void cpubn_load_halves(const uint16_t* source, float* to, Py_ssize_t n)
    void cpubn_store_halves(const float* source, uint16_t* to, Py_ssize_t n)
    void cpubn_store_bfloats(const float* source, uint16_t* to, Py_ssize_t n)
    uint32_t cpubn_bits_of_float(float value)

ctypedef fused integer:
    uint8_t
    int8_t
    uint16_t
    int16_t

ctypedef fused item:  # a sample as so many bytes
    uint8_t
    uint16_t
    uint32_t

# The number that NumPy gave to ml_dtypes' bfloat16, once one was seen.
cdef int BFLOAT16_NUMBER = -1


cdef Type type_of(cnp.ndarray a) noexcept:
    """The type of an array's elements, OTHER where it is none of those above."""
    cdef int number = cnp.PyArray_TYPE(a)
    if number == cnp.NPY_FLOAT32:
        return FLOAT32
    if number == cnp.NPY_FLOAT64:
        return FLOAT64
    if number == cnp.NPY_FLOAT16:
        return FLOAT16
    if number == BFLOAT16_NUMBER:
        return BFLOAT16
    if number == cnp.NPY_UINT8:
        return UINT8
    if number == cnp.NPY_INT8:
        return INT8
    if number == cnp.NPY_UINT16:
        return UINT16
    if number == cnp.NPY_INT16:
        return INT16
    return bfloat16_or_other(a)


cdef Type bfloat16_or_other(cnp.ndarray a) noexcept:
    global BFLOAT16_NUMBER
    if cnp.PyArray_TYPE(a) < 256 or a.dtype.name != "bfloat16":  # NPY_USERDEF
        return OTHER
    BFLOAT16_NUMBER = cnp.PyArray_TYPE(a)
    return BFLOAT16


cdef inline bint is_own(const real* tag, Type type) noexcept nogil:
    """Whether samples of that type are computed in as they are."""
    return type == FLOAT64 if real is double else type == FLOAT32


cdef inline void load_integers(const integer* source, Py_ssize_t step, float* to, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    if step == 1:
        for i in range(n):
            to[i] = source[i]
    else:
        for i in range(n):
            to[i] = source[i * step]


cdef void load(Type type, const void* source, Py_ssize_t step, real* to, Py_ssize_t n) noexcept nogil:
    """to (n,) <- n samples, `step` of them apart."""
    cdef Py_ssize_t i
    cdef const uint16_t* halves = <const uint16_t*>source
    if is_own(to, type):
        for i in range(n):
            to[i] = (<const real*>source)[i * step]
    elif real is double:
        pass  # float64 is never mixed with other types here
    elif type == FLOAT16:
        if step == 1:
            cpubn_load_halves(halves, to, n)
        else:
            for i in range(n):
                to[i] = cpubn_from_half(halves[i * step])
    elif type == BFLOAT16:
        if step == 1:
            for i in range(n):
                to[i] = cpubn_from_bfloat(halves[i])
        else:
            for i in range(n):
                to[i] = cpubn_from_bfloat(halves[i * step])
    elif type == UINT8:
        load_integers(<const uint8_t*>source, step, to, n)
    elif type == INT8:
        load_integers(<const int8_t*>source, step, to, n)
    elif type == UINT16:
        load_integers(<const uint16_t*>source, step, to, n)
    elif type == INT16:
        load_integers(<const int16_t*>source, step, to, n)


cdef void store(const real* source, Type type, void* to, Py_ssize_t step, Py_ssize_t n) noexcept nogil:
    """n samples, `step` of them apart <- source (n,), rounded to nearest, ties to even."""
    cdef Py_ssize_t i
    cdef uint16_t* halves = <uint16_t*>to
    if is_own(source, type):
        for i in range(n):
            (<real*>to)[i * step] = source[i]
    elif real is double:
        pass
    elif type == FLOAT16:
        if step == 1:
            cpubn_store_halves(source, halves, n)
        else:
            for i in range(n):
                halves[i * step] = cpubn_to_half(source[i])
    elif type == BFLOAT16:
        if step == 1:
            cpubn_store_bfloats(source, halves, n)
        else:
            for i in range(n):
                halves[i * step] = cpubn_to_bfloat(source[i])
