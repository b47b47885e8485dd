"""Cython kernels. Each instruction set compiles this one source; see _isa.py for the flags and _order.py for the sums."""

cimport numpy as cnp
from libc.string cimport memcpy, memset
from cython.parallel cimport prange

from cpubn.kernels import _order

cnp.import_array()

cdef extern from "_machine.h" nogil:
    int cpubn_openmp_max_threads()
    int cpubn_has_avx2()
    int cpubn_has_avx512()
    size_t cpubn_cache_bytes()
    double cpubn_add_exact(double a, double b, double c)
    void cpubn_prefetch(const void* p)
    void cpubn_stream(void* to, const void* source, size_t bytes)
    void cpubn_stream_end()

ctypedef fused real:
    float
    double

ctypedef fused work:
    float
    double

include "_algebra.pxi"
include "_vectors.pxi"
include "_sums.pxi"
include "_apply.pxi"
include "_chunks.pxi"
include "_passes.pxi"
include "_direct.pxi"

# Output is written past the last-level cache if input and output together exceed it and a thread finishes its channels
# while they are in cache: that took 0.7 to 0.9 of the time at 51 MB. By itself an elementwise pass of 51 MB took up to 1.4
# times as long so, and one of 205 MB 0.7 to 1.1 times: there from four times the cache on, unless it is of short runs.
cdef size_t CACHE = cpubn_cache_bytes()
cdef Py_ssize_t CHUNK = _order.CHUNK
# Bytes of a group of channels that one thread finishes on its own: about half of a second-level cache.
cdef Py_ssize_t GROUP_BYTES = 524288


def moments(cnp.ndarray x not None, cnp.ndarray stats not None, int threads):
    """mean = sum(x) / n and m2 = sum((x - mean)**2) per channel.

    x (O, C, I) float32 or float64; stats (3, C) float64 <- mean, its low word, m2.
    Each chunk is summed about its own pivot and merged: one pass over memory, and no digit lost to a large mean.
    Moves x once.
    """
    cdef Job job = new_job(x, x, x)
    job.sums = True
    job.result = <double*>cnp.PyArray_DATA(stats)
    start(&job, x, threads)


def normalize(cnp.ndarray x not None, cnp.ndarray affine not None, cnp.ndarray y not None, int threads):
    """y = (x - centre) * scale + shift.

    x, y (O, C, I); affine (3, C) float64: centre, scale, shift; y may be x.
    The centre is taken off first: `x * scale + (shift - centre * scale)` loses digits as the mean grows.
    Moves x and y once.
    """
    cdef Job job = new_job(x, x, y)
    job.apply = True
    job.coefficients = <double*>cnp.PyArray_DATA(affine)
    start(&job, x, threads)


def train_forward(
    cnp.ndarray x not None, cnp.ndarray weight not None, cnp.ndarray bias not None, double eps,
    cnp.ndarray stats not None, cnp.ndarray y not None, int threads
):
    """y = (x - mean) / sqrt(var + eps) * weight + bias with the batch's own mean and biased variance.

    x, y (O, C, I); weight, bias (C,) float64; stats (3, C) float64 <- mean, its low word, m2; y may be x.
    A group of channels is finished while it is in cache: two sweeps over the whole tensor would read it twice.
    Moves x and y once where a group fits in cache, otherwise x twice.
    """
    cdef Job job = new_job(x, x, y)
    job.sums = job.apply = True
    job.weight = <const double*>cnp.PyArray_DATA(weight)
    job.bias = <const double*>cnp.PyArray_DATA(bias)
    job.eps = eps
    job.result = <double*>cnp.PyArray_DATA(stats)
    start(&job, x, threads)


def gradient_sums(
    cnp.ndarray dy not None, cnp.ndarray x not None, cnp.ndarray mean not None, cnp.ndarray sums not None, int threads
):
    """s0 = sum(dy), s1 = sum(dy * (x - mean)) per channel.

    dy, x (O, C, I); mean (C,) float64; sums (2, C) float64 <- s0, s1.
    Differences are taken in float64: rounded to float32 at mean/std = 1e7 nothing would be left of them.
    Moves dy and x once.
    """
    cdef Job job = new_job(dy, x, x)
    job.backward = job.sums = True
    job.mean = <const double*>cnp.PyArray_DATA(mean)
    job.result = <double*>cnp.PyArray_DATA(sums)
    start(&job, x, threads)


def train_backward(
    cnp.ndarray dy not None, cnp.ndarray x not None, cnp.ndarray mean not None, cnp.ndarray var not None,
    cnp.ndarray weight not None, double eps, cnp.ndarray sums not None, cnp.ndarray dx not None, int threads
):
    """dx = scale * ((dy - k) - ((x - centre) * r) * s) with the coefficients of _algebra.gradient.

    dy, x, dx (O, C, I); mean, var, weight (C,) float64; sums (2, C) float64 <- s0, s1; dx may be dy or x.
    Not `a * dy + b * (x - centre) + k`: where dy follows x that loses half its digits at mean/std = 1e6.
    Moves dy, x and dx once where a group fits in cache, otherwise dy and x twice.
    """
    cdef Job job = new_job(dy, x, dx)
    job.backward = job.sums = job.apply = True
    job.mean = <const double*>cnp.PyArray_DATA(mean)
    job.var = <const double*>cnp.PyArray_DATA(var)
    job.weight = <const double*>cnp.PyArray_DATA(weight)
    job.eps = eps
    job.result = <double*>cnp.PyArray_DATA(sums)
    start(&job, x, threads)


def openmp_max_threads():
    """What OpenMP would use by itself; 0 where the extension was built without it."""
    return cpubn_openmp_max_threads()


def cpu_features():
    """The instruction sets of _isa.py, beyond the baseline, that this CPU and its operating system have."""
    return frozenset(name for name, has in (("avx2", cpubn_has_avx2()), ("avx512", cpubn_has_avx512())) if has)


cdef Strided strided(cnp.ndarray a):
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(a)
    cdef cnp.npy_intp* strides = cnp.PyArray_STRIDES(a)
    return Strided(cnp.PyArray_DATA(a), strides[0] // size, strides[1] // size, strides[2] // size)


cdef Job new_job(cnp.ndarray dy, cnp.ndarray x, cnp.ndarray y):
    """A job over x (O, C, I) and, of its shape, dy and y; its order of summation, and no task yet."""
    cdef Job job
    cdef cnp.npy_intp* shape = cnp.PyArray_DIMS(x)
    memset(&job, 0, sizeof(job))
    job.outer, job.channels, job.inner = shape[0], shape[1], shape[2]
    job.x, job.dy, job.y = strided(x), strided(dy), strided(y)
    set_order(&job)
    return job


cdef object set_order(Job* job):
    order = _order.order_of(job.outer, job.inner)
    job.columns, job.rows, job.piece, job.pieces, job.chunks, job.span, job.spans = order


cdef object start(Job* job, cnp.ndarray x, int threads):
    """Choose how to share the work, and run it without the interpreter's lock."""
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(x) * (2 if job.backward else 1)  # of what is read
    cdef size_t moved = job.channels * job.outer * job.inner * (size + cnp.PyArray_ITEMSIZE(x))
    cdef bint single = cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32
    cdef bint whole
    cdef cnp.ndarray parts, coefficients, narrow
    if not job.sums:
        job.columns = job.inner < APART
    if job.columns:
        whole = share_columns(job, size, moved, threads)
    else:
        whole = share_rows(job, threads)
    job.stream = job.apply and moved > CACHE
    if not (job.sums and whole):
        job.stream = job.stream and moved > 4 * CACHE and (job.columns or job.inner >= LONG)
    if job.sums and not whole:
        parts = new_vectors(3 * job.spans, job.channels)
        job.parts = <double*>cnp.PyArray_DATA(parts)
    if job.sums and job.apply:
        coefficients = new_vectors(COEFFICIENTS, job.channels)
        job.coefficients = <double*>cnp.PyArray_DATA(coefficients)
    if job.apply and job.band > WIDEST:
        narrow = new_vectors(COEFFICIENTS, job.channels)
        job.narrow = cnp.PyArray_DATA(narrow)
    with nogil:
        if single:
            run[float](job, NULL, threads)
        else:
            run[double](job, NULL, threads)


cdef bint share_rows(Job* job, int threads) noexcept:
    """Channel by channel; whether each is to be finished by one thread, rather than its spans shared out."""
    job.group = job.band = job.block = 1
    job.groups = job.bands = job.channels
    return job.span == 1 and (job.spans == 1 or threads == 1 or job.channels >= 4 * threads)


cdef bint share_columns(Job* job, Py_ssize_t size, size_t moved, int threads) noexcept:
    """Groups of channels; whether each is to be finished by one thread, and not its sums first and then its rows.

    That saves a read of x from memory, or forks where all is small. Where all is in cache there is none to save, and a
    group's rows, lying apart by a power of two, throw each other out of the second level: (1024, 1024) took 421 us by
    groups and 160 by phases. And where two threads write the halves of many rows, each row has a cache line that both
    want: (1000, 128) took 170 us so, and 31 with one thread.
    """
    cdef Py_ssize_t widest = max(1, WIDEST // job.inner)
    cdef Py_ssize_t fitting = GROUP_BYTES // (job.outer * job.inner * size)
    cdef Py_ssize_t share = ((job.channels + threads - 1) // threads + LANES - 1) // LANES * LANES
    cdef Py_ssize_t units
    cdef bint uncontended = (job.outer <= 64 and job.channels * job.inner >= LANES * threads) or threads == 1
    cdef bint small = moved <= <size_t>(2 * GROUP_BYTES * threads) and uncontended
    cdef bint large = moved > CACHE // 2 and min(fitting, share) * job.inner >= 8 * LANES
    cdef bint whole = job.sums and job.span == 1 and (small or (job.apply and large))
    job.group = widest
    if whole:
        job.group = max(1, min(widest, min(fitting, share)))
    elif job.sums and job.spans < threads:
        job.group = min(widest, share)
    job.groups = (job.channels + job.group - 1) // job.group
    if job.groups > 1:  # of one size, and as many for each thread
        job.groups = (job.groups + threads - 1) // threads * threads
        job.group = (job.channels + job.groups - 1) // job.groups
        job.groups = (job.channels + job.group - 1) // job.group
    # Rows that come from memory are taken whole: by halves (32, 2048, 7, 7) took 1.4 times as long. As few blocks of
    # them as keep every thread busy: each looks at its channels' coefficients and spreads them once.
    job.band = widest
    if job.inner == 1 and job.outer >= 32 * threads and moved > <size_t>(4 * GROUP_BYTES) and not whole:
        job.band = job.channels
    job.bands = (job.channels + job.band - 1) // job.band
    units = 1 if job.bands % threads == 0 else 1 + (2 * threads - 1) // job.bands  # of each band
    job.block = max((job.outer + units - 1) // units, min(job.outer, 16))
    return whole
