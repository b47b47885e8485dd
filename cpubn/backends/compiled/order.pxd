# The order of summation of a walk: order_of of maths/order.py, which a test compares it with.

from cpubn.backends.compiled.job cimport Job, Strided

cdef enum:
    CHUNK = 65536
    TALL = 1024
    EVEN = 4
    SHORT = 256
    FEW_ROWS = 8
    LANES = 32
    WIDE_ROW = 256
    SPANS = 64


cdef inline Py_ssize_t parts_of(Py_ssize_t n, Py_ssize_t size) noexcept nogil:
    """n // size, rounded up."""
    return (n + size - 1) // size


cdef inline bint lies_along(const Job* job, const Strided* a) noexcept nogil:
    """Whether an array lies end to end in the order of the walk."""
    cdef bint whole = job.outer_split.axes <= 1 and job.inner_split.axes <= 1
    return whole and a.inner == 1 and a.channel == job.inner and a.outer == job.channels * job.inner


cdef inline void set_order(Job* job) noexcept nogil:
    cdef Py_ssize_t rows, inner = job.inner
    cdef bint apart = job.weights.data is not NULL and not lies_along(job, &job.weights)
    job.columns = inner < LANES or (inner < SHORT and job.outer >= FEW_ROWS and not apart)
    job.together = job.pieces = 1
    if job.columns and not apart:
        job.together = min(job.outer, max(<Py_ssize_t>1, WIDE_ROW // (job.channels * inner)))
    if job.columns:
        rows = parts_of(job.outer, job.together)
        job.levels = parts_of(rows, max(<Py_ssize_t>1, min(<Py_ssize_t>TALL, CHUNK // (job.together * inner))))
        if job.levels > 1:
            job.levels = min(rows, parts_of(job.levels, EVEN) * EVEN)
    else:
        job.pieces = parts_of(inner, CHUNK)
        job.levels = parts_of(job.outer, max(<Py_ssize_t>1, CHUNK // inner))
    job.chunks = job.levels * job.pieces
    job.span = parts_of(job.chunks, SPANS)
    job.spans = parts_of(job.chunks, job.span)
