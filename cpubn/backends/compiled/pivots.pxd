# The pivots of moments: a channel's is the mean of samples spread over it, rounded to the data's type. Steps of lanes are
# read at equal distances, so that neither a first sample far away nor a trend moves it; where it is far from the mean all
# the same, the channel is summed again. Sums of a few steps may be rounded: any number near the mean will do.

from cpubn.backends.compiled.chunks cimport *
from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.lanes cimport *
from cpubn.backends.compiled.runs cimport *
from cpubn.backends.compiled.sums cimport row_places

cdef enum:
    COLUMN_PLACES = 64  # samples of a channel's columns from which a pivot is found; of 8 rows at least, if there are


cdef enum Summed:  # of the samples that a pivot is found from
    ALL
    COUNTED  # whose weight is not 0
    COUNTS  # 1 for each of those


cdef inline void leave_counted(real* buffer, const Place* weights, Py_ssize_t first, Py_ssize_t n, Summed what) noexcept nogil:
    """Of n samples in a buffer those that count, or ones for them; 0 in place of the others."""
    cdef double[32] own
    cdef Py_ssize_t i
    gather(weights[0], first, n, own)
    for i in range(n):
        if own[i] == 0.0:
            buffer[i] = 0.0
        elif what == COUNTS:
            buffer[i] = 1.0


cdef inline void add_buffered_places(
    const Job* job, bint wide, const Place* p, const Place* weights, Py_ssize_t first, const Py_ssize_t* starts,
    Py_ssize_t n, Py_ssize_t width, Summed what, double* sums
) noexcept nogil:
    """Add n <= 8 steps of `width` elements, at most as many as lanes, from some elements of x's place on."""
    cdef double buffer[9 * 32]
    cdef Py_ssize_t[8] filled
    cdef Py_ssize_t lanes = 16 if wide else 32, k
    for k in range(n):
        filled[k] = k * lanes
        if wide:
            gather(p[0], first + starts[k], width, buffer + k * lanes)
            if what != ALL:
                leave_counted(buffer + k * lanes, weights, first + starts[k], width, what)
        else:
            gather(p[0], first + starts[k], width, <float*>buffer + k * lanes)
            if what != ALL:
                leave_counted(<float*>buffer + k * lanes, weights, first + starts[k], width, what)
    loops_for(job, wide, False).add_places(buffer, filled, n, sums)


cdef inline double row_pivot(const Job* job, bint wide, Py_ssize_t c) noexcept nogil:
    cdef double sums[32]
    cdef double counts[32]
    cdef Py_ssize_t lanes = 16 if wide else 32, steps = whole_steps(wide, job.inner), total = job.outer * steps
    cdef Py_ssize_t places = row_places(total), start = 0, k, step
    cdef bint weighted = job.weights.data is not NULL
    cdef double count = <double>(places * lanes)
    cdef Place p, w
    clear(sums, 32)
    clear(counts, 32)
    for k in range(places):
        step = total * k // places
        p = channel_place(job, &job.x, step // steps, c, step % steps * lanes, lanes, False)
        w = channel_place(job, &job.weights, step // steps, c, step % steps * lanes, lanes, False)
        add_buffered_places(job, wide, &p, &w, 0, &start, 1, lanes, COUNTED if weighted else ALL, sums)
        if weighted:
            add_buffered_places(job, wide, &p, &w, 0, &start, 1, lanes, COUNTS, counts)
    if weighted:
        count = max(1.0, fold_lanes(wide, counts))
    return as_own(wide, fold_lanes(wide, sums) / count)


cdef inline Py_ssize_t counted_rows(const Place* weights, Py_ssize_t* rows, Py_ssize_t n) noexcept nogil:
    """Of some rows, of one weight each, those that count stay: how many."""
    cdef double[32] weight
    cdef Py_ssize_t v, kept = 0
    for v in range(n):
        gather(weights[0], rows[v] * weights.sizes[0], 1, weight)
        if weight[0] != 0.0:
            rows[kept] = rows[v]
            kept += 1
    return kept


cdef inline void sum_places(
    const Job* job, bint wide, const Place* p, const Place* weights, bint direct, const Py_ssize_t* starts,
    Py_ssize_t places, Py_ssize_t channels, Summed what, double* totals
) noexcept nogil:
    """totals (channels,), of whole lanes, <- sums of the columns of some rows."""
    cdef double sums[SLOTS]
    cdef Py_ssize_t lanes = 16 if wide else 32, width = channels * job.inner * job.together
    cdef Py_ssize_t strips = (width + lanes - 1) // lanes, j, k, v, some_places
    clear(sums, strips * lanes)
    clear(totals, channels + 15)
    for k in range(strips):
        j = strip_start(k, lanes, width)
        for v in range(0, places, 8):
            some_places = min(<Py_ssize_t>8, places - v)
            if direct:
                loops_for(job, wide, True).add_places(address(p, j), starts + v, some_places, sums + k * lanes)
            else:
                add_buffered_places(
                    job, wide, p, weights, j, starts + v, some_places, min(width, lanes), what, sums + k * lanes
                )
    close_up(sums, lanes, width)
    fold_columns(job, sums, channels, totals)


cdef inline void column_pivots(const Job* job, bint wide, Py_ssize_t c0, Py_ssize_t channels) noexcept nogil:
    cdef double totals[GROUP]
    cdef double counts[GROUP]
    cdef Py_ssize_t[COLUMN_PLACES] starts  # of rows, in elements of x's place, or from its start in memory
    cdef Lane[double] means, one = Lane[double](1.0)
    cdef Place p = columns_place(job, &job.x, 0, c0, channels), w = columns_place(job, &job.weights, 0, c0, channels)
    cdef Py_ssize_t lanes = 16 if wide else 32, width = channels * job.inner * job.together
    cdef Py_ssize_t rows = job.outer // job.together, few = job.together * job.inner, step
    cdef Py_ssize_t wanted = max(<Py_ssize_t>8, COLUMN_PLACES // few), places = (wanted * rows - 1) // (rows + wanted) + 1
    cdef Py_ssize_t v, c
    cdef bint direct = wide == (job.x.type == FLOAT64) and width >= lanes and is_row(&p, job.x.type)
    cdef bint weighted = w.data is not NULL and not is_still(&w)
    direct = direct and (job.together == 1 or is_line(&p, width * rows)) and not weighted
    step = job.together * p.steps[1] if direct else width
    for v in range(places):
        starts[v] = v * rows // places
    if is_still(&w):
        places = counted_rows(&w, starts, places)
    for v in range(places):
        starts[v] *= step
    sum_places(job, wide, &p, &w, direct, starts, places, channels, COUNTED if weighted else ALL, totals)
    if weighted:
        sum_places(job, wide, &p, &w, False, starts, places, channels, COUNTS, counts)
    for c in range(0, channels, 16):
        means = Lane[double](<double>max(<Py_ssize_t>1, places * few))
        if weighted:
            means = at_least(load(<const double*>counts + c), one)
        means = load(<const double*>totals + c) / means
        store_some(job.pivots + c0 + c, means if wide else as_single(means), min(<Py_ssize_t>16, channels - c))


cdef inline void find_pivots(Job* job, Py_ssize_t c0, Py_ssize_t n) noexcept nogil:
    """Of the n channels from c0 on, which are to be summed about them next."""
    cdef bint wide = job.x.type == FLOAT64 or job.x.type >= UINT8
    cdef Py_ssize_t c
    if job.columns:
        column_pivots(job, wide, c0, n)
        return
    if sums_directly(job, wide) and job.weights.data is NULL:
        loops_for(job, wide, True).find_row_pivots(job, NULL, c0, c0 + n)
        return
    for c in range(c0, c0 + n):
        job.pivots[c] = row_pivot(job, wide, c)
