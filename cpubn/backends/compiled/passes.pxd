# What a pass is given, arrays (outer, channel, inner) and records, as a job has it.

cimport numpy as cnp
from libc.string cimport memset

from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.planner cimport set_activation, type_of


cdef inline Strided strided(cnp.ndarray a):
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(a)
    cdef cnp.npy_intp* strides = cnp.PyArray_STRIDES(a)
    cdef Strided s
    if cnp.PyArray_NDIM(a) != 3:
        raise ValueError("an array must have the shape (outer, channel, inner)")
    memset(&s, 0, sizeof(Strided))
    s.data, s.type, s.size = <char*>cnp.PyArray_DATA(a), type_of(a), size
    s.outer, s.channel, s.inner = strides[0] // size, strides[1] // size, strides[2] // size
    return s


cdef inline const double* vector_of(cnp.ndarray v, Py_ssize_t n) except NULL:
    if cnp.PyArray_TYPE(v) != cnp.NPY_FLOAT64 or cnp.PyArray_SIZE(v) < n or not cnp.PyArray_ISCARRAY_RO(v):
        raise ValueError("a vector must be a contiguous one of float64")
    return <const double*>cnp.PyArray_DATA(v)


cdef inline int set_weights(Job* job, weights) except -1:
    """A Weights, or None."""
    if weights is not None:
        array, counts, filling = weights
        job.weights, job.filling = strided(array), filling
        if counts is not None:
            job.counts = vector_of(counts, job.channels)
    return 0


cdef inline int set_statistics(Job* job, statistics) except -1:
    cdef Py_ssize_t n = job.channels
    mean, low, var, weight, eps, training, counts = statistics
    job.mean, job.mean_low = vector_of(mean, n), vector_of(low, n)
    job.var, job.weight, job.eps = vector_of(var, n), vector_of(weight, n), eps
    job.map = GRADIENT if training else SCALE
    if counts is not None:
        job.counts = vector_of(counts, n)
    return 0


cdef inline int set_prologue(Job* job, prologue) except -1:
    activation, bias, residual, kept, signs, g = prologue
    if g is not None:
        job.g = strided(g)
    if signs is not None:
        bits, strides, slope = signs
        job.prologue, job.low = BY_SIGNS, slope
        job.signs.data, job.signs.type = <char*>cnp.PyArray_DATA(<cnp.ndarray>bits), UINT8
        job.signs.outer, job.signs.channel, job.signs.inner = strides
    elif activation is not None:
        set_activation(job, activation, kept is not None)
        job.prologue = BY_Z if kept is None else BY_OUTPUT
        if kept is not None:
            job.kept = strided(kept)
        else:
            job.bias = vector_of(bias, job.channels)
            if residual is not None:
                job.residual = strided(residual)
    return 0
