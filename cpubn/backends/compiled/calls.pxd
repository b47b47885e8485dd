# Jobs of the direct path: what a call's contiguous arrays say, in memory order, and how it is begun.

cimport numpy as cnp
from libc.string cimport memset

from cpubn.backends.compiled.arrays cimport *
from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.planner cimport CompiledKernels, run_small, set_epilogue, set_order, start, type_of

cdef enum:
    # A pass over less is done before the interpreter's lock was released and threads were thought of: 0.2 us.
    SMALL_BYTES = 32768


cdef inline int channels_last(layout):
    """Whether a layout is NHWC; -1 for what is no layout."""
    if type(layout) is not str:
        return -1
    return 0 if layout == "NCHW" else 1 if layout == "NHWC" else -1


cdef inline bint describe(CompiledKernels kernels, Job* job, x, int last) noexcept:
    """A job over a contiguous array, with but its shape and an elementwise pass; whether x is one of a type we know."""
    cdef cnp.npy_intp* shape
    cdef int rank, axis, i
    if last < 0 or not is_contiguous(x) or type_of(x) == OTHER:
        return False
    rank = cnp.PyArray_NDIM(<cnp.ndarray>x)
    axis = rank - 1 if last else 1
    if not 2 <= rank <= 5 or cnp.PyArray_SIZE(x) == 0:
        return False
    shape = cnp.PyArray_DIMS(<cnp.ndarray>x)
    memset(job, 0, sizeof(Job))
    job.kernels = kernels.kernels
    job.apply = True
    job.x.type, job.x.size = type_of(x), cnp.PyArray_ITEMSIZE(x)
    job.outer = job.inner = 1
    for i in range(axis):
        job.outer *= shape[i]
    for i in range(axis + 1, rank):
        job.inner *= shape[i]
    job.channels = shape[axis]
    if job.channels == 1:  # one channel stands anywhere: as the plan has it, its runs are as long as they go
        job.inner, job.outer = job.inner * job.outer, 1
    return True


cdef inline bint set_direct_epilogue(Job* job, x, activation, residual, out):
    """The epilogue of a pass over x; whether the residual, if there is one, is like x and `out` is it or apart from it."""
    set_epilogue(job, activation, None)
    if residual is None:
        return True
    if not is_like(residual, x) or (out is not None and out is not residual and not apart(out, (residual,))):
        return False
    job.residual = contiguous(job, residual)
    return True


cdef inline Strided contiguous(const Job* job, a) noexcept:
    return Strided(
        <char*>cnp.PyArray_DATA(<cnp.ndarray>a), job.channels * job.inner, job.inner, 1, job.x.type, job.x.size
    )


cdef inline object run_direct(Job* job, x, y, threads):
    """A job over arrays that are all like x."""
    job.x, job.y = contiguous(job, x), contiguous(job, y)
    run_described(job, threads(cnp.PyArray_NBYTES(<cnp.ndarray>x)))


cdef inline object run_described(Job* job, int threads):
    if job.sums:
        set_order(job)
    if job.outer * job.channels * job.inner * job.x.size <= SMALL_BYTES:
        if not run_small(job):
            raise MemoryError("no memory for the statistics of a batch")
    else:
        start(job, threads)
