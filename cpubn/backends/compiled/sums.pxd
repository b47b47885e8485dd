# Two sums a channel about one pivot K, a number of the data's type:
#
#     moments:    s = sum(x - K),   q = sum((x - K) ** 2)
#     gradient:   s = sum(g),       q = sum(g * (x - K))      g: dy, through the gradient of an activation if there is one
#
# STEPS steps of lanes are added in pairs, in the type that is computed in, then to float64 sums. With u = 2**-24, float32:
# a term passes through 4 additions, so that a block's s is off by 4 u sum|d| and its q, whose squares are rounded too, by
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

cdef enum Terms:
    MOMENTS  # d, d * d
    GRADIENTS  # dy, dy * d
    THROUGH  # g, g * d


cdef inline Lane[sample] take(
    const Job* job, const sample* x, Strip* strip, Terms terms, bint whole, Lane[sample] centre, Lane[sample]* g
) noexcept nogil:
    """x - K and g of one step; on to the next one."""
    cdef Lane[sample] d = load(<const sample*>strip.spot.x) - centre
    g[0] = d
    if terms != MOMENTS:
        if terms == GRADIENTS:
            g[0] = load(<const sample*>strip.spot.dy)
        elif job.prologue == BY_Z:
            g[0] = gradient_of(
                job, x, &strip.spot,
                d * lanes_at(x, strip.table, strip.length) + lanes_at(x, strip.table, 2 * strip.length)
            )
        else:
            g[0] = gradient_of(job, x, &strip.spot, d)
        strip.spot.dy += strip.dy_step * <Py_ssize_t>sizeof(sample)
    if terms == THROUGH:
        strip.spot.bit += strip.bit_step
        strip.spot.kept += strip.kept_step * <Py_ssize_t>sizeof(sample)
        if strip.spot.residual is not NULL:
            strip.spot.residual += strip.residual_step * <Py_ssize_t>sizeof(sample)
    if not whole:
        d = last(d, strip.keep)
        g[0] = last(g[0], strip.keep)
    strip.spot.x += strip.x_step * <Py_ssize_t>sizeof(sample)
    return d


cdef inline void fetch(const char* p) noexcept nogil:
    """Ask for lanes that will be read soon."""
    prefetch(p)
    prefetch(p + 64)


cdef inline void add_block(
    const Job* job, const sample* x, Strip* strip, Terms terms, bint whole, Py_ssize_t steps
) noexcept nogil:
    """Add up to STEPS steps to the sums."""
    cdef Lane[sample] centre = lanes_at(x, strip.table, 0)
    cdef Lane[sample] s = Lane[sample](0.0), q = Lane[sample](0.0), d, e, g, h
    cdef Py_ssize_t j
    if strip.ahead:
        for j in range(steps):
            fetch(strip.spot.x + (j * strip.x_step + strip.ahead) * <Py_ssize_t>sizeof(sample))
            if terms != MOMENTS:
                fetch(strip.spot.dy + (j * strip.dy_step + strip.dy_ahead) * <Py_ssize_t>sizeof(sample))
    for j in range(steps // 2):
        d = take(job, x, strip, terms, whole, centre, &g)
        e = take(job, x, strip, terms, whole, centre, &h)
        s = s + (g + h)
        q = plus(g * d + h * e, q)
    if steps % 2:
        d = take(job, x, strip, terms, whole, centre, &g)
        s = s + g
        q = plus(g * d, q)
    add_to(strip.s, s)
    add_to(strip.q, q)


cdef inline void add_terms(
    const Job* job, const sample* x, Strip* strip, Terms terms, bint whole, Py_ssize_t steps
) noexcept nogil:
    cdef Py_ssize_t done = 0
    if whole and terms != THROUGH:  # blocks of a length that the compiler knows
        while steps - done >= STEPS:
            add_block(job, x, strip, terms, whole, STEPS)
            done += STEPS
    while done < steps:
        add_block(job, x, strip, terms, whole, min(steps - done, <Py_ssize_t>STEPS))
        done += STEPS


cdef inline void add_steps(const Job* job, const sample* x, Strip* strip, Py_ssize_t steps) noexcept nogil:
    """Add any number of steps to the sums, by a loop of its own for each kind of terms."""
    cdef bint whole = strip.keep == lanes_of(x)
    if job.prologue != NO_PROLOGUE:
        add_terms(job, x, strip, THROUGH, False, steps)
    elif job.backward and whole:
        add_terms(job, x, strip, GRADIENTS, True, steps)
    elif job.backward:
        add_terms(job, x, strip, GRADIENTS, False, steps)
    elif whole:
        add_terms(job, x, strip, MOMENTS, True, steps)
    else:
        add_terms(job, x, strip, MOMENTS, False, steps)


cdef inline void add_places(const sample* x, Py_ssize_t step, Py_ssize_t n, double* sums) noexcept nogil:
    """Add n steps of lanes, `step` elements apart, to the sums from which a pivot is found."""
    cdef Lane[sample] s = Lane[sample](0.0)
    cdef Py_ssize_t j
    for j in range(n):
        s = s + load(x + j * step)
    add_to(sums, s)
