# Places: where the elements of a run of one array stand, be they along one axis of it or several.

from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.lanes cimport *


cdef inline Py_ssize_t along(const Split* split, Py_ssize_t index, Py_ssize_t step, const Py_ssize_t* steps) noexcept nogil:
    """From the first element to that of an outer or inner index."""
    cdef Py_ssize_t elements
    cdef int k
    if split.axes <= 1:
        return index * step
    elements = index % split.sizes[0] * step
    for k in range(1, split.axes):
        index //= split.sizes[k - 1]
        elements += (index % split.sizes[k] if k + 1 < split.axes else index) * steps[k - 1]
    return elements


cdef inline Py_ssize_t steps_to(const Job* job, const Strided* a, Py_ssize_t o, Py_ssize_t c, Py_ssize_t i) noexcept nogil:
    return along(&job.outer_split, o, a.outer, a.outers) + c * a.channel + along(&job.inner_split, i, a.inner, a.inners)


cdef inline char* at(const Job* job, const Strided* a, Py_ssize_t o, Py_ssize_t c, Py_ssize_t i) noexcept nogil:
    if a.data is NULL:
        return NULL
    return a.data + steps_to(job, a, o, c, i) * a.size


cdef inline void add_axis(Place* p, Py_ssize_t size, Py_ssize_t step) noexcept nogil:
    p.sizes[p.axes], p.steps[p.axes] = size, step
    p.axes += 1


cdef inline void add_split(Place* p, const Split* split, Py_ssize_t step, const Py_ssize_t* steps) noexcept nogil:
    cdef int k
    for k in range(split.axes):
        add_axis(p, split.sizes[k], steps[k - 1] if k else step)


cdef inline Place place_at(const Job* job, const Strided* a, Py_ssize_t o, Py_ssize_t c, Py_ssize_t i) noexcept nogil:
    """A place that starts at (o, c, i), and has no axis yet. Signs start at a bit, which need not be a byte's first."""
    cdef Place p
    p.data, p.axes, p.start, p.type, p.size, p.swapped = a.data, 0, 0, a.type, a.size, a.swapped
    p.steps[1] = 0
    if a.data is NULL:
        return p
    if a is &job.signs:
        p.size = steps_to(job, a, o, c, i)
    else:
        p.data += steps_to(job, a, o, c, i) * a.size
    return p


cdef inline Place channel_place(
    const Job* job, const Strided* a, Py_ssize_t o, Py_ssize_t c, Py_ssize_t i, Py_ssize_t n, bint down
) noexcept nogil:
    """n elements of channel c from (o, i): inner ones or, if `down`, outer ones."""
    cdef const Split* split = &job.outer_split if down else &job.inner_split
    cdef bint whole = split.axes <= 1
    cdef Place p = place_at(job, a, o if whole or not down else 0, c, i if whole or down else 0)
    if a.data is NULL:
        return p
    if whole:
        add_axis(&p, n, a.outer if down else a.inner)
    elif down:
        p.start = o
        add_split(&p, split, a.outer, a.outers)
    else:
        p.start = i
        add_split(&p, split, a.inner, a.inners)
    return p


cdef inline Place columns_place(
    const Job* job, const Strided* a, Py_ssize_t o, Py_ssize_t c, Py_ssize_t channels
) noexcept nogil:
    """The columns of the channels from c on, outer row after outer row."""
    cdef bint whole = job.outer_split.axes <= 1
    cdef Place p = place_at(job, a, o if whole else 0, c, 0)
    if a.data is NULL:
        return p
    if job.inner == 1:
        add_axis(&p, channels, a.channel)
    elif job.inner_split.axes <= 1 and a.channel == job.inner * a.inner:
        add_axis(&p, channels * job.inner, a.inner)
    else:
        if job.inner_split.axes <= 1:
            add_axis(&p, job.inner, a.inner)
        else:
            add_split(&p, &job.inner_split, a.inner, a.inners)
        add_axis(&p, channels, a.channel)
    if whole:
        add_axis(&p, job.outer, a.outer)
    else:
        p.start = o * channels * job.inner
        add_split(&p, &job.outer_split, a.outer, a.outers)
    return p


cdef inline bint are_steps(const Place* p) noexcept nogil:
    return p.steps[0] == 1 and p.axes <= 2 and p.start == 0


cdef inline bint is_row(const Place* p, Type wanted) noexcept nogil:
    """Whether the elements of each line follow one another, one line lies behind the other, and they fit; nothing does."""
    return p.data is NULL or (are_steps(p) and p.size == size_of(p.type) and fits(p.type, wanted))


cdef inline bint is_line(const Place* p, Py_ssize_t n) noexcept nogil:
    """Whether the first n elements of a row follow one another across lines, too."""
    return p.data is NULL or n <= p.sizes[0] or p.steps[1] == p.sizes[0]


cdef inline bint is_still(const Place* p) noexcept nogil:
    """Whether each line is one element, again and again."""
    return p.data is not NULL and p.steps[0] == 0 and p.axes <= 2 and p.start == 0


cdef inline Py_ssize_t offset(const Place* p, Py_ssize_t first) noexcept nogil:
    """From a run's start to an element of it, for places whose lines are rows."""
    if p.steps[0] == 0:
        return first // p.sizes[0] * p.steps[1]
    if first < p.sizes[0] or p.steps[1] == p.sizes[0]:  # without a division
        return first
    return first // p.sizes[0] * p.steps[1] + first % p.sizes[0]


cdef inline const char* address(const Place* p, Py_ssize_t first) noexcept nogil:
    if p.data is NULL:
        return NULL
    return p.data + offset(p, first) * p.size
