# A call from C on its way to a job: its arrays, as (outer, channel, inner) or along axes of their own, and what is wrong.

from libc.string cimport memset

from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.memory cimport *
from cpubn.backends.compiled.order cimport set_order
from cpubn.backends.compiled.walks cimport *
from cpubn.c cimport *

cdef enum:  # types of samples that an array may have
    ANY = 0
    FLOATING = -1

cdef struct Task:
    Job job
    int status  # the first thing that is wrong
    double* room  # ones and zeros (channels,), and twice as many for results
    Py_ssize_t samples  # values per channel
    const cpubn_axes* axes  # NULL: there are none
    Call call  # the arrays along them


cdef inline void fail(Task* t, bint wrong, int status) noexcept nogil:
    if wrong and t.status == CPUBN_OK:
        t.status = status


cdef inline void check_type(Task* t, int type) noexcept nogil:
    fail(t, type < CPUBN_FLOAT32 or type > CPUBN_INT16, CPUBN_BAD_TYPE)


cdef inline void read_shape(Task* t, const cpubn_call* call) noexcept nogil:
    """The shape of the job and, where there are axes, of all arrays."""
    cdef const cpubn_axes* axes = call.axes
    cdef double bytes
    cdef int k
    if axes is NULL:
        t.job.outer, t.job.channels, t.job.inner = call.outer, call.channels, call.inner
        t.samples = <Py_ssize_t>(<size_t>call.outer * <size_t>call.inner)  # of no meaning where that is too many
        bytes = 8.0 * call.outer * call.channels * call.inner
        fail(t, min(call.outer, call.channels, call.inner) < 0, CPUBN_BAD_SIZE)
    else:
        fail(t, not 2 <= axes.rank <= RANK or not 0 <= axes.channel < axes.rank, CPUBN_BAD_SIZE)
        if t.status != CPUBN_OK:
            return
        t.axes, t.call.axis, t.call.out_axis = axes, axes.channel, axes.channel
        t.samples, bytes = 1, 8.0
        for k in range(axes.rank):
            fail(t, axes.shape[k] < 0, CPUBN_BAD_SIZE)
            bytes *= axes.shape[k]
            if k != axes.channel:
                t.samples = <Py_ssize_t>(<size_t>t.samples * <size_t>axes.shape[k])
        t.job.outer, t.job.channels, t.job.inner = t.samples, axes.shape[axes.channel], 1
        for k in range(ARRAYS):
            t.call.arrays[k].data = NULL
    fail(t, bytes > 9e18 or t.job.channels > <Py_ssize_t>1 << 40, CPUBN_BAD_SIZE)
    if t.status != CPUBN_OK:
        t.samples = t.job.channels = 0


cdef inline Strided* strided(Job* job, int role) noexcept nogil:
    if role == OF_X:
        return &job.x
    if role == OF_DY:
        return &job.dy
    if role == OF_RESIDUAL:
        return &job.residual
    if role == OF_KEPT:
        return &job.kept
    return &job.g if role == OF_G else &job.y


cdef inline bint is_contiguous(const Samples* a) noexcept nogil:
    """Whether its elements lie end to end in the order of its axes."""
    cdef Py_ssize_t step = size_of(a.type) // a.size
    cdef int k
    for k in range(a.rank - 1, -1, -1):
        if a.shape[k] > 1 and a.strides[k] != step:
            return False
        step *= a.shape[k]
    return True


cdef inline void read_samples(
    const cpubn_axes* axes, const cpubn_array* a, const ptrdiff_t* strides, Samples* to
) noexcept nogil:
    cdef size_t odd = <size_t>a.data
    cdef int k
    to.data, to.type, to.rank, to.swapped = <char*>a.data, <Type>a.type, axes.rank, False
    for k in range(axes.rank):
        odd |= <size_t>strides[k]
    to.size = 1 if odd % <size_t>size_of(to.type) else size_of(to.type)
    for k in range(axes.rank):
        to.shape[k], to.strides[k] = axes.shape[k], strides[k] // to.size
    to.contiguous = is_contiguous(to)


cdef inline void read(Task* t, const cpubn_call* call, const cpubn_array* a, int wanted, int role) noexcept nogil:
    """An array of the wanted type takes its role. An axis of one element has no stride of its own."""
    cdef Strided* s = strided(&t.job, role)
    cdef Py_ssize_t size
    fail(t, a.data is NULL and t.samples * t.job.channels > 0, CPUBN_MISSING)
    check_type(t, a.type)
    fail(t, a.type != wanted if wanted > 0 else wanted == FLOATING and a.type > CPUBN_BFLOAT16, CPUBN_BAD_TYPE)
    if t.status != CPUBN_OK:
        return
    s.data, s.type, size = <char*>a.data, <Type>a.type, size_of(<Type>a.type)
    if t.axes is not NULL:
        read_samples(t.axes, a, t.axes.strides[a - &call.x], &t.call.arrays[role])
        return
    s.size = size if (<size_t>a.data | <size_t>a.outer | <size_t>a.channel | <size_t>a.inner) % <size_t>size == 0 else 1
    s.inner = (a.inner if t.job.inner > 1 else size) // s.size
    s.channel = a.channel // s.size if t.job.channels > 1 else t.job.inner * s.inner
    s.outer = a.outer // s.size if t.job.outer > 1 else t.job.channels * s.channel


cdef inline void write_to(Task* t, const cpubn_call* call, const cpubn_array* a, int wanted, int role) noexcept nogil:
    cdef bint still
    read(t, call, a, wanted, role)
    if t.status != CPUBN_OK or t.samples * t.job.channels == 0:
        return
    if t.axes is NULL:
        still = (t.job.outer > 1 and a.outer == 0) or (t.job.channels > 1 and a.channel == 0)
        fail(t, still or (t.job.inner > 1 and a.inner == 0), CPUBN_BAD_STRIDES)
    else:
        fail(t, overlaps_itself(&t.call.arrays[role]), CPUBN_BAD_STRIDES)


cdef inline void write_nowhere(Task* t) noexcept nogil:
    t.job.y, t.call.arrays[OF_Y] = t.job.x, t.call.arrays[OF_X]


cdef inline Samples vector(const double* v, Py_ssize_t n) noexcept nogil:
    cdef Samples a
    memset(&a, 0, sizeof(a))
    a.data, a.rank, a.type, a.size, a.shape[0], a.strides[0] = <char*>v, 1, FLOAT64, sizeof(double), n, 1
    return a


cdef inline void keep_apart(Task* t, const cpubn_call* call) noexcept nogil:
    """What is written overlaps nothing else, but for y or dx, which may be x, residual or dy itself."""
    cdef const Samples* arrays = t.call.arrays
    cdef int role
    cdef bint same
    for role in range(ROLES):
        if arrays[role].data is NULL or role == OF_Y:
            continue
        same = role == OF_G or (role != OF_KEPT and is_one(&arrays[role], &arrays[OF_Y]))
        fail(t, not same and share_memory(&arrays[role], &arrays[OF_Y]), CPUBN_OVERLAP)
        fail(t, role != OF_G and share_memory(&arrays[role], &arrays[OF_G]), CPUBN_OVERLAP)
    fail(t, share_memory(&arrays[OF_Y], &arrays[OF_G]), CPUBN_OVERLAP)
    keep_vector_apart(t, call.mean, False)
    keep_vector_apart(t, call.var, False)
    keep_vector_apart(t, call.weight, False)
    keep_vector_apart(t, call.bias, False)
    if t.job.sums and not t.job.backward and call.running_mean is not NULL:  # which moves them
        keep_vector_apart(t, call.running_mean, True)
        keep_vector_apart(t, call.running_var, True)
        same = are_near(t, call.running_mean, call.weight) or are_near(t, call.running_mean, call.bias)
        same = same or are_near(t, call.running_var, call.weight) or are_near(t, call.running_var, call.bias)
        fail(t, same or are_near(t, call.running_mean, call.running_var), CPUBN_OVERLAP)


cdef inline void keep_vector_apart(Task* t, const double* v, bint written) noexcept nogil:
    cdef Samples a
    cdef int role
    if v is NULL:
        return
    a = vector(v, t.job.channels)
    for role in range(ROLES):
        if written or role == OF_Y or role == OF_G:
            fail(t, share_memory(&t.call.arrays[role], &a), CPUBN_OVERLAP)


cdef inline bint are_near(const Task* t, const double* a, const double* b) noexcept nogil:
    """Whether two vectors, if there are two, share memory."""
    return b is not NULL and a < b + t.job.channels and b < a + t.job.channels


cdef inline void lay(Task* t, const cpubn_call* call) noexcept nogil:
    """The arrays along the walk, and the order of summation."""
    if t.axes is NULL:
        set_order(&t.job)
        return
    if t.job.apply:
        keep_apart(t, call)
    t.call.walk = walk_of(&t.call.arrays[OF_X], t.axes.channel)
    lay_call(&t.job, &t.call)
    if not t.job.sums:
        set_order(&t.job)
