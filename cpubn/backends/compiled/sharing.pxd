# How the work of a job is shared out among threads, which the bits of its results do not depend on.

from libc.stdlib cimport llabs

from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.machine cimport cpubn_cache_bytes

cdef enum:
    GROUP_COLUMNS = 1024  # that are summed together: see chunks.pxd
    GROUP_BYTES = 524288  # of a group of channels that one thread finishes on its own: a second-level cache
    SHORT_BYTES = 65536  # of the rows of channels that a thread takes together
    UNIT = 16384  # elements of a unit of an elementwise pass by rows
    LONG = 960  # shorter runs, written past the cache one by one, took 1.4 to 3.4 times as long
    TRANSPOSED_BYTES = 16384  # of a block that is written in another layout than it is read in


cdef inline bint is_in_rows(const Strided* a, Type wanted) noexcept nogil:
    return a.data is NULL or (a.inner == 1 and a.size == size_of(a.type) and fits(a.type, wanted))


cdef inline bint weighs_in_rows(const Strided* a) noexcept nogil:
    """Whether lanes of weights can be loaded from a row, or one for all of it."""
    return a.data is NULL or (0 <= a.inner <= 1 and a.size == size_of(a.type))


cdef inline bint are_in_rows(const Job* job, Type wanted) noexcept nogil:
    return (
        not job.down and job.inner_split.axes <= 1 and (job.signs.data is NULL or job.signs.inner == 1) and is_in_rows(&job.x, wanted)
        and is_in_rows(&job.dy, wanted) and is_in_rows(&job.residual, wanted) and is_in_rows(&job.kept, wanted)
        and is_in_rows(&job.g, wanted) and is_in_rows(&job.y, wanted) and weighs_in_rows(&job.weights)
    )


cdef inline bint is_joined(const Strided* a, Py_ssize_t n) noexcept nogil:
    return a.data is NULL or a.channel == n


cdef inline bint is_transposed(const Job* job) noexcept nogil:
    """Whether y runs in memory along other axes than x: it is of another layout."""
    if job.inner == 1:
        return job.channels > 1 and llabs(job.y.outer) < llabs(job.y.channel)
    return job.channels > 1 and llabs(job.y.inner) > llabs(job.y.channel)


cdef inline void describe_loops(Job* job) noexcept nogil:
    """What follows from the arrays and the task, whoever shares out the work."""
    job.plain = job.activation == 0 and job.residual.data is NULL and job.g.data is NULL
    job.plain = job.plain and job.prologue == NO_PROLOGUE and job.map != SCALE and job.weights.data is NULL
    job.down = job.apply and not job.sums and job.inner == 1 and is_transposed(job)
    job.columns_apply = job.inner < 32 and not (job.apply and not job.sums and is_transposed(job))
    job.types[OF_X], job.types[OF_DY], job.types[OF_RESIDUAL] = job.x.type, job.dy.type, job.residual.type
    job.types[OF_KEPT], job.types[OF_G], job.types[OF_Y] = job.kept.type, job.g.type, job.y.type
    job.types[OF_WEIGHTS] = job.weights.type
    job.direct = job.x.type != OTHER and are_in_rows(job, job.x.type)
    job.in_rows = job.direct or are_in_rows(job, OTHER)
    job.joined = job.in_rows and is_joined(&job.x, job.inner) and is_joined(&job.dy, job.inner)
    job.joined = job.joined and is_joined(&job.residual, job.inner) and is_joined(&job.kept, job.inner)
    job.joined = job.joined and is_joined(&job.signs, job.inner) and is_joined(&job.g, job.inner)
    job.joined = job.joined and is_joined(&job.y, job.inner) and is_joined(&job.weights, job.inner)


cdef inline void share_transposed(Job* job) noexcept nogil:
    """Blocks of which all channels' samples stay in the first-level cache, so that it gathers the lines of x or of y."""
    cdef Py_ssize_t size = size_of(job.x.type if job.down else job.y.type)  # of the one whose lines are not read, or written, whole
    cdef Py_ssize_t samples = max(<Py_ssize_t>32, TRANSPOSED_BYTES // (job.channels * size))
    job.band, job.block, job.part = job.channels, 1, job.inner
    if job.down:
        job.block = min(samples, job.outer)
    else:
        job.part = min(samples, job.inner)


cdef inline void share_rows(Job* job, Py_ssize_t size, size_t moved, int threads) noexcept nogil:
    """Channel by channel, or a few short ones together; beyond the cache as many as are long together."""
    cdef Py_ssize_t bytes = job.outer * job.inner * size
    job.whole = threads == 1 or job.channels >= 4 * threads
    job.group = max(<Py_ssize_t>1, min(<Py_ssize_t>64, SHORT_BYTES // bytes))
    if job.joined and moved > cpubn_cache_bytes():  # long enough to be written past the cache
        job.group = max(job.group, min((LONG + job.inner - 1) // job.inner, <Py_ssize_t>(2 * GROUP_BYTES) // bytes))
    job.group = max(<Py_ssize_t>1, min(job.group, job.channels // (4 * threads)))


cdef inline void share_columns(Job* job, Py_ssize_t size, size_t moved, int threads) noexcept nogil:
    """Groups of channels, each finished by one thread where that saves forks or a read of x from memory, else phases.

    In cache, a group's rows, lying apart by a power of two, throw each other out of the second level: (1024, 1024) took
    421 us by groups and 160 by phases. Where two threads write the halves of many rows, each row has a cache line that
    both want: (1000, 128) took 170 us so, and 31 with one thread.
    """
    cdef Py_ssize_t widest = max(<Py_ssize_t>1, GROUP_COLUMNS // job.inner)
    cdef Py_ssize_t row = job.outer * job.inner * size
    cdef Py_ssize_t share = ((job.channels + threads - 1) // threads + 31) // 32 * 32
    cdef bint uncontended = (job.outer <= 64 and job.channels * job.inner >= 32 * threads) or threads == 1
    cdef bint small = moved <= <size_t>(2 * GROUP_BYTES * threads) and uncontended
    job.whole = (small or job.inner >= 32) and (job.together == 1 or threads == 1)
    job.group = job.channels if job.together > 1 else min(widest, job.channels)
    if job.whole and job.together == 1 and job.inner == 1:
        # Its rows are to stay in the first-level cache from the sums to the output.
        job.group = min(job.group, max(<Py_ssize_t>256, 24576 // row // 32 * 32))
    if job.together == 1 and (job.whole or job.spans < threads):
        job.group = max(<Py_ssize_t>1, min(job.group, share))


cdef inline void share_blocks(Job* job, int threads) noexcept nogil:
    """Blocks of the elementwise pass: whole rows of columns, or about UNIT elements of rows."""
    cdef Py_ssize_t units = 1 if threads == 1 else 2 * threads
    if is_transposed(job) and not job.sums:
        share_transposed(job)
    elif job.inner < 32:
        job.band, job.part, job.block = job.channels, job.inner, (job.outer + units - 1) // units
    else:
        job.part, job.block = min(job.inner, 4 * UNIT), 1
        job.band = max(<Py_ssize_t>1, min(job.channels, UNIT // job.part))
        if job.band == job.channels:
            job.block = max(<Py_ssize_t>1, min(job.outer, UNIT // (job.part * job.channels)))
    job.bands = (job.channels + job.band - 1) // job.band
    job.parts_across = (job.inner + job.part - 1) // job.part


cdef inline void share(Job* job, int threads) noexcept nogil:
    cdef Py_ssize_t size = size_of(job.x.type) * (2 if job.backward else 1)  # of what is read
    cdef size_t moved = job.channels * job.outer * job.inner * (size + (size_of(job.y.type) if job.apply else 0))
    cdef Py_ssize_t run = job.inner
    job.given = job.coefficients is not NULL
    describe_loops(job)
    job.whole = False
    if job.sums and job.columns:
        share_columns(job, size, moved, threads)
    elif job.sums:
        share_rows(job, size, moved, threads)
    if job.sums:
        job.groups = (job.channels + job.group - 1) // job.group
    if job.apply:
        share_blocks(job, threads)
    if job.inner < 32 and (job.weights.data is NULL or job.weights.channel != 0):
        run = LONG  # or more: rows of columns end to end
    elif job.inner < 32:
        run *= job.channels  # row by row, of which each has a weight of its own
    elif job.joined and job.weights.data is NULL:
        run *= job.group if job.whole else job.band
    job.far = moved > <size_t>(GROUP_BYTES * threads)
    # What is read and written is more than the last-level cache.
    job.past = job.apply and moved > cpubn_cache_bytes() and run >= LONG
