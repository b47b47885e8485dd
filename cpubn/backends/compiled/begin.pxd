# How every pass over a call's arrays begins and ends: what its arguments are, where its output goes, the job they make.

cimport numpy as cnp

from cpubn.backends.compiled.arrays cimport *
from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.machine cimport cpubn_clear
from cpubn.backends.compiled.passes cimport vector_of
from cpubn.backends.compiled.planner cimport SMALL_BYTES, is_real, number_of, run_job, set_activation, type_of_number

cdef extern from *:
    const double LEAST "5e-324"  # above 0

cdef enum Layout:
    CHANNELS_FIRST
    CHANNELS_LAST
    NO_LAYOUT


cdef inline Layout layout_of(layout):
    if type(layout) is not str:
        return NO_LAYOUT
    return CHANNELS_FIRST if layout == "NCHW" else CHANNELS_LAST if layout == "NHWC" else NO_LAYOUT


cdef inline bint read_number(value, double low, double high, double* to):
    """Whether a value is a real number from low to high. It may be an object that runs code: numbers come before arrays."""
    if type(value) is not float:
        if not is_real(value):
            return False
        try:
            value = float(value)
        except OverflowError:
            return False
    to[0] = value
    return low <= to[0] <= high


cdef inline bint begin(Job* job, Call* call, x, layout, out_layout, bint floating):
    """An elementwise pass over x, so far; whether x is a batch of samples. out_layout: None for that of x."""
    cdef int rank, role
    cdef Layout given = layout_of(layout)
    cdef Layout wanted = given if out_layout is None else layout_of(out_layout)
    cpubn_clear(job, sizeof(Job))
    for role in range(ARRAYS):
        call.arrays[role].data = NULL
    if not read_samples(x, &call.arrays[OF_X], floating):
        return False
    rank = call.arrays[OF_X].rank
    if rank < 2 or given == NO_LAYOUT or wanted == NO_LAYOUT:
        return False
    call.axis = 1 if given == CHANNELS_FIRST else rank - 1
    call.out_axis = 1 if wanted == CHANNELS_FIRST else rank - 1
    call.walk = walk_of(&call.arrays[OF_X], call.axis)
    job.apply = True
    job.channels = call.arrays[OF_X].shape[call.axis]
    return True


cdef inline bint read_weights(Job* job, Call* call, weights):
    """What each element counts for: None, or (an array of x's shape, its sums by channel, y where it is 0)."""
    cdef Samples* to = &call.arrays[OF_WEIGHTS]
    if weights is None:
        return True
    array, counts, filling = weights
    if not is_array(array) or cnp.PyArray_NDIM(<cnp.ndarray>array) > RANK:
        return False
    describe(array, to)
    job.filling = filling
    if counts is not None:
        job.counts = vector_of(counts, job.channels)
    return (to.type == UINT8 or to.type == FLOAT32 or to.type == FLOAT64) and same_shape(to, &call.arrays[OF_X])


cdef inline count_told(Py_ssize_t samples, weights):
    """The values per channel that a caller is told: (C,) sums of weights where there are some."""
    return samples if weights is None else weights[1]


cdef inline Py_ssize_t samples_of(const Call* call) noexcept nogil:
    """Values per channel."""
    cdef Py_ssize_t count = 1
    cdef int k
    for k in range(call.arrays[OF_X].rank):
        if k != call.axis:
            count *= call.arrays[OF_X].shape[k]
    return count


cdef inline object target(Call* call, x, residual, cnp.dtype dtype, out, tuple vectors):
    """The output of a forward, `out` or a new array; None where that, or the residual, is not as it must be."""
    cdef Samples* y = &call.arrays[OF_Y]
    cdef Samples* added = &call.arrays[OF_RESIDUAL]
    cdef Samples like = call.arrays[OF_X]
    cdef bint turned = call.out_axis != call.axis
    cdef int number
    if dtype is None and like.type > BFLOAT16:
        return None
    number = number_of(like.type) if dtype is None else dtype.type_num
    if dtype is not None:
        like.type = type_of_number(number, dtype)
    if turned:
        move_axis(&like, call.axis, call.out_axis)
    if residual is not None and not read_like(residual, &like, like.type, added):
        return None
    if out is None:
        out = new_turned(&like, y, number) if turned else new_array(call, OF_Y, number)
    elif not read_samples(out, y, False) or y.type != like.type or not same_shape(y, &like):
        return None
    elif turned and not is_target(out, (residual,), (x, *vectors)):  # x would be overwritten before it is read
        return None
    elif not turned and not is_target(out, (x, residual), vectors):
        return None
    if turned:
        move_axis(y, call.out_axis, call.axis)
        if residual is not None:
            move_axis(added, call.out_axis, call.axis)
    return out


cdef inline bint read_signs(Job* job, Call* call, kept):
    """g by a forward's signs; whether they are of an array of x's shape."""
    cdef const Samples* x = &call.arrays[OF_X]
    cdef Samples* signs = &call.arrays[OF_SIGNS]
    cdef Py_ssize_t step = 1
    cdef int k
    bits, axes, shape, slope = kept
    if len(shape) != x.rank:
        return False
    for k in range(x.rank):
        if x.shape[k] != <Py_ssize_t>shape[k]:
            return False
    signs[0] = x[0]
    signs.data, signs.type, signs.size, signs.swapped = cnp.PyArray_BYTES(<cnp.ndarray>bits), UINT8, 0, False
    for axis in reversed(axes):
        signs.strides[<int>axis] = step
        step *= x.shape[<int>axis]
    job.prologue, job.low = BY_SIGNS, slope
    return True


cdef inline bint read_prologue(Job* job, Call* call, activation, residual, kept, dtype):
    """How dy goes through an activation, by the output where that is enough, or by z; whether what is given is right."""
    cdef const Samples* x = &call.arrays[OF_X]
    if activation.function is not None:
        return False
    if residual is not None and not read_like(residual, x, x.type, &call.arrays[OF_RESIDUAL]):
        return False
    job.prologue = BY_Z
    if kept is not None:
        if not read_like(kept, x, x.type, &call.arrays[OF_KEPT]):
            return False
        of_output = activation.of_output(dtype)
        if of_output is None:
            call.arrays[OF_KEPT].data = NULL
        else:
            call.arrays[OF_RESIDUAL].data = NULL
            job.prologue, activation = BY_OUTPUT, of_output
    set_activation(job, activation, job.prologue == BY_OUTPUT)
    return True


cdef inline object finish(Job* job, Call* call, x, threads):
    """Do what the job says, unless there are no samples."""
    cdef int count = 1
    if cnp.PyArray_SIZE(x) == 0:
        return
    if call.arrays[OF_Y].type == FLOAT64 and call.arrays[OF_X].type != FLOAT64:
        x = cnp.PyArray_ContiguousFromAny(x, cnp.NPY_FLOAT64, 0, RANK)  # which y is computed in
        describe(x, &call.arrays[OF_X])
    lay_call(job, call)
    if job.prepared and job.inner != 1:  # for columns of one element
        job.prepared, job.table = False, NULL
    if cnp.PyArray_NBYTES(<cnp.ndarray>x) > SMALL_BYTES:
        count = threads(cnp.PyArray_NBYTES(<cnp.ndarray>x))
    run_job(job, count)
