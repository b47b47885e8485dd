"""Jobs for the kernels: what NumPy's arrays say becomes a job, whose work is shared out among threads and begun."""

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetPointer
from cython.parallel cimport prange
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.machine cimport (
    cpubn_calm, cpubn_has_avx2, cpubn_has_avx512, cpubn_openmp_max_threads, cpubn_restore,
)
from cpubn.backends.compiled.order cimport set_order
from cpubn.backends.compiled.passes cimport *
from cpubn.backends.compiled.phases cimport calm_pack, lay_workspace, run
from cpubn.backends.compiled.sharing cimport share

from numbers import Real

from numpy import memmap

from cpubn.backends import overlap

cnp.import_array()

cdef enum:
    SIGNS = 65536  # elements of a unit of packing, a multiple of 32

# The number that NumPy gave to ml_dtypes' bfloat16, once one was seen.
cdef int BFLOAT16_NUMBER = -1


cdef Type type_of(cnp.ndarray a) noexcept:
    """The type of an array's elements, OTHER where kernels have none such."""
    return type_of_number(cnp.PyArray_TYPE(a), a)


cdef Type type_of_number(int number, a) noexcept:
    """The same by NumPy's number of a type; `a` has it, or is the dtype."""
    global BFLOAT16_NUMBER
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
    if number != BFLOAT16_NUMBER:
        if number < 256 or (a.dtype if isinstance(a, cnp.ndarray) else a).name != "bfloat16":  # NPY_USERDEF
            return OTHER
        BFLOAT16_NUMBER = number
    return BFLOAT16


cdef int number_of(Type type) noexcept:
    """NumPy's number of a floating type of samples."""
    if type == FLOAT32:
        return cnp.NPY_FLOAT32
    if type == FLOAT64:
        return cnp.NPY_FLOAT64
    return cnp.NPY_FLOAT16 if type == FLOAT16 else BFLOAT16_NUMBER


cdef bint is_memmap(a) noexcept:
    return type(a) is memmap


cdef bint is_real(value):
    return type(value) is not bool and isinstance(value, Real)


cdef bint share_memory(a, b):
    """Whether two arrays do whose memory lies in one another's."""
    return overlap.overlap(a, b)


cdef bint overlaps_itself(a):
    return overlap.overlaps_itself(a)


cdef int set_epilogue(Job* job, activation, quantization) except -1:
    """An Activation and a Quantization; None for none."""
    if activation is not None:
        set_activation(job, activation, False)
    if quantization is not None:
        inverse, zero, lowest, highest = quantization
        job.quantizer = Quantizer(inverse, zero, lowest, highest)
    return 0


cdef int set_activation(Job* job, activation, bint by_output) except -1:
    job.activation = job.kernels.formula_of(activation[0], by_output)
    job.low, job.high = activation[1], activation[2]
    if job.activation == 0:
        raise ValueError(
            f"activation must be one that the compiled kernels have{', of its output' * by_output}, got {activation!r}; "
            "another backend may have it"
        )
    return 0


cdef bint work(Job* job, int threads) noexcept nogil:
    """Share out a job's work and do it; whether there was memory for that."""
    cdef char room[4096]
    cdef void* memory = room
    cdef size_t size
    share(job, threads)
    size = lay_workspace(job, NULL, threads)
    if size > sizeof(room):
        memory = malloc(size)
    if memory is NULL:
        return False
    lay_workspace(job, <char*>memory, threads)
    run(job, threads)
    if memory is not <void*>room:
        free(memory)
    return True


cdef int run_job(Job* job, int threads) except -1:
    """The same without the interpreter's lock; a little of it in this thread, with it."""
    cdef bint done
    if threads == 1 and job.outer * job.channels * job.inner * size_of(job.x.type) <= SMALL_BYTES:
        done = work(job, 1)
    else:
        with nogil:
            done = work(job, threads)
    if not done:
        raise MemoryError("no memory for the statistics of a batch")
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

    cdef Job new_job(self, cnp.ndarray x, cnp.ndarray y, weights):
        """A job over x (O, C, I), y and weights of its shape; its order of summation, and no task yet."""
        cdef Job job
        cdef cnp.npy_intp* shape = cnp.PyArray_DIMS(x)
        memset(&job, 0, sizeof(job))
        job.kernels = self.kernels
        job.x, job.y = strided(x), strided(y)
        job.outer, job.channels, job.inner = shape[0], shape[1], shape[2]
        set_weights(&job, weights)
        set_order(&job)
        return job

    def moments(self, cnp.ndarray x not None, cnp.ndarray stats not None, int threads, weights=None):
        """mean = sum(x) / n and m2 = sum((x - mean)**2) per channel.

        x (O, C, I) of any type of samples, as all samples here; stats (3, C) float64 <- mean, its low word, m2.
        About one pivot a channel: partial sums then merge by addition, and no digit is lost to a large mean.
        Moves x once.
        """
        cdef Job job = self.new_job(x, x, weights)
        job.sums, job.result = True, <double*>cnp.PyArray_DATA(stats)
        run_job(&job, threads)

    def normalize(
        self, cnp.ndarray x not None, cnp.ndarray affine not None, epilogue, cnp.ndarray y not None, int threads, weights=None
    ):
        """y = epilogue((x - centre) * scale + shift).

        x, y (O, C, I); affine (3, C) float64: centre, scale, shift; y may be x or the epilogue's residual.
        The centre is taken off first: `x * scale + (shift - centre * scale)` loses digits as the mean grows.
        Moves x, the residual and y once.
        """
        cdef Job job = self.new_job(x, y, weights)
        job.apply, job.spans = True, 0
        job.coefficients = <double*>vector_of(affine, 3 * job.channels)
        activation, residual, quantization = epilogue
        set_epilogue(&job, activation, quantization)
        if residual is not None:
            job.residual = strided(residual)
        run_job(&job, threads)

    def train_forward(
        self, cnp.ndarray x not None, cnp.ndarray weight not None, cnp.ndarray bias not None, double eps,
        cnp.ndarray stats not None, epilogue, cnp.ndarray y not None, int threads, weights=None
    ):
        """y = epilogue((x - mean) / sqrt(var + eps) * weight + bias) with the batch's own mean and biased variance.

        x, y (O, C, I); weight, bias (C,) float64; stats (3, C) float64 <- mean, its low word, m2; y may be x or the residual.
        A group of channels is finished while it is in cache: two sweeps over the whole tensor would read it twice.
        Moves x, the residual and y once where a group fits in cache, otherwise x twice.
        """
        cdef Job job = self.new_job(x, y, weights)
        job.sums = job.apply = True
        job.weight, job.bias, job.eps = vector_of(weight, job.channels), vector_of(bias, job.channels), eps
        job.result = <double*>cnp.PyArray_DATA(stats)
        activation, residual, quantization = epilogue
        set_epilogue(&job, activation, quantization)
        if residual is not None:
            job.residual = strided(residual)
        run_job(&job, threads)

    def gradient_sums(
        self, cnp.ndarray dy not None, cnp.ndarray x not None, statistics, prologue, cnp.ndarray sums not None,
        int threads, weights=None,
    ):
        """s0 = sum(g), s1 = sum(g * (x - mean)) per channel, g being dy through the prologue.

        dy, x (O, C, I); sums (2, C) float64 <- s0, s1.
        x - centre is taken in the data's type, where it is exact for a large mean; the rest of the mean is paid back.
        Moves dy and x, and what the prologue reads, once.
        """
        cdef Job job = self.new_job(x, x, weights)
        job.dy, job.backward, job.sums, job.result = strided(dy), True, True, <double*>cnp.PyArray_DATA(sums)
        set_statistics(&job, statistics)
        set_prologue(&job, prologue)
        job.g.data = NULL
        run_job(&job, threads)

    def backward(
        self, cnp.ndarray dy not None, cnp.ndarray x not None, statistics, prologue, cnp.ndarray sums not None,
        cnp.ndarray dx not None, int threads, weights=None
    ):
        """dx = scale * ((g - k) - ((x - centre) * r) * s) with the coefficients of algebra.gradient; g * scale in inference.

        dy, x, dx (O, C, I); sums (2, C) float64 <- as `gradient_sums`, or given with their counts; dx may be dy or x.
        Not `a * g + b * (x - centre) + k`: where g follows x that loses half its digits at mean/std = 1e6.
        Moves dy, x, what the prologue reads, and dx once where a group fits in cache, otherwise what is read twice.
        """
        cdef Job job = self.new_job(x, dx, weights)
        job.dy, job.backward, job.apply = strided(dy), True, True
        job.result = <double*>vector_of(sums, 2 * job.channels)
        set_statistics(&job, statistics)
        job.sums = statistics.counts is None
        job.spans = job.spans if job.sums else 0
        set_prologue(&job, prologue)
        run_job(&job, threads)

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
        cdef Py_ssize_t n = cnp.PyArray_SIZE(y), step = SIGNS * cnp.PyArray_ITEMSIZE(y), units = (n + SIGNS - 1) // SIGNS, u
        with nogil:
            if threads == 1 or units == 1:
                calm_pack(pack, data, n, &bounds, to)
            else:
                for u in prange(units, num_threads=threads, schedule="static"):
                    calm_pack(pack, data + u * step, min(n - u * SIGNS, <Py_ssize_t>SIGNS), &bounds, to + u * (SIGNS // 8))


def openmp_max_threads():
    """What OpenMP would use by itself; 0 where the extension was built without it."""
    return cpubn_openmp_max_threads()


def cpu_features():
    """The instruction sets of isa.py, beyond the baseline, that this CPU and its operating system have."""
    return frozenset(name for name, has in (("avx2", cpubn_has_avx2()), ("avx512", cpubn_has_avx512())) if has)


def calm():
    """Set this thread's control register to rounding to nearest, with denormal numbers as such; return what it was."""
    return cpubn_calm()


def restore(uint64_t before):
    """Set the control register to what `calm` returned."""
    cpubn_restore(before)


def order_of(Py_ssize_t outer, Py_ssize_t channels, Py_ssize_t inner):
    """The order of summation of a walk of that shape, as maths/order.py has it."""
    cdef Job job
    job.outer, job.channels, job.inner, job.weights.data = outer, channels, inner, <char*>NULL
    set_order(&job)
    return bool(job.columns), job.together, job.levels, job.pieces, job.chunks, job.span, job.spans
