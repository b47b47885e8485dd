"""The path of contiguous arrays: no plan, and no Python object but the results. It took 30 us off a call.

Each method answers None, with nothing written, for whatever it does not take at once; the caller's plan then speaks.
`threads` is a function of the bytes that a call reads.
"""

cimport numpy as cnp
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from cpubn.backends.compiled.arrays cimport *
from cpubn.backends.compiled.calls cimport *
from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.phases cimport lay_workspace
from cpubn.backends.compiled.planner cimport CompiledKernels, set_epilogue, type_of

cnp.import_array()


def calm():
    """Set this thread's control register to rounding to nearest, with denormal numbers as such; return what it was."""
    return cpubn_calm()


def restore(uint64_t before):
    """Set the control register to what `calm` returned."""
    cpubn_restore(before)


cdef class DirectKernels(CompiledKernels):
    """The kernels of one instruction set, and the short ways to them."""

    def affine(
        self, cnp.ndarray narrow not None, cnp.ndarray wide not None, activation, quantization, dtype, layout, out_layout,
        threads
    ):
        """A function (x, residual, out) of coefficients (3, C) float64 for float32 and for float64 computation."""
        return DirectAffine(self, narrow, wide, activation, quantization, dtype, layout, out_layout, threads)

    def infer_directly(
        self, x, running_mean, running_var, weight, bias, momentum, eps, layout, activation, residual, dtype, out_layout,
        out, threads
    ):
        """y = activation((x - running_mean) / sqrt(running_var + eps) * weight + bias + residual)."""
        cdef Job job
        cdef cnp.ndarray vectors
        cdef double* v
        cdef Py_ssize_t n
        cdef int last = channels_last(layout), out_last = last if out_layout is None else channels_last(out_layout)
        if not (
            describe(self, &job, x, last) and out_last >= 0 and is_number(eps, 0.0, 1e308)
            and is_number(momentum, 0.0, 1.0)
        ):
            return None
        n = job.channels
        vectors = new_vectors(4, n)
        v = <double*>cnp.PyArray_DATA(vectors)
        if not (
            read_vector(self.kernels, running_mean, n, v) and read_vector(self.kernels, running_var, n, v + n)
            and read_optional(self.kernels, weight, n, 1.0, v + 2 * n)
            and read_optional(self.kernels, bias, n, 0.0, v + 3 * n)
            and (out is None or apart(out, (running_mean, running_var, weight, bias))) and divides(v + n, n, eps)
        ):
            return None
        job.mean, job.var, job.weight, job.bias, job.eps = v, v + n, v + 2 * n, v + 3 * n, eps
        return infer(&job, x, last, activation, residual, dtype, out_last, out, threads)

    def train_directly(
        self, x, running_mean, running_var, weight, bias, momentum, eps, layout, activation, residual, out, tracked,
        threads
    ):
        """y and the batch's stats (3, C); running statistics move, and tracked with them: no interrupt comes between."""
        cdef Job job
        cdef cnp.ndarray vectors, stats
        cdef double* v
        cdef double* s
        cdef double count
        cdef Py_ssize_t n
        cdef uint64_t before
        if not (
            is_sample(x) and describe(self, &job, x, channels_last(layout))
            and is_number(eps, 5e-324, 1e308) and is_number(momentum, 0.0, 1.0)
            and set_direct_epilogue(&job, x, activation, residual, out)
        ):
            return None
        n = job.channels
        count = <double>(job.outer * job.inner)
        vectors, stats = new_vectors(4, n), new_vectors(3, n)
        v, s = <double*>cnp.PyArray_DATA(vectors), <double*>cnp.PyArray_DATA(stats)
        if not (
            count > 1.0
            and read_optional(self.kernels, weight, n, 1.0, v) and read_optional(self.kernels, bias, n, 0.0, v + n)
            and (running_mean is None) == (running_var is None)
            and (out is None or apart(out, (running_mean, running_var, weight, bias)))
        ):
            return None
        if running_mean is not None and not (
            read_vector(self.kernels, running_mean, n, v + 2 * n)
            and read_vector(self.kernels, running_var, n, v + 3 * n)
            and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>running_mean) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>running_var)
            and apart(running_mean, (x, residual, weight, bias, running_var))
            and apart(running_var, (x, residual, weight, bias))
        ):
            return None
        y = output_for(x, x, out)
        if y is None:
            return None
        job.sums = True
        job.weight, job.bias, job.eps, job.result = v, v + n, eps, s
        run_direct(&job, x, y, threads)
        if running_mean is not None:
            before = cpubn_calm()
            self.kernels.move_running(v + 2 * n, s, n, count, momentum)
            write_vector(self.kernels, running_mean, n, v + 2 * n)
            write_vector(self.kernels, running_var, n, v + 3 * n)
            cpubn_restore(before)
            if tracked is not None:
                (<int64_t*>cnp.PyArray_DATA(<cnp.ndarray>tracked))[0] += 1
        return y, stats

    def witness(self, x, output, residual):
        return witness_of(x, output, residual)

    def backward_directly(self, dy, x, mean, low, var, weight, eps, bint training, layout, out, threads):
        """dx, dweight and dbias, by backward."""
        cdef Job job
        cdef cnp.ndarray vectors, sums
        cdef double* v
        cdef double* s
        cdef Py_ssize_t n
        cdef uint64_t before
        if not (
            is_sample(x) and describe(self, &job, x, channels_last(layout))
            and is_number(eps, 5e-324 if training else 0.0, 1e308) and is_like(dy, x)
        ):
            return None
        n = job.channels
        vectors, sums = new_vectors(4, n), new_vectors(2, n)
        v, s = <double*>cnp.PyArray_DATA(vectors), <double*>cnp.PyArray_DATA(sums)
        if not (
            read_vector(self.kernels, mean, n, v) and read_optional(self.kernels, low, n, 0.0, v + n)
            and read_vector(self.kernels, var, n, v + 2 * n) and read_optional(self.kernels, weight, n, 1.0, v + 3 * n)
            and (not training or job.outer * job.inner > 1) and divides(v + 2 * n, n, eps)
            and (out is None or apart(out, (mean, low, var, weight)))
        ):
            return None
        dx = output_for(dy, x, out)
        if dx is None:
            return None
        if not training:
            memset(v + n, 0, n * sizeof(double))
        job.backward = job.sums = True
        job.map = GRADIENT if training else SCALE
        job.mean, job.mean_low, job.var, job.weight, job.eps, job.result = v, v + n, v + 2 * n, v + 3 * n, eps, s
        job.dy = contiguous(&job, dy)
        run_direct(&job, x, dx, threads)
        before = cpubn_calm()
        self.kernels.scale_by_rstd(s + n, v + 2 * n, n, job.eps)
        cpubn_restore(before)
        return dx, sums[1], sums[0]

    def moments_directly(self, x, layout, threads):
        """stats (3, C), by moments."""
        cdef Job job
        cdef cnp.ndarray stats
        if not describe(self, &job, x, channels_last(layout)):
            return None
        stats = new_vectors(3, job.channels)
        job.sums, job.apply = True, False
        job.result = <double*>cnp.PyArray_DATA(stats)
        run_direct(&job, x, x, threads)
        return stats


cdef class DirectAffine:
    """y = activation((x - centre) * scale + shift + residual), of a dtype and layout that may be others than x's."""

    cdef DirectKernels kernels
    cdef cnp.ndarray narrow, wide
    cdef Job[2] prepared  # for columns of float32 and of float64, in memory of `room`
    cdef list room
    cdef object activation, quantization, dtype, threads
    cdef int last, out_last

    def __cinit__(
        self, DirectKernels kernels, cnp.ndarray narrow not None, cnp.ndarray wide not None, activation, quantization,
        dtype, layout, out_layout, threads
    ):
        for a in (narrow, wide):
            if a.dtype != float or a.ndim != 2 or len(a) != 3 or not a.flags.c_contiguous:
                raise ValueError("coefficients must be contiguous (3, C) arrays of float64")
        self.kernels, self.narrow, self.wide, self.activation = kernels, narrow, wide, activation
        self.quantization, self.dtype, self.threads = quantization, dtype, threads
        self.last, self.out_last = channels_last(layout), channels_last(out_layout)
        self.room = [self.prepare(&self.prepared[0], narrow, FLOAT32), self.prepare(&self.prepared[1], wide, FLOAT64)]

    cdef cnp.ndarray prepare(self, Job* job, cnp.ndarray coefficients, Type type):
        """Memory of a table of the coefficients, for columns of one element each.

        Made anew by each call, it went from one core to the other: (49, 2048) took 20 us so, and 10 with one that stays.
        """
        cdef cnp.npy_intp[1] size
        cdef cnp.ndarray room
        memset(job, 0, sizeof(Job))
        job.kernels, job.x.type = self.kernels.kernels, type
        job.outer = job.inner = 1
        job.channels = cnp.PyArray_DIMS(coefficients)[1]
        job.coefficients = <double*>cnp.PyArray_DATA(coefficients)
        job.given = job.apply = job.columns_apply = True
        size[0] = <cnp.npy_intp>lay_workspace(job, NULL, 1)
        room = cnp.PyArray_EMPTY(1, size, cnp.NPY_UINT8, 0)
        lay_workspace(job, <char*>cnp.PyArray_DATA(room), 1)
        job.kernels.prepare(job, 0, job.channels)
        return room

    def __call__(self, x, residual=None, out=None):
        cdef Job job
        cdef const Job* prepared
        if not describe(self.kernels, &job, x, self.last) or job.channels != cnp.PyArray_DIMS(self.narrow)[1]:
            return None
        if self.quantization is not None:
            set_epilogue(&job, None, self.quantization)
        prepared = &self.prepared[1 if job.x.type == FLOAT64 else 0]
        job.coefficients = prepared.coefficients
        if job.inner == 1:
            job.prepared = True
            job.table, job.wide, job.period, job.length = prepared.table, prepared.wide, prepared.period, prepared.length
        return infer(&job, x, self.last, self.activation, residual, self.dtype, self.out_last, out, self.threads)


cdef object infer(Job* job, x, int last, activation, residual, dtype, int out_last, out, threads):
    """y by the coefficients of a job that describes x, or None."""
    if dtype is not None or (out_last != last and cnp.PyArray_NDIM(<cnp.ndarray>x) > 2):
        if residual is not None or not set_direct_epilogue(job, x, activation, None, out):
            return None
        return infer_in_another_form(job, x, dtype, last, out_last, out, threads)
    if job.x.type >= UINT8 or not set_direct_epilogue(job, x, activation, residual, out):
        return None
    made = output_for(x, x, out)
    if made is not None:
        run_direct(job, x, made, threads)
    return made


cdef object infer_in_another_form(Job* job, x, dtype, int last, int out_last, out, threads):
    """y of another type than x, or of another layout: image by image, each of which is one walk then."""
    cdef cnp.npy_intp[5] shape
    cdef int rank = cnp.PyArray_NDIM(<cnp.ndarray>x), number = cnp.PyArray_TYPE(<cnp.ndarray>x), i
    cdef cnp.ndarray y
    cdef Py_ssize_t image, count
    if dtype is not None:
        number = (<cnp.dtype>dtype).type_num
    if (number == cnp.NPY_FLOAT64) != (job.x.type == FLOAT64) or (job.x.type >= UINT8 and dtype is None):
        return None
    if job.quantizer.inverse != 0 and number != cnp.PyArray_TYPE(<cnp.ndarray>x):
        return None
    for i in range(rank):
        shape[i] = cnp.PyArray_DIMS(<cnp.ndarray>x)[i]
    if out_last and not last:
        for i in range(1, rank - 1):
            shape[i] = cnp.PyArray_DIMS(<cnp.ndarray>x)[i + 1]
        shape[rank - 1] = job.channels
    elif last and not out_last:
        for i in range(2, rank):
            shape[i] = cnp.PyArray_DIMS(<cnp.ndarray>x)[i - 1]
        shape[1] = job.channels
    if out is None:
        y = cnp.PyArray_EMPTY(rank, shape, number, 0)
    else:
        if not is_contiguous(out) or cnp.PyArray_TYPE(<cnp.ndarray>out) != number or overlap(out, x):
            return None
        if not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out) or cnp.PyArray_NDIM(<cnp.ndarray>out) != rank:
            return None
        for i in range(rank):
            if cnp.PyArray_DIMS(<cnp.ndarray>out)[i] != shape[i]:
                return None
        y = out
    job.x, job.y = contiguous(job, x), contiguous(job, y)
    job.y.type, job.y.size = type_of(y), cnp.PyArray_ITEMSIZE(y)
    if rank == 2 or out_last == last or job.channels == 1:
        run_described(job, threads(cnp.PyArray_NBYTES(<cnp.ndarray>x)))
        return y
    image = cnp.PyArray_SIZE(x) // shape[0]
    count = threads(cnp.PyArray_NBYTES(<cnp.ndarray>x) // shape[0])
    job.outer = job.outer // shape[0] if last else 1
    if last:
        job.y.outer, job.y.channel = 1, job.outer
    else:
        job.y.inner, job.y.channel = job.channels, 1
    for i in range(shape[0]):
        run_described(job, count)
        job.x.data += image * job.x.size
        job.y.data += image * job.y.size
    return y
