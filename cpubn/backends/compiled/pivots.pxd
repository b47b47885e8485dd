# The pivots of moments: a channel's is the mean of samples spread over it, rounded to the data's type. Steps of lanes are
# read at equal distances, so that neither a first sample far away nor a trend moves it; where it is far from the mean all
# the same, the channel is summed again. Sums of a few steps may be rounded: any number near the mean will do.

from cpubn.backends.compiled.chunks cimport *
from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.lanes cimport *
from cpubn.backends.compiled.runs cimport *
from cpubn.backends.compiled.sums cimport as_own, row_places

cdef enum:
    COLUMN_PLACES = 64  # samples of a channel's columns from which a pivot is found; of 8 rows at least, if there are


cdef inline void add_buffered_places(
    const Job* job, bint wide, const Place* p, Py_ssize_t first, const Py_ssize_t* starts, Py_ssize_t n, Py_ssize_t width,
    double* sums
) noexcept nogil:
    """Add n <= 8 steps of `width` elements, at most as many as lanes, from some elements of x's place on."""
    cdef double buffer[9 * 32]
    cdef Py_ssize_t[8] filled
    cdef Py_ssize_t lanes = 16 if wide else 32, k
    for k in range(n):
        filled[k] = k * lanes
        if wide:
            gather(p[0], first + starts[k], width, buffer + k * lanes)
        else:
            gather(p[0], first + starts[k], width, <float*>buffer + k * lanes)
    loops_for(job, wide, False).add_places(buffer, filled, n, sums)


cdef inline double row_pivot(const Job* job, bint wide, Py_ssize_t c) noexcept nogil:
    cdef double sums[32]
    cdef Py_ssize_t lanes = 16 if wide else 32, steps = whole_steps(wide, job.inner), total = job.outer * steps
    cdef Py_ssize_t places = row_places(total), start = 0, k, step
    cdef Place p
    clear(sums, 32)
    for k in range(places):
        step = total * k // places
        p = channel_place(job, &job.x, step // steps, c, step % steps * lanes, lanes, False)
        add_buffered_places(job, wide, &p, 0, &start, 1, lanes, sums)
    return as_own(wide, fold_lanes(wide, sums) / <double>(places * lanes))


cdef inline void column_pivots(const Job* job, bint wide, Py_ssize_t c0, Py_ssize_t channels) noexcept nogil:
    cdef double sums[SLOTS]
    cdef double totals[GROUP]
    cdef Py_ssize_t[COLUMN_PLACES] starts  # of rows, in elements of x's place, or from its start in memory
    cdef Lane[double] means
    cdef Place p = columns_place(job, &job.x, 0, c0, channels)
    cdef Py_ssize_t lanes = 16 if wide else 32, width = channels * job.inner * job.together
    cdef Py_ssize_t rows = job.outer // job.together, few = job.together * job.inner
    cdef Py_ssize_t wanted = max(<Py_ssize_t>8, COLUMN_PLACES // few), places = (wanted * rows - 1) // (rows + wanted) + 1
    cdef Py_ssize_t strips = (width + lanes - 1) // lanes, j, k, v, c, some_places
    cdef bint direct = wide == (job.x.type == FLOAT64) and width >= lanes and is_row(&p, job.x.type)
    direct = direct and (job.together == 1 or is_line(&p, width * rows))
    for v in range(places):
        starts[v] = v * rows // places * (job.together * p.steps[1] if direct else width)
    clear(sums, strips * lanes)
    clear(totals, channels + 15)
    for k in range(strips):
        j = strip_start(k, lanes, width)
        for v in range(0, places, 8):
            some_places = min(<Py_ssize_t>8, places - v)
            if direct:
                loops_for(job, wide, True).add_places(address(&p, j), starts + v, some_places, sums + k * lanes)
            else:
                add_buffered_places(job, wide, &p, j, starts + v, some_places, min(width, lanes), sums + k * lanes)
    close_up(sums, lanes, width)
    fold_columns(job, sums, channels, totals)
    for c in range(0, channels, 16):
        means = load(<const double*>totals + c) / Lane[double](<double>(places * few))
        store_some(job.pivots + c0 + c, means if wide else as_single(means), min(<Py_ssize_t>16, channels - c))


cdef inline void find_pivots(Job* job, Py_ssize_t c0, Py_ssize_t n) noexcept nogil:
    """Of the n channels from c0 on, which are to be summed about them next."""
    cdef bint wide = job.x.type == FLOAT64 or job.x.type >= UINT8
    cdef Py_ssize_t c
    if job.columns:
        column_pivots(job, wide, c0, n)
        return
    if sums_directly(job, wide):
        loops_for(job, wide, True).find_row_pivots(job, NULL, c0, c0 + n)
        return
    for c in range(c0, c0 + n):
        job.pivots[c] = row_pivot(job, wide, c)
