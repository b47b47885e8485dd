"""Entries for C: the passes of one instruction set as a table of functions over arrays (outer, channel, inner).

A call becomes a job, as one over NumPy's arrays does in calls.pyx, and needs no interpreter. What each function means
is said in cpubn/include/cpubn.h.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.float cimport DBL_MAX
from libc.math cimport isfinite
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from cpubn.backends.compiled.begin cimport LEAST
from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.machine cimport cpubn_calm, cpubn_clear, cpubn_restore
from cpubn.backends.compiled.planner cimport CompiledKernels, work
from cpubn.backends.compiled.task cimport *
from cpubn.backends.compiled.vectors cimport divides
from cpubn.c cimport *

from cpubn.backends import threads
from cpubn.maths import activations

cdef extern from "statuses.hpp" nogil:
    const char* cpubn_words(int status)

cdef enum:
    ENTRIES = 64  # of the table of activations, at most

cdef struct Formula:
    int parameters, by_sign  # by_sign: its gradient is made of the output's sign, that of z where low is not negative
    double low, high  # where they are no parameters

cdef Formula[ENTRIES] formulas
cdef int formula_count = 1
cdef Py_ssize_t serial_bytes = threads.SERIAL_BYTES
cdef bint is_serial = False
cdef const Kernels* chosen = NULL
cdef cpubn_table table

cdef void start(Task* t, const cpubn_call* call) noexcept nogil:
    """A task over the call's shape."""
    cpubn_clear(t, sizeof(Task) - sizeof(Call))
    fail(t, call.size < sizeof(cpubn_call), CPUBN_BAD_SIZE)
    if t.status == CPUBN_OK:
        read_shape(t, call)
    t.job.kernels = chosen


cdef void start_with_vectors(Task* t, const cpubn_call* call) noexcept nogil:
    """The same with weight and bias, what is missing of them ones and zeros, and with room for results."""
    cdef Py_ssize_t n, c
    start(t, call)
    if t.status != CPUBN_OK:
        return
    n = t.job.channels
    t.room = <double*>malloc((4 * n + 1) * sizeof(double))
    if t.room is NULL:
        t.status = CPUBN_NO_MEMORY
        return
    for c in range(n):
        t.room[c] = 1.0
    memset(t.room + n, 0, n * sizeof(double))
    t.job.eps = call.eps
    t.job.weight = <const double*>t.room if call.weight is NULL else call.weight
    t.job.bias = <const double*>t.room + n if call.bias is NULL else call.bias


cdef void read_forward(Task* t, const cpubn_call* call, int wanted) noexcept nogil:
    """x of the wanted type, y and the epilogue."""
    read(t, call, &call.x, wanted, OF_X)
    write_to(t, call, &call.y, FLOATING, OF_Y)
    fail(t, call.y.type == CPUBN_FLOAT64 and call.x.type != CPUBN_FLOAT64, CPUBN_BAD_TYPE)
    if call.residual.data is not NULL:
        read(t, call, &call.residual, call.y.type, OF_RESIDUAL)
    read_activation(t, call, False)
    t.job.apply = True


cdef void read_activation(Task* t, const cpubn_call* call, bint by_output) noexcept nogil:
    fail(t, call.activation < 0 or call.activation >= formula_count, CPUBN_BAD_ACTIVATION)
    if t.status != CPUBN_OK or call.activation == CPUBN_NONE:
        return
    cdef const Formula* formula = &formulas[call.activation]
    t.job.activation = chosen.formula_of(call.activation, by_output)
    t.job.low = call.low if formula.parameters > 0 else formula.low
    t.job.high = call.high if formula.parameters > 1 else formula.high
    fail(t, formula.parameters == 1 and not isfinite(call.low), CPUBN_BAD_NUMBER)
    fail(t, formula.parameters == 2 and call.low > call.high, CPUBN_BAD_NUMBER)


cdef void read_prologue(Task* t, const cpubn_call* call) noexcept nogil:
    """How dy goes through the activation: by the output where that was kept and is enough, or by z, computed again."""
    cdef bint by_output = call.output.data is not NULL and call.x.type <= CPUBN_FLOAT64  # bounds are not rounded to halves
    if call.activation == CPUBN_NONE:
        return
    fail(t, call.activation < 0 or call.activation >= formula_count, CPUBN_BAD_ACTIVATION)
    t.job.prologue = BY_Z
    by_output = by_output and not (t.status == CPUBN_OK and formulas[call.activation].by_sign and call.low < 0.0)
    if t.status == CPUBN_OK and by_output and chosen.formula_of(call.activation, True) != 0:
        t.job.prologue = BY_OUTPUT
        read(t, call, &call.output, call.x.type, OF_KEPT)
    elif call.residual.data is not NULL:
        read(t, call, &call.residual, call.x.type, OF_RESIDUAL)
    read_activation(t, call, t.job.prologue == BY_OUTPUT)


cdef void read_statistics(Task* t, const cpubn_call* call) noexcept nogil:
    fail(t, not 0.0 <= call.eps <= DBL_MAX, CPUBN_BAD_NUMBER)
    fail(t, (call.mean is NULL or call.var is NULL) and t.job.channels > 0, CPUBN_MISSING)
    fail(t, t.status == CPUBN_OK and not divides(call.var, t.job.channels, call.eps), CPUBN_BAD_VARIANCE)
    t.job.mean, t.job.var = call.mean, call.var


cdef void read_backward(Task* t, const cpubn_call* call) noexcept nogil:
    read(t, call, &call.x, FLOATING, OF_X)
    read(t, call, &call.dy, call.x.type, OF_DY)
    read_statistics(t, call)
    read_prologue(t, call)
    t.job.backward = t.job.sums = True
    t.job.map = SCALE if call.inference else GRADIENT
    t.job.mean_low = <const double*>t.room + t.job.channels  # zeros
    if call.mean_low is not NULL and not call.inference:  # which normalizes with the first word alone
        t.job.mean_low = call.mean_low


cdef bint do(Task* t, const cpubn_call* call, double* result, Py_ssize_t rows) noexcept nogil:
    """Zeros for what is found out, (rows, channels), then the job; whether there was one and it was done."""
    cdef Py_ssize_t n = t.job.channels, elements = t.samples * n
    cdef int team
    fail(t, rows > 0 and result is NULL and n > 0, CPUBN_MISSING)
    if t.status == CPUBN_OK and elements > 0:
        lay(t, call)
    if t.status != CPUBN_OK:
        return False
    if rows > 0:  # else it may be null
        memset(result, 0, rows * n * sizeof(double))
    t.job.result = result
    if elements == 0:
        return False
    team = call.threads if not is_serial and elements * size_of(t.job.x.type) > serial_bytes and call.threads > 1 else 1
    fail(t, not work(&t.job, team), CPUBN_NO_MEMORY)
    return t.status == CPUBN_OK


cdef inline void copy(const double* v, Py_ssize_t n, double* to) noexcept nogil:
    if to is not NULL:
        memcpy(to, v, n * sizeof(double))


cdef int end(Task* t) noexcept nogil:
    free(t.room)
    return t.status


cdef int moments(const cpubn_call* call) noexcept nogil:
    cdef Task t
    start(&t, call)
    read(&t, call, &call.x, ANY, OF_X)
    write_nowhere(&t)
    t.job.sums = True
    do(&t, call, call.stats, 3)
    return end(&t)


cdef int normalize(const cpubn_call* call) noexcept nogil:
    cdef Task t
    start_with_vectors(&t, call)
    read_forward(&t, call, ANY)
    read_statistics(&t, call)
    do(&t, call, NULL, 0)
    return end(&t)


cdef int train_forward(const cpubn_call* call) noexcept nogil:
    cdef Task t
    cdef Py_ssize_t n
    cdef double* running
    cdef uint64_t before
    start_with_vectors(&t, call)
    read_forward(&t, call, FLOATING)
    fail(&t, not LEAST <= call.eps <= DBL_MAX, CPUBN_BAD_NUMBER)
    n = t.job.channels
    fail(&t, t.samples == 1 and n > 0, CPUBN_FEW_VALUES)
    fail(&t, (call.running_mean is NULL) != (call.running_var is NULL), CPUBN_MISSING)
    fail(&t, call.running_mean is not NULL and not 0.0 <= call.momentum <= 1.0, CPUBN_BAD_NUMBER)
    t.job.sums = True
    if do(&t, call, call.stats, 3) and call.running_mean is not NULL:
        running = t.room + 2 * n
        copy(call.running_mean, n, running)
        copy(call.running_var, n, running + n)
        before = cpubn_calm()
        chosen.move_running(running, call.stats, n, <double>t.samples, NULL, call.momentum)
        cpubn_restore(before)
        copy(running, n, call.running_mean)
        copy(running + n, n, call.running_var)
    return end(&t)


cdef int gradient_sums(const cpubn_call* call) noexcept nogil:
    cdef Task t
    start_with_vectors(&t, call)
    read_backward(&t, call)
    write_nowhere(&t)
    do(&t, call, call.sums, 2)
    return end(&t)


cdef int train_backward(const cpubn_call* call) noexcept nogil:
    cdef Task t
    cdef Py_ssize_t n
    cdef double* sums
    cdef uint64_t before
    start_with_vectors(&t, call)
    n = t.job.channels
    read_backward(&t, call)
    write_to(&t, call, &call.dx, call.x.type, OF_Y)
    if call.g.data is not NULL:
        write_to(&t, call, &call.g, call.x.type, OF_G)
    fail(&t, not call.inference and not LEAST <= call.eps, CPUBN_BAD_NUMBER)
    fail(&t, not call.inference and t.samples == 1 and n > 0, CPUBN_FEW_VALUES)
    t.job.apply = True
    sums = t.room + 2 * n
    if do(&t, call, sums, 2):
        before = cpubn_calm()
        chosen.scale_by_rstd(sums + n, call.var, n, call.eps)
        cpubn_restore(before)
    if t.status == CPUBN_OK:
        copy(sums, n, call.dbias)
        copy(sums + n, n, call.dweight)
    return end(&t)


cdef int freeze(const cpubn_call* call) noexcept nogil:
    cdef Task t
    cdef uint64_t before
    start_with_vectors(&t, call)
    read_statistics(&t, call)
    check_type(&t, call.x.type)
    fail(&t, call.affine is NULL and t.job.channels > 0, CPUBN_MISSING)
    if t.status == CPUBN_OK:
        t.job.x.type = <Type>call.x.type
        t.job.coefficients, t.job.pivots = call.affine, t.room + 2 * t.job.channels
        before = cpubn_calm()
        chosen.prepare(&t.job, 0, t.job.channels)
        cpubn_restore(before)
    return end(&t)


cdef int frozen(const cpubn_call* call) noexcept nogil:
    cdef Task t
    start(&t, call)
    read_forward(&t, call, ANY)
    fail(&t, call.affine is NULL and t.job.channels > 0, CPUBN_MISSING)
    t.job.coefficients = call.affine
    do(&t, call, NULL, 0)
    return end(&t)


cdef int order(const cpubn_call* call, int* axes) noexcept nogil:
    cdef Task t
    cdef int k
    start(&t, call)
    fail(&t, t.axes is NULL, CPUBN_MISSING)
    check_type(&t, call.x.type)
    if t.status == CPUBN_OK:
        read_samples(t.axes, &call.x, t.axes.strides[0], &t.call.arrays[OF_X])
        t.call.walk = walk_of(&t.call.arrays[OF_X], t.axes.channel)
        for k in range(t.axes.rank):
            axes[k] = k if t.call.arrays[OF_X].contiguous else t.call.walk.axes[k]
    return end(&t)


cdef int absent(const cpubn_call* call) noexcept nogil:
    return -1  # no status of cpubn.h's


def absent_function():
    """The address of a function that answers -1 to any call: what stands in for one that this cpubn does not have."""
    return <size_t>&absent


def compute_serially():
    """From now on by one thread, as a forked child must."""
    global is_serial
    is_serial = True


def table_of(CompiledKernels kernels not None):
    """A capsule of the table, whose functions go to these kernels from now on."""
    global chosen, formula_count
    for code, entry in enumerate(activations.TABLE, 1):
        formulas[code] = Formula(len(entry.parameters), entry.sides is activations.by_sign, entry.numbers[0], entry.numbers[1])
    chosen, formula_count = kernels.kernels, len(activations.TABLE) + 1
    table.version = CPUBN_VERSION
    table.moments, table.normalize, table.train_forward = moments, normalize, train_forward
    table.gradient_sums, table.train_backward = gradient_sums, train_backward
    table.freeze, table.frozen, table.message, table.order = freeze, frozen, cpubn_words, order
    return PyCapsule_New(&table, "cpubn.capi.table", NULL)
