# A job's memory and its phases: what threads do, one after the other, with what was shared out among them.

from cython.parallel cimport prange, threadid
from libc.stdint cimport uint8_t, uint64_t

from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.machine cimport cpubn_calm, cpubn_restore

cdef enum:
    LINE = 64  # bytes of a cache line
    ALL_DONE = 4  # State.DONE


cdef inline size_t aligned(size_t bytes) noexcept nogil:
    return (bytes + LINE - 1) // LINE * LINE


cdef inline size_t lay_workspace(Job* job, char* base, int threads) noexcept nogil:
    """Bytes of what a call needs beside its arrays, and its places from `base` on, each at the start of a cache line.

    A table that did not start at one had each load of 64 bytes read two lines: backward of NHWC took 1.15 times as long.
    """
    cdef Py_ssize_t n = job.channels, row = n * job.inner, kinds = COEFFICIENTS if job.backward else SHIFT + 1
    cdef size_t at = 0
    base += <size_t>(-<size_t>base) % LINE
    job.pivots = <double*>base
    at += aligned(n * sizeof(double))
    if not job.given:
        job.coefficients = <double*>(base + at)
        at += aligned(kinds * n * sizeof(double))
    job.parts = <double*>(base + at)
    at += aligned(2 * n * job.spans * sizeof(double))
    if row > 0 and job.apply and job.columns_apply and not job.prepared:
        job.period = row * (1 if row >= 32 else (32 + row - 1) // row)
        job.length = (job.period + 32 + 15) // 16 * 16
        job.table = base + at
        at += aligned(kinds * job.length * sizeof(double))
    job.scratch = base + at
    if job.sums:
        at += threads * job.kernels.scratch
    job.states = <uint8_t*>(base + at)
    if not job.prepared:
        job.wide = <uint8_t*>(base + at + n)
    return at + 2 * n + LINE


cdef enum Phase:
    WHOLE  # a group of channels from its sums to its output
    PIVOTS  # of a group
    SUMS  # of one span of one group
    CLOSE  # a group's spans to its results and coefficients
    APPLY  # a block of outer rows, of channels and of inner elements


cdef inline void finish_group(Job* job, Py_ssize_t c0, Py_ssize_t n, void* scratch) noexcept nogil:
    cdef Block block = Block(0, job.outer, 0, job.inner, c0, c0 + n)
    cdef Py_ssize_t span
    job.kernels.prepare(job, c0, c0 + n)
    if not job.backward:
        job.kernels.find_pivots(job, c0, n)
    while True:
        for span in range(job.spans):
            job.kernels.sum_span(job, c0, n, span, scratch)
        if job.kernels.close(job, c0, c0 + n) == 0:
            break
    if job.apply:
        job.kernels.apply(job, &block)


cdef inline void unit(Job* job, Phase phase, Py_ssize_t u, int thread) noexcept nogil:
    """One unit of work of a phase; units may run in any order and at the same time."""
    cdef Block block
    cdef Py_ssize_t c0, n
    cdef void* scratch = job.scratch + thread * job.kernels.scratch
    if phase == APPLY:
        block.i0 = u % job.parts_across * job.part
        block.n = min(job.part, job.inner - block.i0)
        u = u // job.parts_across
        block.c0 = u % job.bands * job.band
        block.c1 = min(block.c0 + job.band, job.channels)
        block.o0 = u // job.bands * job.block
        block.o1 = min(block.o0 + job.block, job.outer)
        job.kernels.apply(job, &block)
        return
    c0 = u % job.groups * job.group
    n = min(job.group, job.channels - c0)
    if phase == WHOLE:
        finish_group(job, c0, n, scratch)
    elif phase == PIVOTS:
        job.kernels.find_pivots(job, c0, n)
    elif phase == SUMS:
        job.kernels.sum_span(job, c0, n, u // job.groups, scratch)
    else:
        job.kernels.close(job, c0, c0 + n)


cdef inline void calm_unit(Job* job, Phase phase, Py_ssize_t u, int thread) noexcept nogil:
    cdef uint64_t before = cpubn_calm()
    unit(job, phase, u, thread)
    cpubn_restore(before)


cdef inline void calm_pack(
    signs_function pack, const void* y, Py_ssize_t n, const Bounds* bounds, uint8_t* bits
) noexcept nogil:
    cdef uint64_t before = cpubn_calm()
    pack(y, n, bounds, bits)
    cpubn_restore(before)


cdef inline void share_out(Job* job, Phase phase, Py_ssize_t units, int threads) noexcept nogil:
    cdef Py_ssize_t u
    if threads == 1 or units == 1:  # a forked child may not enter OpenMP
        for u in range(units):
            unit(job, phase, u, 0)
    else:
        for u in prange(units, num_threads=threads, schedule="static"):
            calm_unit(job, phase, u, threadid())


cdef inline bint is_pending(const Job* job) noexcept nogil:
    cdef Py_ssize_t c
    for c in range(job.channels):
        if job.states[c] != ALL_DONE:
            return True
    return False


cdef inline void run(Job* job, int threads) noexcept nogil:
    cdef uint64_t before = cpubn_calm()
    if job.sums and job.whole:
        share_out(job, WHOLE, job.groups, threads)
    elif not job.prepared:
        job.kernels.prepare(job, 0, job.channels)
    if job.sums and not job.whole:
        if not job.backward:
            share_out(job, PIVOTS, job.groups, threads)
        while is_pending(job):
            share_out(job, SUMS, job.spans * job.groups, threads)
            share_out(job, CLOSE, job.groups, threads)
    if job.apply and not job.whole:
        share_out(job, APPLY, (job.outer + job.block - 1) // job.block * job.bands * job.parts_across, threads)
    cpubn_restore(before)
