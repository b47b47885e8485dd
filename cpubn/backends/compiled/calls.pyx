"""Calls: arrays of any strides, types and forms become the job of a pass, without a plan in Python and without copies.

Each method answers None, with nothing written, for what is wrong or no array; the plans of Python then say why, or make
arrays of it. No Python object is touched while kernels run.
"""

cimport numpy as cnp
from libc.float cimport DBL_MAX
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from cpubn.backends.compiled.arrays cimport *
from cpubn.backends.compiled.begin cimport *
from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.machine cimport cpubn_calm, cpubn_restore
from cpubn.backends.compiled.phases cimport lay_workspace
from cpubn.backends.compiled.planner cimport CompiledKernels, number_of, set_epilogue
from cpubn.backends.compiled.vectors cimport *

from numpy import array as copy_of

from cpubn.backends.signs import Signs

cnp.import_array()


cdef class Calls:
    """The calls of the functions and layers, for the kernels of one instruction set.

    threads: a function of the bytes that a call reads.
    """

    cdef object of, threads
    cdef const Kernels* kernels

    def __cinit__(self, CompiledKernels of not None, threads):
        self.of, self.threads, self.kernels = of, threads, of.kernels

    def affine(self, tuple coefficients not None, tuple how not None):
        """A function (x, residual, out) of coefficients (3, C) float64 for float32 and for float64 computation.

        how: activation, quantization, dtype, layout, out_layout.
        """
        return Affine(self, coefficients, how)

    def infer(self, x, tuple vectors not None, tuple how not None):
        """y = activation((x - running_mean) / sqrt(running_var + eps) * weight + bias + residual).

        vectors and how: as ask.forward.forward_through has them.
        """
        cdef Job job
        cdef Call call
        cdef cnp.ndarray room
        cdef double* v
        cdef double eps, share
        cdef Py_ssize_t n
        running_mean, running_var, weight, bias, _ = vectors
        momentum, given_eps, layout, activation, weights, residual, dtype, out_layout, out = how
        if not (
            read_number(given_eps, 0.0, DBL_MAX, &eps) and read_number(momentum, 0.0, 1.0, &share)
            and begin(&job, &call, x, layout, out_layout, False) and read_weights(&job, &call, weights)
        ):
            return None
        n = job.channels
        room = new_vectors(4, n)
        v = <double*>cnp.PyArray_DATA(room)
        if not (
            read_vector(self.kernels, running_mean, n, v) and read_vector(self.kernels, running_var, n, v + n)
            and read_optional(self.kernels, weight, n, 1.0, v + 2 * n)
            and read_optional(self.kernels, bias, n, 0.0, v + 3 * n)
            and divides(v + n, n, eps)
        ):
            return None
        job.kernels = self.kernels
        job.mean, job.var, job.weight, job.bias, job.eps = v, v + n, v + 2 * n, v + 3 * n, eps
        set_epilogue(&job, activation, None)
        y = target(&call, x, residual, dtype, out, vectors)
        if y is not None:
            finish(&job, &call, x, self.threads)
        return y

    def train(self, x, tuple vectors not None, tuple how not None):
        """y, the values per channel and the batch's stats (3, C); running statistics move, and the count of batches.

        No interrupt comes between what moves. vectors and how: as ask.forward.forward_through has them.
        """
        cdef Job job
        cdef Call call
        cdef cnp.ndarray room, stats
        cdef double* v
        cdef double* s
        cdef double eps, share
        cdef Py_ssize_t n, count
        cdef uint64_t before
        running_mean, running_var, weight, bias, tracked = vectors
        momentum, given_eps, layout, activation, weights, residual, dtype, out_layout, out = how
        if not (
            read_number(given_eps, LEAST, DBL_MAX, &eps) and read_number(momentum, 0.0, 1.0, &share)
            and begin(&job, &call, x, layout, out_layout, True) and read_weights(&job, &call, weights)
        ):
            return None
        n, count = job.channels, samples_of(&call)
        room, stats = new_vectors(4, n), new_vectors(3, n)
        v, s = <double*>cnp.PyArray_DATA(room), <double*>cnp.PyArray_DATA(stats)
        if not (
            read_optional(self.kernels, weight, n, 1.0, v) and read_optional(self.kernels, bias, n, 0.0, v + n)
            and (count > 1 or cnp.PyArray_SIZE(x) == 0 or weights is not None)
            and (running_mean is None) == (running_var is None)
        ):
            return None
        if running_mean is not None and not (
            is_pair((running_mean, running_var), n)
            and apart(running_mean, (x, residual, weight, bias)) and apart(running_var, (x, residual, weight, bias))
        ):
            return None
        y = target(&call, x, residual, dtype, out, vectors)
        if y is None:
            return None
        job.kernels, job.sums = self.kernels, True
        job.weight, job.bias, job.eps, job.result = v, v + n, eps, s
        set_epilogue(&job, activation, None)
        if cnp.PyArray_SIZE(x) == 0:
            memset(s, 0, 3 * n * sizeof(double))
            return y, count_told(count, weights), stats
        finish(&job, &call, x, self.threads)
        if running_mean is not None:
            must_have_stayed((running_mean, running_var), n)
            # Read as late as this, so that of two threads' calls neither is lost.
            read_vector(self.kernels, running_mean, n, v + 2 * n)
            read_vector(self.kernels, running_var, n, v + 3 * n)
            before = cpubn_calm()
            self.kernels.move_running(v + 2 * n, s, n, <double>count, job.counts, share)
            write_vector(self.kernels, running_mean, n, v + 2 * n)
            write_vector(self.kernels, running_var, n, v + 3 * n)
            cpubn_restore(before)
            if tracked is not None:
                (<int64_t*>cnp.PyArray_DATA(<cnp.ndarray>tracked))[0] += 1
        return y, count_told(count, weights), stats

    def moments(self, x, layout, weights=None):
        """Values per channel, and stats (3, C)."""
        cdef Job job
        cdef Call call
        cdef cnp.ndarray stats
        if not (begin(&job, &call, x, layout, None, False) and read_weights(&job, &call, weights)):
            return None
        stats = new_vectors(3, job.channels)
        memset(cnp.PyArray_DATA(stats), 0, cnp.PyArray_NBYTES(stats))
        call.arrays[OF_Y] = call.arrays[OF_X]
        job.kernels, job.sums, job.apply = self.kernels, True, False
        job.result = <double*>cnp.PyArray_DATA(stats)
        finish(&job, &call, x, self.threads)
        return count_told(samples_of(&call), weights), stats

    def witness(self, tuple arrays not None):
        return witness_of(arrays)

    def backward(self, asked):
        """dx, dweight, dbias and, where it is wanted, g; asked: a Request."""
        cdef Job job
        cdef Call call
        cdef cnp.ndarray room, sums
        cdef double* v
        cdef double* s
        cdef double eps
        cdef Py_ssize_t n
        cdef uint64_t before
        cdef bint training
        cdef const Samples* like = &call.arrays[OF_X]
        dy, x, statistics, weight, bias, given_eps, training, layout = asked[:8]
        activation, residual, kept, wants_g, out, totals, _, weights = asked[8:]
        mean, low, m2, count = statistics
        if not (
            read_number(given_eps, LEAST if training else 0.0, DBL_MAX, &eps) and begin(&job, &call, x, layout, None, True)
            and read_like(dy, like, like.type, &call.arrays[OF_DY]) and read_weights(&job, &call, weights)
        ):
            return None
        n, job.kernels = job.channels, self.kernels
        room, sums = new_vectors(5, n), new_vectors(2, n)
        v, s = <double*>cnp.PyArray_DATA(room), <double*>cnp.PyArray_DATA(sums)
        if not (
            read_vector(self.kernels, mean, n, v) and read_optional(self.kernels, low, n, 0.0, v + n)
            and read_vector(self.kernels, m2, n, v + 2 * n) and read_optional(self.kernels, weight, n, 1.0, v + 3 * n)
            and divides(divided(v + 2 * n, n, count), n, eps)
            and (not training or samples_of(&call) > 1 or cnp.PyArray_SIZE(x) == 0 or weights is not None)
        ):
            return None
        others = mean, low, m2, weight
        if activation is not None:
            if not read_optional(self.kernels, bias, n, 0.0, v + 4 * n):
                return None
            if type(kept) is Signs:
                if not read_signs(&job, &call, kept):
                    return None
            elif not read_prologue(&job, &call, activation, residual, kept, x.dtype):
                return None
        if activation is not None or wants_g:
            others += bias, residual, None if type(kept) is Signs else kept
        if out is not None and not (
            read_like(out, like, like.type, &call.arrays[OF_Y]) and is_target(out, (dy, x), others)
        ):
            return None
        if totals is not None and not (
            is_pair(totals, n) and apart(totals[0], (dy, x, out, *others)) and apart(totals[1], (dy, x, out, *others))
        ):
            return None
        g = None
        if wants_g:
            g = copy_of(dy) if activation is None and weights is None else new_array(&call, OF_G, number_of(like.type))
        dx = new_array(&call, OF_Y, number_of(like.type)) if out is None else out
        if not training:
            memset(v + n, 0, n * sizeof(double))
        memset(s, 0, 2 * n * sizeof(double))
        job.backward = job.sums = True
        job.map = GRADIENT if training else SCALE
        job.mean, job.mean_low, job.var, job.weight, job.bias = v, v + n, v + 2 * n, v + 3 * n, v + 4 * n
        job.eps, job.result = eps, s
        finish(&job, &call, x, self.threads)
        before = cpubn_calm()
        self.kernels.scale_by_rstd(s + n, v + 2 * n, n, job.eps)
        cpubn_restore(before)
        if totals is not None:
            must_have_stayed(totals, n)
            add_to(self.kernels, totals[0], n, s + n, v)
            add_to(self.kernels, totals[1], n, s, v)
        return dx, sums[1], sums[0], g


cdef class Affine:
    """y = activation((x - centre) * scale + shift + residual), of a dtype and layout that may be others than x's."""
    cdef Calls calls
    cdef cnp.ndarray narrow, wide
    cdef Job[2] prepared  # for columns of float32 and of float64, in memory of `room`
    cdef list room
    cdef object activation, quantization, dtype, layout, out_layout

    def __cinit__(self, Calls calls not None, tuple coefficients not None, tuple how not None):
        for a in coefficients:
            if not isinstance(a, cnp.ndarray) or a.dtype != float or a.shape != (3, a.size // 3) or not a.flags.c_contiguous:
                raise ValueError("coefficients must be contiguous (3, C) arrays of float64")
        self.calls = calls
        self.narrow, self.wide = coefficients
        self.activation, self.quantization, self.dtype, self.layout, self.out_layout = how
        self.room = [
            self.prepare(&self.prepared[0], self.narrow, FLOAT32), self.prepare(&self.prepared[1], self.wide, FLOAT64)
        ]

    cdef cnp.ndarray prepare(self, Job* job, cnp.ndarray coefficients, Type type):
        """Memory of a table of the coefficients, for columns of one element each.

        Made anew by each call, it went from one core to the other: (49, 2048) took 20 us so, and 10 with one that stays.
        """
        cdef cnp.npy_intp[1] size
        cdef cnp.ndarray room
        memset(job, 0, sizeof(Job))
        job.kernels, job.x.type = self.calls.kernels, type
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
        cdef Call call
        cdef const Job* prepared
        cdef cnp.dtype dtype = self.dtype
        cdef bint wide
        if not begin(&job, &call, x, self.layout, self.out_layout, False):
            return None
        if job.channels != cnp.PyArray_DIMS(self.narrow)[1]:
            return None
        job.kernels = self.calls.kernels
        set_epilogue(&job, self.activation, self.quantization)
        if self.quantization is not None and (
            residual is not None or dtype.type_num != cnp.PyArray_TYPE(<cnp.ndarray>x)
        ):
            return None
        wide = call.arrays[OF_X].type == FLOAT64 or (dtype is not None and dtype.type_num == cnp.NPY_FLOAT64)
        prepared = &self.prepared[1 if wide else 0]
        job.coefficients = prepared.coefficients
        job.prepared = True
        job.table, job.wide, job.period, job.length = prepared.table, prepared.wide, prepared.period, prepared.length
        y = target(&call, x, residual, dtype, out, ())
        if y is not None:
            finish(&job, &call, x, self.calls.threads)
        return y


def axes_of(cnp.ndarray x not None, int axis):
    """The axes of x as a walk has them, and the place of the channels' among them, as ask/walk.py has it."""
    cdef Samples a
    cdef Walk walk
    describe(x, &a)
    walk = walk_of(&a, axis)
    return tuple([walk.axes[k] for k in range(a.rank)]), walk.channel
