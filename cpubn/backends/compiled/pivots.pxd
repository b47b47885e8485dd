# The pivots of moments: a channel's is the mean of samples spread over it, rounded to the data's type. Steps of lanes are
# read at equal distances, so that neither a first sample far away nor a trend moves it; where it is far from the mean all
# the same, the channel is summed again. Sums of a few steps may be rounded: any number near the mean will do.

from cpubn.backends.compiled.chunks cimport *
from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.lanes cimport *
from cpubn.backends.compiled.runs cimport *
from cpubn.backends.compiled.sums cimport SIDE_BY_SIDE, fetch

cdef enum:
    COLUMN_PLACES = 64  # samples of a channel's columns from which a pivot is found; of 8 rows at least, if there are
    ROW_PLACES = 16  # steps of lanes from which a pivot is found, where all lanes are of its channel


cdef inline void add_places(const sample* x, const Py_ssize_t* starts, Py_ssize_t n, double* sums) noexcept nogil:
    """Add n steps of lanes to the sums from which a pivot is found."""
    cdef Lane[sample] s = Lane[sample](0.0)
    cdef Py_ssize_t j
    for j in range(n):
        s = s + load(x + starts[j])
    add_to(sums, s)


cdef inline Py_ssize_t row_places(Py_ssize_t steps) noexcept nogil:
    """Of so many steps of lanes, how many a pivot is found from: 2 at least, if there are."""
    return min(steps, min(<Py_ssize_t>ROW_PLACES, max(<Py_ssize_t>2, steps >> 3)))


cdef inline void find_row_pivots(Job* job, const sample* x, Py_ssize_t c0, Py_ssize_t c1) noexcept nogil:
    """Pivots of channels whose inner runs are direct rows."""
    cdef double all[SIDE_BY_SIDE * 16]
    cdef Py_ssize_t starts[ROW_PLACES]
    cdef const sample* row
    cdef Sum[sample] s
    cdef Lane[double] pivots
    cdef Py_ssize_t lanes = lanes_of(x), steps = job.inner // lanes, total = job.outer * steps, first, k, n, j, step
    cdef Py_ssize_t places = row_places(total)
    for j in range(places):
        step = total * j // places
        starts[j] = step // steps * job.x.outer + step % steps * lanes
    for first in range(c0, c1, 16):  # SIDE_BY_SIDE
        n = min(<Py_ssize_t>SIDE_BY_SIDE, c1 - first)
        for k in range(n):
            row = <const sample*>job.x.data + (first + k) * job.x.channel
            s = Sum[sample](0.0)
            for j in range(places):
                if job.far:
                    fetch(<const char*>(row + job.x.channel + starts[j]))
                s.pending = load(row + starts[j])
                s.put_away()
            store(all + 16 * k, sixteen(s))
        if n == 1:
            job.pivots[first] = as_own(sample is double, fold(load(all)) / <double>(places * lanes))
            continue
        pivots = fold_rows(all) / Lane[double](<double>(places * lanes))
        store_some(job.pivots + first, pivots if sample is double else as_single(pivots), n)


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
    cdef double sums[64]
    cdef Py_ssize_t lanes = 16 if wide else 32, steps = whole_steps(wide, job.inner), total = job.outer * steps
    cdef Py_ssize_t places = row_places(total), start = 0, k, step, way
    cdef bint weighted = job.weights.data is not NULL
    cdef double count = <double>(places * lanes)
    cdef Place p, w
    clear(sums, 64)
    for k in range(places):
        step = total * k // places
        p = channel_place(job, &job.x, step // steps, c, step % steps * lanes, lanes, False)
        w = channel_place(job, &job.weights, step // steps, c, step % steps * lanes, lanes, False)
        for way in range(2 if weighted else 1):
            add_buffered_places(
                job, wide, &p, &w, 0, &start, 1, lanes, COUNTS if way else COUNTED if weighted else ALL, sums + 32 * way
            )
    if weighted:
        count = max(1.0, fold_lanes(wide, sums + 32))
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
    cdef double totals[2 * GROUP]
    cdef Py_ssize_t[COLUMN_PLACES] starts  # of rows, in elements of x's place, or from its start in memory
    cdef Lane[double] means, one = Lane[double](1.0)
    cdef Place p = columns_place(job, &job.x, 0, c0, channels), w = columns_place(job, &job.weights, 0, c0, channels)
    cdef Py_ssize_t lanes = 16 if wide else 32, width = channels * job.inner * job.together
    cdef Py_ssize_t rows = job.outer // job.together, few = job.together * job.inner, step
    cdef Py_ssize_t wanted = max(<Py_ssize_t>8, COLUMN_PLACES // few), places = (wanted * rows - 1) // (rows + wanted) + 1
    cdef Py_ssize_t v, c, way
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
    for way in range(2 if weighted else 1):  # one call for both: inlined twice, it took 10 KB
        sum_places(
            job, wide, &p, &w, direct, starts, places, channels, COUNTS if way else COUNTED if weighted else ALL,
            totals + GROUP * way
        )
    for c in range(0, channels, 16):
        means = Lane[double](<double>max(<Py_ssize_t>1, places * few))
        if weighted:
            means = at_least(load(<const double*>totals + GROUP + c), one)
        means = load(<const double*>totals + c) / means
        store_some(job.pivots + c0 + c, means if wide else as_single(means), min(<Py_ssize_t>16, channels - c))


cdef inline void find_pivots(Job* job, Py_ssize_t c0, Py_ssize_t n) noexcept nogil:
    """Of the n channels from c0 on, which are to be summed about them next, in float64 where all of their sums are."""
    cdef bint wide = job.x.type == FLOAT64 or job.x.type >= UINT8 or job.weights.type == FLOAT64
    cdef Py_ssize_t c
    if job.columns:
        column_pivots(job, wide, c0, n)
        return
    if sums_directly(job, wide) and job.weights.data is NULL:
        loops_for(job, wide, True).find_row_pivots(job, NULL, c0, c0 + n)
        return
    for c in range(c0, c0 + n):
        job.pivots[c] = row_pivot(job, wide, c)
