# The walk, as of ask/walk.py: the order in which x is read, and every array of a call as (outer, channel, inner) along it.
#
# Where an array does not step along several axes as along one, these stay apart: no array is copied to be walked.

from libc.stdlib cimport llabs
from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.order cimport set_order

cdef extern from "Python.h" nogil:
    const Py_ssize_t PY_SSIZE_T_MAX

cdef enum:
    OF_SIGNS = ROLES  # beside the roles of samples
    ARRAYS = ROLES + 1

cdef struct Samples:  # an array as NumPy describes it; no data: there is none
    char* data
    int rank
    Py_ssize_t[RANK] shape
    Py_ssize_t[RANK] strides  # in units of `size`, of signs in bits
    Type type
    Py_ssize_t size  # bytes of an element; 1 where it is not aligned, or not native
    bint swapped
    bint contiguous  # in the order of its axes

cdef struct Walk:  # axes from the outermost in memory to the innermost
    int[RANK] axes
    int channel  # the place of the channels' among them

cdef struct Call:  # arrays by role, of one shape
    Samples[ARRAYS] arrays
    int axis  # of the channels
    int out_axis  # of an output in another layout
    Walk walk


cdef inline Py_ssize_t reach_of(const Samples* x, int axis) noexcept nogil:
    """A stride's length; a broadcast axis is the outermost."""
    return llabs(x.strides[axis]) if x.strides[axis] else PY_SSIZE_T_MAX


cdef inline bint step_as_one(const Samples* x, int outer, int inner, Py_ssize_t n) noexcept nogil:
    """Whether an axis steps by the whole of n steps of another one."""
    return x.strides[outer] == x.strides[inner] * n


cdef inline bint merges(const Samples* x, const int* axes, int n) noexcept nogil:
    """Whether x steps along those axes as along one."""
    cdef int k, last = -1
    for k in range(n):
        if x.shape[axes[k]] == 1:
            continue
        if last >= 0 and not step_as_one(x, last, axes[k], x.shape[axes[k]]):
            return False
        last = axes[k]
    return True


cdef inline bint is_view(const Samples* x, const Walk* walk) noexcept nogil:
    return merges(x, walk.axes, walk.channel) and merges(x, walk.axes + walk.channel + 1, x.rank - walk.channel - 1)


cdef inline Walk natural_walk(const Samples* x, int axis) noexcept nogil:
    cdef Walk walk
    cdef int k
    for k in range(x.rank):
        walk.axes[k] = k
    walk.channel = axis
    return walk


cdef inline Walk sorted_walk(const Samples* x, int axis) noexcept nogil:
    """By falling strides, a broadcast axis outermost."""
    cdef Walk walk
    cdef int[RANK] others
    cdef int count = 0, at = 0, cut = 0, k, j, a
    for a in range(x.rank):
        if a == axis:
            continue
        if x.shape[a] == 1:
            walk.axes[at] = a
            at += 1
            continue
        k = count
        while k > 0 and reach_of(x, others[k - 1]) < reach_of(x, a):
            others[k] = others[k - 1]
            k -= 1
        others[k] = a
        count += 1
    if x.shape[axis] > 1:
        for k in range(count):
            a = others[k]
            if reach_of(x, a) > reach_of(x, axis) or (reach_of(x, a) == reach_of(x, axis) and axis > a):
                cut += 1
    else:  # one channel stands anywhere: make its inner runs as long as they go
        cut = count
        while cut > 0 and merges(x, others + cut - 1, min(2, count - cut + 1)):
            cut -= 1
    for k in range(cut):
        walk.axes[at + k] = others[k]
    walk.channel = at + cut
    walk.axes[walk.channel] = axis
    for k in range(cut, count):
        walk.axes[at + k + 1] = others[k]
    return walk


cdef inline Walk walk_of(const Samples* x, int axis) noexcept nogil:
    """The walk along x's memory: a function of its shape and strides alone."""
    cdef Walk natural = natural_walk(x, axis), by_strides
    cdef int k
    if x.contiguous and x.shape[axis] > 1:
        return natural
    by_strides = sorted_walk(x, axis)
    for k in range(x.rank):
        if x.strides[k] == 0 and (is_view(x, &natural) or not is_view(x, &by_strides)):
            return natural  # broadcast axes have no order of their own
    return by_strides


cdef inline void split_axes(const Call* call, const int* axes, int n, Split* split, int* inmost) noexcept nogil:
    """Axes as few as every array steps along as along one each, and the innermost axis of each of those."""
    cdef const Samples* x = &call.arrays[OF_X]
    cdef const Samples* present[ARRAYS]
    cdef int k, role, count = 0
    cdef bint one
    split.axes = 0
    for role in range(ARRAYS):
        if call.arrays[role].data is not NULL:
            present[count] = &call.arrays[role]
            count += 1
    for k in range(n - 1, -1, -1):
        if x.shape[axes[k]] == 1:
            continue
        one = split.axes > 0
        for role in range(count):
            one = one and step_as_one(present[role], axes[k], inmost[split.axes - 1], split.sizes[split.axes - 1])
        if one:
            split.sizes[split.axes - 1] *= x.shape[axes[k]]
        else:
            split.sizes[split.axes], inmost[split.axes] = x.shape[axes[k]], axes[k]
            split.axes += 1


cdef inline void lay_along(
    const Job* job, const Samples* a, int axis, const int* outer, const int* inner, Strided* s
) noexcept nogil:
    """s, which holds zeros, <- an array along a walk, if there is one."""
    cdef int k
    if a.data is NULL:
        return
    s.data, s.type, s.size, s.swapped = a.data, a.type, a.size, a.swapped
    s.inner = a.strides[inner[0]] if job.inner_split.axes else 1
    s.channel = a.strides[axis] if job.channels > 1 else job.inner * s.inner
    s.outer = a.strides[outer[0]] if job.outer_split.axes else job.channels * s.channel
    for k in range(1, job.inner_split.axes):
        s.inners[k - 1] = a.strides[inner[k]]
    for k in range(1, job.outer_split.axes):
        s.outers[k - 1] = a.strides[outer[k]]


cdef inline Py_ssize_t length_of(const Split* split) noexcept nogil:
    cdef Py_ssize_t length = 1
    cdef int k
    for k in range(split.axes):
        length *= split.sizes[k]
    return length


cdef inline void lay_call(Job* job, const Call* call) noexcept nogil:
    """The arrays of a call along its walk, and the order of summation."""
    cdef const Walk* walk = &call.walk
    cdef int[RANK] outer
    cdef int[RANK] inner
    cdef int rank = call.arrays[OF_X].rank
    split_axes(call, walk.axes, walk.channel, &job.outer_split, outer)
    split_axes(call, walk.axes + walk.channel + 1, rank - walk.channel - 1, &job.inner_split, inner)
    job.outer, job.inner = length_of(&job.outer_split), length_of(&job.inner_split)
    job.channels = call.arrays[OF_X].shape[call.axis]
    lay_along(job, &call.arrays[OF_X], call.axis, outer, inner, &job.x)
    lay_along(job, &call.arrays[OF_DY], call.axis, outer, inner, &job.dy)
    lay_along(job, &call.arrays[OF_RESIDUAL], call.axis, outer, inner, &job.residual)
    lay_along(job, &call.arrays[OF_KEPT], call.axis, outer, inner, &job.kept)
    lay_along(job, &call.arrays[OF_SIGNS], call.axis, outer, inner, &job.signs)
    lay_along(job, &call.arrays[OF_G], call.axis, outer, inner, &job.g)
    lay_along(job, &call.arrays[OF_Y], call.axis, outer, inner, &job.y)
    lay_along(job, &call.arrays[OF_WEIGHTS], call.axis, outer, inner, &job.weights)
    if job.sums:
        set_order(job)
