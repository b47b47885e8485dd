# Two sums a channel about one pivot K, a number of the data's type:
#
#     moments:    s = sum(x - K),   q = sum((x - K) ** 2)
#     gradient:   s = sum(g),       q = sum(g * (x - K))      g: dy, through the gradient of an activation if there is one
#
# Steps of lanes are added in pairs, in the type that is computed in, and after at most STEPS / 2 additions to float64 sums,
# also across the outer rows where these are short. With u = 2**-24, float32: a term passes through 4 additions, so that a block's s is off by 4 u sum|d| and its q, whose squares are rounded too, by
# 5 u q. That x - K is rounded moves a sample by u |d|. Where q <= FAR * m2, FAR = 1.25, m2 being sum((x - mean) ** 2):
#
#     mean:      (1 + 4) sqrt(FAR) u                                              < 5.6 u of the standard deviation
#     variance:  2 sqrt(FAR) u + 5 FAR u + 2 * 4 sqrt(FAR (FAR - 1)) u            < 13 u = 7.8e-7 of itself
#
# of which y = (x - mean) / sqrt(var) takes the first and half the second: 12.1 u, and 4 u |y| of its own roundings, which
# is 1e-6 where |y| >= 1. A channel that fails is summed once more about the mean just found; one whose squares may have
# been lost, being tiny, or whose sums are not finite, in float64. All of that is a function of data and shape alone.
# Of the gradient: (4 + 1) u sum|g| and (4 + 3) u sum|g d| hold unconditionally. float64 sums take the same way.
# Moves: every sample once.

from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.lanes cimport *
from cpubn.backends.compiled.prologue cimport *
from cpubn.backends.compiled.runs cimport *

cdef enum:
    STEPS = 8
    AHEAD = 1024  # elements of a row that are asked for before they are needed
    SIDE_BY_SIDE = 16  # channels whose lanes are folded together

cdef enum Terms:
    MOMENTS  # d, d * d
    GRADIENTS  # dy, dy * d
    THROUGH  # g, g * d
    WEIGHTED  # w * d, w * d * d, or g, g * d; and nothing where w is 0

cdef enum:  # bits of what a loop does, which its compiler knows
    WHOLE_LANES = 1  # no lanes were counted before
    MASKED = 2  # w is 0 or 1


cdef inline Lane[sample] take(
    const Job* job, const sample* x, Strip* strip, Terms terms, int kind, Lane[sample] centre, Lane[sample]* g
) noexcept nogil:
    """x - K and g of one step; on to the next one."""
    cdef Lane[sample] d = load(<const sample*>strip.spot.x) - centre, w, nothing
    cdef bint backward = job.backward if terms == WEIGHTED else terms != MOMENTS
    g[0] = d
    if backward:
        if terms == GRADIENTS or (terms == WEIGHTED and job.prologue == NO_PROLOGUE):
            g[0] = load(<const sample*>strip.spot.dy)
        elif job.prologue == BY_Z:
            g[0] = gradient_of(
                job, x, &strip.spot, 0, NULL,
                d * lanes_at(x, strip.table, strip.length) + lanes_at(x, strip.table, 2 * strip.length)
            )
        else:
            g[0] = gradient_of(job, x, &strip.spot, 0, NULL, d)
        strip.spot.dy += strip.dy_step * <Py_ssize_t>sizeof(sample)
    if terms == THROUGH or terms == WEIGHTED:
        strip.spot.bit += strip.bit_step
        strip.spot.kept += strip.kept_step * <Py_ssize_t>sizeof(sample)
        if strip.spot.residual is not NULL:
            strip.spot.residual += strip.residual_step * <Py_ssize_t>sizeof(sample)
    if kind & MASKED:
        d = kept_by(d, strip.spot.weights, strip.weights_still)
        g[0] = d if terms == MOMENTS else kept_by(g[0], strip.spot.weights, strip.weights_still)
        strip.spot.weights += strip.weights_step
    elif terms == WEIGHTED:  # what does not count may be anything
        w = weights_at(x, strip.weights_type, strip.spot.weights, strip.weights_still)
        nothing = Lane[sample](0.0)
        d = counted(w, d, nothing)
        g[0] = counted(w, g[0] if backward else w * d, nothing)
        strip.spot.weights += strip.weights_step
    if not kind & WHOLE_LANES:
        d = last(d, strip.keep)
        g[0] = last(g[0], strip.keep)
    strip.spot.x += strip.x_step * <Py_ssize_t>sizeof(sample)
    return d


cdef inline Py_ssize_t of_weights(Terms terms, int kind, Py_ssize_t bytes) noexcept nogil:
    """0 in loops without any: moved there as well, their pointer cost what is summed in cache up to a fifth."""
    return bytes if terms == WEIGHTED or kind & MASKED else 0


cdef inline void fetch(const char* p) noexcept nogil:
    """Ask for lanes that will be read soon."""
    prefetch(p)
    prefetch(p + 64)


cdef inline Lane[sample] take_rest(
    const Job* job, const sample* x, Strip* strip, Terms terms, int kind, Py_ssize_t rest, Lane[sample] centre,
    Lane[sample]* g
) noexcept nogil:
    """x - K and g of the `rest` elements behind the last whole step: the last lanes, of which the others were counted."""
    cdef Py_ssize_t back = rest - lanes_of(x), bytes = back * <Py_ssize_t>sizeof(sample), keep = strip.keep
    cdef Lane[sample] d
    cdef Py_ssize_t weights = 0 if strip.weights_still else back * size_of(strip.weights_type)
    move_spot(&strip.spot, bytes, bytes, bytes, bytes, back, of_weights(terms, kind, weights))
    strip.keep = rest
    d = take(job, x, strip, terms, kind - (kind & WHOLE_LANES), centre, g)
    strip.keep = keep
    return d


cdef inline void add_rows_of(
    const Job* job, const sample* x, Strip* given, Terms terms, int kind, Py_ssize_t rows, Py_ssize_t steps,
    Py_ssize_t rest, Sum[sample]* s_to, Sum[sample]* q_to
) noexcept nogil:
    cdef Strip own = given[0]  # which no store can change, as far as the compiler knows
    cdef Strip* strip = &own
    cdef Py_ssize_t size = sizeof(sample), row, done, j, pending = strip.pending, more
    cdef Lane[sample] centre = lanes_at(x, strip.table, 0), d, e, g, h
    cdef Sum[sample] s = s_to[0], q = q_to[0]
    cdef Spot start
    for row in range(rows):
        start = strip.spot
        done = 0
        while steps - done > 0:
            more = min(steps - done, <Py_ssize_t>STEPS)
            if pending + (more + 1) // 2 > STEPS // 2:
                s.put_away()
                q.put_away()
                pending = 0
            if strip.ahead:
                for j in range(more):
                    fetch(strip.spot.x + (j * strip.x_step + strip.ahead) * size)
                    if terms != MOMENTS:
                        fetch(strip.spot.dy + (j * strip.dy_step + strip.dy_ahead) * size)
            if kind == WHOLE_LANES and terms != THROUGH and more == STEPS:  # of a length that the compiler knows
                for j in range(STEPS // 2):
                    d = take(job, x, strip, terms, kind, centre, &g)
                    e = take(job, x, strip, terms, kind, centre, &h)
                    s.pending = s.pending + (g + h)
                    q.pending = plus(g * d + h * e, q.pending)
            else:
                for j in range(more // 2):
                    d = take(job, x, strip, terms, kind, centre, &g)
                    e = take(job, x, strip, terms, kind, centre, &h)
                    s.pending = s.pending + (g + h)
                    q.pending = plus(g * d + h * e, q.pending)
                if more % 2:
                    d = take(job, x, strip, terms, kind, centre, &g)
                    s.pending = s.pending + g
                    q.pending = plus(g * d, q.pending)
            pending += (more + 1) // 2
            done += more
        if rest:
            if pending + 1 > STEPS // 2:
                s.put_away()
                q.put_away()
                pending = 0
            d = take_rest(job, x, strip, terms, kind, rest, centre, &g)
            s.pending = s.pending + g
            q.pending = plus(g * d, q.pending)
            pending += 1
        strip.spot = start
        move_spot(
            &strip.spot, job.x.outer * size, job.dy.outer * size, job.residual.outer * size, job.kept.outer * size,
            job.signs.outer, of_weights(terms, kind, job.weights.outer * job.weights.size)
        )
    given.pending = pending
    s_to[0], q_to[0] = s, q


cdef inline void add_weighted(
    const Job* job, const sample* x, Strip* strip, Py_ssize_t rows, Py_ssize_t steps, Py_ssize_t rest,
    Sum[sample]* s, Sum[sample]* q
) noexcept nogil:
    """The same where samples have weights, for channels and columns alike; masks have loops of their own."""
    if sample is float:
        if strip.weights_type == UINT8 and strip.keep == lanes_of(x) and job.prologue == NO_PROLOGUE:
            if job.backward:
                add_rows_of(job, x, strip, GRADIENTS, MASKED + WHOLE_LANES, rows, steps, rest, s, q)
            else:
                add_rows_of(job, x, strip, MOMENTS, MASKED + WHOLE_LANES, rows, steps, rest, s, q)
            return
    add_rows_of(job, x, strip, WEIGHTED, 0, rows, steps, rest, s, q)


cdef inline void add_terms(
    const Job* job, const sample* x, Strip* strip, Py_ssize_t rows, Py_ssize_t steps, Py_ssize_t rest,
    Sum[sample]* s, Sum[sample]* q
) noexcept nogil:
    """Add steps of lanes, and the rest behind them, of outer rows, by a loop of its own for each kind of terms."""
    cdef bint whole = strip.keep == lanes_of(x)
    cdef Strip own  # what is passed on by its address is no constant, and in no register
    cdef Sum[sample] own_s, own_q
    if job.weights.data is not NULL:
        if sample is float or sample is double:  # halves are floats by then
            own, own_s, own_q = strip[0], s[0], q[0]
            loops_for(job, sample is double, False).add_weighted(job, x, &own, rows, steps, rest, &own_s, &own_q)
            strip.pending, s[0], q[0] = own.pending, own_s, own_q
    elif job.prologue != NO_PROLOGUE:
        add_rows_of(job, x, strip, THROUGH, 0, rows, steps, rest, s, q)
    elif job.backward and whole:
        add_rows_of(job, x, strip, GRADIENTS, WHOLE_LANES, rows, steps, rest, s, q)
    elif job.backward:
        add_rows_of(job, x, strip, GRADIENTS, 0, rows, steps, rest, s, q)
    elif whole:
        add_rows_of(job, x, strip, MOMENTS, WHOLE_LANES, rows, steps, rest, s, q)
    else:
        add_rows_of(job, x, strip, MOMENTS, 0, rows, steps, rest, s, q)


cdef inline void add_rows(
    const Job* job, const sample* x, Strip* strip, Py_ssize_t rows, Py_ssize_t steps, Py_ssize_t rest
) noexcept nogil:
    """Add outer rows to a strip's sums, or to what is waiting for them."""
    cdef Sum[sample] s = Sum[sample](0.0), q = s
    s.load_total(strip.s)
    q.load_total(strip.q)
    if strip.pending:
        s.pending, q.pending = lanes_at(x, strip.waiting, 0), lanes_at(x, strip.waiting + 16, 0)
    add_terms(job, x, strip, rows, steps, rest, &s, &q)
    if strip.closes:
        s.put_away()
        q.put_away()
        strip.pending = 0
    else:
        keep_lanes(x, strip.waiting, s.pending)
        keep_lanes(x, strip.waiting + 16, q.pending)
    s.store_total(strip.s)
    q.store_total(strip.q)


cdef inline void add_channels(const Job* job, const sample* x, const Rows* rows) noexcept nogil:
    """Add a chunk of each channel that is to be summed in this type, where every array is direct, to s and q."""
    cdef double table[3 * 32]
    cdef double all_s[SIDE_BY_SIDE * 16]
    cdef double all_q[SIDE_BY_SIDE * 16]
    cdef Strip strip
    cdef Sum[sample] s, q
    cdef Py_ssize_t lanes = lanes_of(x), length = rows.i1 - rows.i0, first, c, k, n
    strip.table, strip.length, strip.keep = table, 64 if lanes == 32 else 32, lanes
    strip.x_step = strip.dy_step = strip.residual_step = strip.kept_step = strip.bit_step = lanes
    strip.weights_type, strip.weights_still = job.weights.type, job.weights.inner == 0
    strip.weights_step = lanes * job.weights.inner * job.weights.size
    strip.ahead = strip.dy_ahead = AHEAD if job.far else 0
    for first in range(rows.c0, rows.c1, 16):  # SIDE_BY_SIDE
        n = min(<Py_ssize_t>SIDE_BY_SIDE, rows.c1 - first)
        for k in range(n):
            c = first + k
            if not is_summed_as(job, x, c):
                continue
            keep_lanes(x, table, Lane[sample](job.pivots[c]))
            if job.prologue == BY_Z:
                keep_lanes(x, table + 32, Lane[sample](job.coefficients[job.channels + c]))
                keep_lanes(x, table + 64, Lane[sample](job.coefficients[2 * job.channels + c]))
            s = q = Sum[sample](0.0)
            strip.pending = 0
            strip.spot = spot_of(job, rows.o0, c, rows.i0)
            add_terms(job, x, &strip, rows.o1 - rows.o0, length // lanes, length % lanes, &s, &q)
            s.put_away()
            q.put_away()
            store(all_s + 16 * k, sixteen(s))
            store(all_q + 16 * k, sixteen(q))
        k = first - rows.c0
        if n == 1:
            rows.s[k] += fold(load(all_s))
            rows.q[k] += fold(load(all_q))
        else:
            store_some(rows.s + k, some(rows.s + k, n) + fold_rows(all_s), n)
            store_some(rows.q + k, some(rows.q + k, n) + fold_rows(all_q), n)


cdef inline bint is_summed_as(const Job* job, const sample* x, Py_ssize_t c) noexcept nogil:
    return summed_in(job, sample is double, c)
