"""Jobs for the kernels: what NumPy's arrays say becomes a job, whose work is shared out among threads and begun."""

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetPointer
from cython.parallel cimport prange, threadid
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, llabs, malloc
from libc.string cimport memchr, memset

from cpubn.backends.compiled.job cimport *

from cpubn.kernels import _order

cnp.import_array()
order_of = _order.order_of  # an old one is told apart when this is loaded

cdef extern from *:
    const double NAN

cdef extern from "machine.hpp" nogil:
    int cpubn_openmp_max_threads()
    int cpubn_has_avx2()
    int cpubn_has_avx512()
    size_t cpubn_cache_bytes()
    uint64_t cpubn_calm()
    void cpubn_restore(uint64_t before)

# Output goes past the last-level cache if it and what is read exceed that.
cdef size_t CACHE = cpubn_cache_bytes()
cdef enum:
    GROUP_COLUMNS = 1024  # that are summed together: see chunks.pxd
    GROUP_BYTES = 524288  # of a group of channels that one thread finishes on its own: a second-level cache
    SHORT_BYTES = 65536  # of the rows of channels that a thread takes together
    UNIT = 16384  # elements of a unit of an elementwise pass by rows
    LONG = 1024  # shorter runs, written past the cache one by one, took 1.4 to 3.4 times as long
    TRANSPOSED_BYTES = 16384  # of a block that is written in another layout than it is read in
    ALL_DONE = 4  # State.DONE
    LINE = 64  # bytes of a cache line
    SIGNS = 65536  # elements of a unit of packing, a multiple of 32

# The number that NumPy gave to ml_dtypes' bfloat16, once one was seen.
cdef int BFLOAT16_NUMBER = -1


cdef Type type_of(cnp.ndarray a) noexcept:
    """The type of an array's elements, OTHER where kernels have none such."""
    cdef int number = cnp.PyArray_TYPE(a)
    if number == cnp.NPY_FLOAT32:
        return FLOAT32
    if number == cnp.NPY_FLOAT64:
        return FLOAT64
    if number == cnp.NPY_FLOAT16:
        return FLOAT16
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
    if cnp.PyArray_TYPE(a) == BFLOAT16_NUMBER:
        return BFLOAT16
    if cnp.PyArray_TYPE(a) < 256 or a.dtype.name != "bfloat16":  # NPY_USERDEF
        return OTHER
    BFLOAT16_NUMBER = cnp.PyArray_TYPE(a)
    return BFLOAT16


cdef Strided strided(cnp.ndarray a):
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(a)
    cdef cnp.npy_intp* strides = cnp.PyArray_STRIDES(a)
    if cnp.PyArray_NDIM(a) != 3:
        raise ValueError("an array must have the shape (outer, channel, inner)")
    return Strided(
        <char*>cnp.PyArray_DATA(a), strides[0] // size, strides[1] // size, strides[2] // size, type_of(a), size
    )


cdef int set_order(Job* job) except -1:
    order = order_of(job.outer, job.channels, job.inner)
    job.columns, job.together, job.levels, job.pieces, job.chunks, job.span, job.spans = order
    return 0


cdef int set_epilogue(Job* job, activation, quantization) except -1:
    """An Activation, of which relu and relu6 are clips, and a Quantization; None for none."""
    if activation is not None:
        set_activation(job, activation[0], activation[1], activation[2])
    if quantization is not None:
        inverse, zero, lowest, highest = quantization
        job.quantizer = Quantizer(inverse, zero, lowest, highest)
    return 0


cdef void set_activation(Job* job, int code, double low, double high) noexcept:
    job.activation, job.low, job.high = code, low, high
    if code == RELU:
        job.activation, job.low, job.high = CLIP, 0.0, NAN
    elif code == RELU6:
        job.activation, job.low, job.high = CLIP, 0.0, 6.0


cdef bint is_like(const Strided* a, const Strided* x) noexcept nogil:
    return a.data is NULL or (a.inner == 1 and a.type == x.type)


cdef bint is_transposed(const Job* job) noexcept nogil:
    """Whether y runs in memory along other axes than x: it is of another layout."""
    if job.inner == 1:
        return job.channels > 1 and llabs(job.y.outer) < llabs(job.y.channel)
    return job.channels > 1 and llabs(job.y.inner) > llabs(job.y.channel)


cdef void describe_loops(Job* job) noexcept nogil:
    """What follows from the arrays and the task, whoever shares out the work."""
    job.plain = job.activation == 0 and job.residual.data is NULL and job.g.data is NULL
    job.plain = job.plain and job.prologue == NO_PROLOGUE and job.map != SCALE
    job.down = job.apply and not job.sums and job.inner == 1 and is_transposed(job)
    job.columns_apply = job.inner < 32 and not (job.apply and not job.sums and is_transposed(job))
    job.direct = not job.down and job.quantizer.inverse == 0 and job.x.type >= FLOAT32 and job.x.type <= BFLOAT16
    job.direct = job.direct and is_like(&job.x, &job.x) and is_like(&job.dy, &job.x) and is_like(&job.kept, &job.x)
    job.direct = job.direct and is_like(&job.residual, &job.x) and is_like(&job.g, &job.x)
    job.direct = job.direct and is_like(&job.y, &job.x) and (job.signs.data is NULL or job.signs.inner == 1)


cdef void share_transposed(Job* job) noexcept nogil:
    """Blocks of which all channels' samples stay in the first-level cache, so that it gathers the lines of x or of y."""
    cdef Py_ssize_t samples = max(<Py_ssize_t>32, TRANSPOSED_BYTES // (job.channels * max(job.x.size, job.y.size)))
    job.band, job.block, job.part = job.channels, 1, job.inner
    if job.down:
        job.block = min(samples, job.outer)
    else:
        job.part = min(samples, job.inner)


cdef void share_rows(Job* job, Py_ssize_t size, int threads) noexcept nogil:
    """Channel by channel, or a few short ones together."""
    cdef Py_ssize_t bytes = job.outer * job.inner * size
    job.whole = threads == 1 or job.channels >= 4 * threads
    job.group = max(<Py_ssize_t>1, min(<Py_ssize_t>64, SHORT_BYTES // bytes))
    job.group = max(<Py_ssize_t>1, min(job.group, job.channels // (4 * threads)))


cdef void share_columns(Job* job, Py_ssize_t size, size_t moved, int threads) noexcept nogil:
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


cdef void share_blocks(Job* job, int threads) noexcept nogil:
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


cdef void share(Job* job, int threads) noexcept nogil:
    cdef Py_ssize_t size = job.x.size * (2 if job.backward else 1)  # of what is read
    cdef size_t moved = job.channels * job.outer * job.inner * (size + (job.y.size if job.apply else 0))
    job.given = job.coefficients is not NULL
    describe_loops(job)
    job.whole = False
    if job.sums and job.columns:
        share_columns(job, size, moved, threads)
    elif job.sums:
        share_rows(job, size, threads)
    if job.sums:
        job.groups = (job.channels + job.group - 1) // job.group
    if job.apply:
        share_blocks(job, threads)
    job.far = moved > <size_t>(GROUP_BYTES * threads)
    job.past = job.apply and moved > CACHE and (job.inner < 32 or job.inner >= LONG)


cdef size_t aligned(size_t bytes) noexcept nogil:
    return (bytes + LINE - 1) // LINE * LINE


cdef size_t lay_workspace(Job* job, char* base, int threads) noexcept nogil:
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
    if job.apply and job.columns_apply and not job.prepared:
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


cdef void leave_workspace(Job* job) noexcept nogil:
    """The job may be run again, for another image, in a workspace of its own."""
    if not job.prepared:
        job.table = NULL
    if not job.given:
        job.coefficients = NULL


cdef enum Phase:
    WHOLE  # a group of channels from its sums to its output
    PIVOTS  # of a group
    SUMS  # of one span of one group
    CLOSE  # a group's spans to its results and coefficients
    APPLY  # a block of outer rows, of channels and of inner elements


cdef void finish_group(Job* job, Py_ssize_t c0, Py_ssize_t n, void* scratch) noexcept nogil:
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


cdef void unit(Job* job, Phase phase, Py_ssize_t u, int thread) noexcept nogil:
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


cdef void calm_unit(Job* job, Phase phase, Py_ssize_t u, int thread) noexcept nogil:
    cdef uint64_t before = cpubn_calm()
    unit(job, phase, u, thread)
    cpubn_restore(before)


cdef void share_out(Job* job, Phase phase, Py_ssize_t units, int threads) noexcept nogil:
    cdef Py_ssize_t u
    if threads == 1 or units == 1:  # a forked child may not enter OpenMP
        for u in range(units):
            unit(job, phase, u, 0)
    else:
        for u in prange(units, num_threads=threads, schedule="static"):
            calm_unit(job, phase, u, threadid())


cdef bint is_pending(const Job* job) noexcept nogil:
    cdef Py_ssize_t c
    for c in range(job.channels):
        if job.states[c] != ALL_DONE:
            return True
    return False


cdef void run(Job* job, int threads) noexcept nogil:
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


cdef int start(Job* job, int threads) except -1:
    """Share out the work and do it without the interpreter's lock."""
    cdef void* memory
    share(job, threads)
    memory = malloc(lay_workspace(job, NULL, threads))
    if memory is NULL:
        raise MemoryError("no memory for the statistics of a batch")
    lay_workspace(job, <char*>memory, threads)
    with nogil:
        run(job, threads)
    free(memory)
    leave_workspace(job)
    return 0


cdef bint run_small(Job* job) noexcept:
    """`start` for a little work, in this thread and with the lock; whether there was memory."""
    cdef char room[4096]
    cdef void* memory = room
    cdef size_t size
    share(job, 1)
    size = lay_workspace(job, NULL, 1)
    if size > sizeof(room):
        memory = malloc(size)
        if memory is NULL:
            return False
    lay_workspace(job, <char*>memory, 1)
    run(job, 1)
    if memory is not <void*>room:
        free(memory)
    leave_workspace(job)
    return True


cdef const double* vector_of(cnp.ndarray v, Py_ssize_t n) except NULL:
    if cnp.PyArray_TYPE(v) != cnp.NPY_FLOAT64 or cnp.PyArray_SIZE(v) < n or not cnp.PyArray_ISCARRAY_RO(v):
        raise ValueError("a vector must be a contiguous one of float64")
    return <const double*>cnp.PyArray_DATA(v)


cdef int set_statistics(Job* job, statistics) except -1:
    cdef Py_ssize_t n = job.channels
    mean, low, var, weight, eps, training = statistics
    job.mean, job.mean_low = vector_of(mean, n), vector_of(low, n)
    job.var, job.weight, job.eps = vector_of(var, n), vector_of(weight, n), eps
    job.map = GRADIENT if training else SCALE
    return 0


cdef int set_prologue(Job* job, prologue) except -1:
    activation, bias, residual, kept, signs, g = prologue
    if g is not None:
        job.g = strided(g)
    if signs is not None:
        bits, strides, slope = signs
        job.prologue, job.low = BY_SIGNS, slope
        job.signs = Strided(<char*>cnp.PyArray_DATA(<cnp.ndarray>bits), strides[0], strides[1], strides[2], UINT8, 0)
    elif activation is not None:
        set_activation(job, activation[0], activation[1], activation[2])
        job.prologue = BY_Z if kept is None else BY_OUTPUT
        if kept is not None:
            job.kept = strided(kept)
        else:
            job.bias = vector_of(bias, job.channels)
            if residual is not None:
                job.residual = strided(residual)
    return 0


cdef class CompiledKernels:
    """The kernels of one instruction set: the functions that every backend has, for samples of any type."""

    ANY_TYPE = True

    def __cinit__(self, table, str name):
        self.capsule, self.name = table, name
        self.kernels = <const Kernels*>PyCapsule_GetPointer(table, "cpubn.Kernels")

    @property
    def __name__(self):
        return f"cpubn.backends.compiled.{self.name}"

    def __repr__(self):
        return f"<{self.__name__}>"

    cdef Job new_job(self, cnp.ndarray x, cnp.ndarray y):
        """A job over x (O, C, I) and y of its shape; its order of summation, and no task yet."""
        cdef Job job
        cdef cnp.npy_intp* shape = cnp.PyArray_DIMS(x)
        memset(&job, 0, sizeof(job))
        job.kernels = self.kernels
        job.x, job.y = strided(x), strided(y)
        job.outer, job.channels, job.inner = shape[0], shape[1], shape[2]
        set_order(&job)
        return job

    def moments(self, cnp.ndarray x not None, cnp.ndarray stats not None, int threads):
        """mean = sum(x) / n and m2 = sum((x - mean)**2) per channel.

        x (O, C, I) of any type of samples, as all samples here; stats (3, C) float64 <- mean, its low word, m2.
        About one pivot a channel: partial sums then merge by addition, and no digit is lost to a large mean.
        Moves x once.
        """
        cdef Job job = self.new_job(x, x)
        job.sums = True
        job.result = <double*>cnp.PyArray_DATA(stats)
        start(&job, threads)

    def normalize(
        self, cnp.ndarray x not None, cnp.ndarray affine not None, epilogue, cnp.ndarray y not None, int threads
    ):
        """y = epilogue((x - centre) * scale + shift).

        x, y (O, C, I); affine (3, C) float64: centre, scale, shift; y may be x or the epilogue's residual.
        The centre is taken off first: `x * scale + (shift - centre * scale)` loses digits as the mean grows.
        Moves x, the residual and y once.
        """
        cdef Job job = self.new_job(x, y)
        job.apply, job.spans = True, 0
        job.coefficients = <double*>vector_of(affine, 3 * job.channels)
        activation, residual, quantization = epilogue
        set_epilogue(&job, activation, quantization)
        if residual is not None:
            job.residual = strided(residual)
        start(&job, threads)

    def train_forward(
        self, cnp.ndarray x not None, cnp.ndarray weight not None, cnp.ndarray bias not None, double eps,
        cnp.ndarray stats not None, epilogue, cnp.ndarray y not None, int threads
    ):
        """y = epilogue((x - mean) / sqrt(var + eps) * weight + bias) with the batch's own mean and biased variance.

        x, y (O, C, I); weight, bias (C,) float64; stats (3, C) float64 <- mean, its low word, m2; y may be x or the residual.
        A group of channels is finished while it is in cache: two sweeps over the whole tensor would read it twice.
        Moves x, the residual and y once where a group fits in cache, otherwise x twice.
        """
        cdef Job job = self.new_job(x, y)
        job.sums = job.apply = True
        job.weight, job.bias = vector_of(weight, job.channels), vector_of(bias, job.channels)
        job.eps = eps
        job.result = <double*>cnp.PyArray_DATA(stats)
        activation, residual, quantization = epilogue
        set_epilogue(&job, activation, quantization)
        if residual is not None:
            job.residual = strided(residual)
        start(&job, threads)

    def gradient_sums(
        self, cnp.ndarray dy not None, cnp.ndarray x not None, statistics, prologue, cnp.ndarray sums not None, int threads
    ):
        """s0 = sum(g), s1 = sum(g * (x - mean)) per channel, g being dy through the prologue.

        dy, x (O, C, I); sums (2, C) float64 <- s0, s1.
        x - centre is taken in the data's type, where it is exact for a large mean; the rest of the mean is paid back.
        Moves dy and x, and what the prologue reads, once.
        """
        cdef Job job = self.new_job(x, x)
        job.dy, job.backward, job.sums = strided(dy), True, True
        job.result = <double*>cnp.PyArray_DATA(sums)
        set_statistics(&job, statistics)
        set_prologue(&job, prologue)
        job.g.data = NULL
        start(&job, threads)

    def backward(
        self, cnp.ndarray dy not None, cnp.ndarray x not None, statistics, prologue, cnp.ndarray sums not None,
        cnp.ndarray dx not None, int threads
    ):
        """dx = scale * ((g - k) - ((x - centre) * r) * s) with the coefficients of _algebra.gradient; g * scale in inference.

        dy, x, dx (O, C, I); sums (2, C) float64 <- as `gradient_sums`; dx may be dy or x.
        Not `a * g + b * (x - centre) + k`: where g follows x that loses half its digits at mean/std = 1e6.
        Moves dy, x, what the prologue reads, and dx once where a group fits in cache, otherwise what is read twice.
        """
        cdef Job job = self.new_job(x, dx)
        job.dy, job.backward, job.sums, job.apply = strided(dy), True, True, True
        job.result = <double*>cnp.PyArray_DATA(sums)
        set_statistics(&job, statistics)
        set_prologue(&job, prologue)
        start(&job, threads)

    def pack_signs(
        self, cnp.ndarray y not None, double low, double high, bint nan, cnp.ndarray bits not None, int threads
    ):
        """bits[j] = not (y[j] <= low or y[j] >= high); of NaN, `nan`. A bound of NaN is none.

        y (n,) of a floating type; bits (ceil(n / 8) + 8,) uint8, the first element in the lowest bit, the last 8 left alone.
        Moves y once.
        """
        cdef Bounds bounds = Bounds(low, high, nan)
        cdef signs_function pack = self.kernels.loops[loops_of(type_of(y))].pack_signs
        cdef const char* data = <const char*>cnp.PyArray_DATA(y)
        cdef uint8_t* to = <uint8_t*>cnp.PyArray_DATA(bits)
        cdef Py_ssize_t n = cnp.PyArray_SIZE(y), size = cnp.PyArray_ITEMSIZE(y), units = (n + SIGNS - 1) // SIGNS, u
        with nogil:
            if threads == 1 or units == 1:
                pack(data, n, &bounds, to)
            else:
                for u in prange(units, num_threads=threads, schedule="static"):
                    pack(data + u * SIGNS * size, min(n - u * SIGNS, <Py_ssize_t>SIGNS), &bounds, to + u * (SIGNS // 8))


def openmp_max_threads():
    """What OpenMP would use by itself; 0 where the extension was built without it."""
    return cpubn_openmp_max_threads()


def cpu_features():
    """The instruction sets of _isa.py, beyond the baseline, that this CPU and its operating system have."""
    return frozenset(name for name, has in (("avx2", cpubn_has_avx2()), ("avx512", cpubn_has_avx512())) if has)
