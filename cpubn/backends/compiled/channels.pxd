# What follows from the sums of a channel, 16 channels at a time: whether they stand, its results, its coefficients.

from libc.string cimport memchr, memset

from cpubn.backends.compiled.chunks cimport *
from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.lanes cimport *
from cpubn.backends.compiled.sums cimport SIDE_BY_SIDE

cdef extern from *:
    const double FAR "1.25"  # see sums.pxd
    const double FAR_OF_WEIGHTED "1.125"
    const double LOST "0x1p-110"  # of a sample: below, squares and products may have lost bits as denormal numbers
    const double INFINITY "HUGE_VAL"
cdef enum:  # bits of Job.wide
    WIDE_MAP = 1
    WIDE_Z = 2

ctypedef Lane[double] Channels


cdef inline Channels total(const Job* job, Py_ssize_t row, Py_ssize_t c, Py_ssize_t n) noexcept nogil:
    """The sum of the spans of n <= SIDE_BY_SIDE channels from c on, in turn."""
    cdef const double* part = job.parts + row * job.channels + c
    cdef Channels sums = some(part, n)
    cdef Py_ssize_t span
    for span in range(1, job.spans):
        sums = sums + some(part + 2 * span * job.channels, n)
    return sums


cdef inline Channels counts_of(const Job* job, Py_ssize_t c, Py_ssize_t n) noexcept nogil:
    """What to divide by: samples, or their weights; where none counts 1, since all sums are 0."""
    cdef Channels counts, one = Channels(1.0)
    if job.counts is NULL:
        return Channels(<double>(job.outer * job.inner))
    counts = some(job.counts + c, n)
    return select(counts == Channels(0.0), one, counts)


cdef inline Channels centre_of(const Job* job, Channels mean) noexcept nogil:
    """The mean as a number of the type that is computed in."""
    return mean if job.x.type == FLOAT64 else as_single(mean)


cdef inline Py_ssize_t next_state(Job* job, Py_ssize_t c, bint lost, bint far, double mean) noexcept nogil:
    """Settle how a channel whose sums do not stand is summed once more; 0 where they must stand."""
    cdef uint8_t state = job.states[c]
    if state == DONE:
        return 0
    if job.x.type == FLOAT64:
        lost = False
    if state < IN_DOUBLE and (lost or (far and state == ABOUT_MEAN)):
        job.states[c] = IN_DOUBLE_ABOUT_MEAN if job.backward else IN_DOUBLE
        if not -INFINITY < job.pivots[c] < INFINITY:
            job.pivots[c] = 0.0
        return 1
    if far and (state == ABOUT_SAMPLES or state == IN_DOUBLE) and -INFINITY < mean < INFINITY:
        job.states[c] = ABOUT_MEAN if state == ABOUT_SAMPLES else IN_DOUBLE_ABOUT_MEAN
        job.pivots[c] = <double><float>mean if state == ABOUT_SAMPLES and job.x.type != FLOAT64 else mean
        return 1
    job.states[c] = DONE
    return 0


cdef inline Py_ssize_t close_moments(Job* job, Py_ssize_t c, Py_ssize_t n) noexcept nogil:
    """mean, its low word and m2 of n channels from c on; how many of them are to be summed once more."""
    cdef double means[SIDE_BY_SIDE]
    cdef Channels s = total(job, 0, c, n), q = total(job, 1, c, n), count = counts_of(job, c, n)
    cdef Channels offset = s / count
    cdef Channels m2 = at_least(q - s * offset, Channels(0.0))
    cdef Pair mean = two_sum(some(job.pivots + c, n), offset)
    cdef uint32_t sound = pack(q < Channels(INFINITY)) & ~pack(q < count * Channels(LOST))
    cdef uint32_t near = pack(q <= Channels(FAR if job.counts is NULL else FAR_OF_WEIGHTED) * m2)
    cdef Py_ssize_t again = 0, i
    m2 = m2 + Channels(0.0) * m2  # infinite, it becomes NaN: a variance that overflowed must not divide to zero
    store_some(job.result + c, mean.high, n)
    store_some(job.result + job.channels + c, mean.low, n)
    store_some(job.result + 2 * job.channels + c, m2, n)
    if n == SIDE_BY_SIDE and (sound & near) == 0xffff:
        memset(job.states + c, DONE, SIDE_BY_SIDE)
    else:
        store(means, mean.high)
        for i in range(n):
            again += next_state(job, c + i, not sound >> i & 1, not near >> i & 1, means[i])
    return again


cdef inline Channels first_sums(const Job* job, Py_ssize_t c, Py_ssize_t n, Channels s0) noexcept nogil:
    """sum(g), in which there is no x: a channel summed once more for its products keeps the first one, if that stood."""
    cdef double sums[SIDE_BY_SIDE]
    cdef Py_ssize_t i
    if memchr(job.states + c, IN_DOUBLE_ABOUT_MEAN, n) is NULL:
        return s0
    store(sums, s0)
    for i in range(n):
        if job.states[c + i] == IN_DOUBLE_ABOUT_MEAN and -INFINITY < job.result[c + i] < INFINITY:
            sums[i] = job.result[c + i]
    return load(<const double*>sums)


cdef inline Py_ssize_t close_gradient(Job* job, Py_ssize_t c, Py_ssize_t n) noexcept nogil:
    """s0 = sum(g) and s1 = sum(g * (x - mean)) of n channels from c on; how many are to be summed once more."""
    cdef Channels s0 = first_sums(job, c, n, total(job, 0, c, n)), q = total(job, 1, c, n), size = magnitude(q)
    cdef Channels shift = (some(job.pivots + c, n) - some(job.mean + c, n)) - some(job.mean_low + c, n)
    cdef uint32_t sound = pack(magnitude(s0) < Channels(INFINITY)) & pack(size < Channels(INFINITY))
    cdef Py_ssize_t again = 0, i
    sound &= ~pack(size < counts_of(job, c, n) * Channels(LOST))
    store_some(job.result + c, s0, n)
    store_some(job.result + job.channels + c, q + shift * s0, n)
    if n == SIDE_BY_SIDE and sound == 0xffff:
        memset(job.states + c, DONE, SIDE_BY_SIDE)
    else:
        for i in range(n):
            again += next_state(job, c + i, not sound >> i & 1, False, 0.0)
    return again


cdef inline void set_affine(Job* job, Py_ssize_t c, Py_ssize_t n, Channels mean, Channels low, Channels var) noexcept nogil:
    """centre, scale and shift of n channels from c on."""
    cdef double* a = job.coefficients + c
    cdef Channels centre = centre_of(job, mean), bias = Channels(0.0), scale
    scale = some(job.weight + c, n) * rstd(var, Channels(job.eps))
    if job.bias is not NULL:
        bias = some(job.bias + c, n)
    store_some(a, centre, n)
    store_some(a + FACTOR * job.channels, scale, n)
    store_some(a + SHIFT * job.channels, bias + ((centre - mean) - low) * scale, n)


cdef inline void set_gradient(Job* job, Py_ssize_t c, Py_ssize_t n) noexcept nogil:
    """r, s and k of n channels from c on, and scale as r * weight."""
    cdef double* a = job.coefficients + c
    cdef Channels count = counts_of(job, c, n), centre = some(a, n)
    cdef Channels s0 = some(job.result + c, n), s1 = some(job.result + job.channels + c, n)
    cdef Channels r = rstd(some(job.var + c, n), Channels(job.eps)), s = s1 * r / count
    cdef Channels shift = (centre - some(job.mean + c, n)) - some(job.mean_low + c, n)
    store_some(a + RSTD * job.channels, r, n)
    store_some(a + SLOPE * job.channels, s, n)
    store_some(a + LEVEL * job.channels, s0 / count + shift * r * s, n)


cdef inline uint32_t wide_maps(const Job* job, Py_ssize_t c, Py_ssize_t n) noexcept nogil:
    """Which of n channels from c on have a map that float32 would overflow in, or lose digits."""
    cdef const double* a = job.coefficients + c
    cdef Channels scale = some(a + FACTOR * job.channels, n), nothing = Channels(0.0)
    if job.map == SCALE:
        return pack(forward_is_wide(nothing, scale, nothing))
    if job.map == AFFINE:
        return pack(forward_is_wide(some(a, n), scale, some(a + SHIFT * job.channels, n)))
    return pack(
        backward_is_wide(
            some(a, n), some(a + RSTD * job.channels, n), some(a + SLOPE * job.channels, n),
            some(a + LEVEL * job.channels, n), scale
        )
    )


cdef inline void set_wide(Job* job, Py_ssize_t c, Py_ssize_t n) noexcept nogil:
    cdef const double* a = job.coefficients + c
    cdef uint32_t maps = 0, zs = 0
    cdef Py_ssize_t i
    if job.x.type != FLOAT64:
        maps = wide_maps(job, c, n)
        if job.prologue == BY_Z:
            zs = pack(
                forward_is_wide(some(a, n), some(a + FACTOR * job.channels, n), some(a + SHIFT * job.channels, n))
            )
    if not maps | zs:
        memset(job.wide + c, 0, n)
        return
    for i in range(n):
        job.wide[c + i] = WIDE_MAP * (maps >> i & 1) | WIDE_Z * (zs >> i & 1)


cdef inline void lay_out(Job* job, real* table, Py_ssize_t c0, Py_ssize_t c1) noexcept nogil:
    """The coefficients of the channels c0 to c1, column by column, and again while the period goes on."""
    cdef Py_ssize_t kinds = COEFFICIENTS if job.backward else SHIFT + 1, k, c, i, row = job.channels * job.inner
    cdef const double* a
    for k in range(kinds):
        a = job.coefficients + k * job.channels
        if job.inner == 1:
            for c in range(c0, c1):
                table[c] = <real>a[c]
        else:
            for c in range(c0, c1):
                for i in range(job.inner):
                    table[c * job.inner + i] = <real>a[c]
        c = row
        while c < job.length:
            for i in range(c0 * job.inner, min(c1 * job.inner, job.length - c)):
                table[c + i] = table[i]
            c += row
        table += job.length


cdef inline void set_coefficients(Job* job, Py_ssize_t c0, Py_ssize_t c1) noexcept nogil:
    """What the elementwise pass over the channels c0 to c1 needs, from their results."""
    cdef Py_ssize_t c, n, m = job.channels
    for c in range(c0, c1, 16):
        n = min(c1 - c, <Py_ssize_t>SIDE_BY_SIDE)
        if job.map == GRADIENT:
            set_gradient(job, c, n)
        elif job.sums and job.map == AFFINE:
            set_affine(
                job, c, n, some(job.result + c, n), some(job.result + m + c, n),
                some(job.result + 2 * m + c, n) / counts_of(job, c, n)
            )
        set_wide(job, c, n)
    if job.table is not NULL:
        if job.x.type == FLOAT64:
            lay_out(job, <double*>job.table, c0, c1)
        else:
            lay_out(job, <float*>job.table, c0, c1)


cdef inline Py_ssize_t close_channels(Job* job, Py_ssize_t c0, Py_ssize_t c1) noexcept nogil:
    """Settle the channels c0 to c1 by their sums; how many are to be summed once more."""
    cdef Py_ssize_t c, again = 0
    for c in range(c0, c1, 16):
        if job.backward:
            again += close_gradient(job, c, min(c1 - c, <Py_ssize_t>SIDE_BY_SIDE))
        else:
            again += close_moments(job, c, min(c1 - c, <Py_ssize_t>SIDE_BY_SIDE))
    if again == 0 and job.apply:
        set_coefficients(job, c0, c1)
    return again


cdef inline void prepare(Job* job, Py_ssize_t c0, Py_ssize_t c1) noexcept nogil:
    """What is known of the channels c0 to c1 before their sums are."""
    cdef Py_ssize_t c, n
    # Squares of integers need not be rounded; and weights that float32 lacks are not.
    cdef bint exact = job.x.type == FLOAT64 or job.x.type >= UINT8 or job.weights.type == FLOAT64
    cdef Channels low = Channels(0.0)
    if not job.given and (job.backward or not job.sums):  # by statistics that are given
        for c in range(c0, c1, 16):
            n = min(c1 - c, <Py_ssize_t>SIDE_BY_SIDE)
            if job.mean_low is not NULL:
                low = some(job.mean_low + c, n)
            set_affine(job, c, n, some(job.mean + c, n), low, some(job.var + c, n))
            store_some(job.pivots + c, some(job.coefficients + c, n), n)
    if job.apply and (job.map == SCALE or not job.sums):
        set_coefficients(job, c0, c1)
    elif job.prologue == BY_Z:
        for c in range(c0, c1, 16):
            set_wide(job, c, min(c1 - c, <Py_ssize_t>SIDE_BY_SIDE))
    if not job.sums:
        return
    memset(job.states + c0, IN_DOUBLE if exact else ABOUT_MEAN if job.backward else ABOUT_SAMPLES, c1 - c0)
    if job.prologue == BY_Z:
        for c in range(c0, c1):
            if job.wide[c] & WIDE_Z:
                job.states[c] = IN_DOUBLE


cdef inline void widen_vector(const float* v, Py_ssize_t n, double* into) noexcept nogil:
    cdef Py_ssize_t c
    for c in range(n):
        into[c] = v[c]


cdef inline void narrow_vector(const double* v, Py_ssize_t n, float* into) noexcept nogil:
    cdef Py_ssize_t c
    for c in range(n):
        into[c] = <float>v[c]


cdef inline void move_running(
    double* running, const double* stats, Py_ssize_t n, double count, const double* counts, double share
) noexcept nogil:
    """Means (n,), then variances (n,), by stats (3, n) of a batch: algebra.running_update and unbiased.

    Of as many values a channel, or of each its own, if there are counts; one without any stays as it is.
    """
    cdef Py_ssize_t c
    for c in range(n):
        if counts is not NULL:
            count = counts[c]
        if count == 0.0:
            continue
        running[c] = (1.0 - share) * running[c] + share * stats[c]
        running[n + c] = (1.0 - share) * running[n + c] + share * (stats[2 * n + c] / (count - 1.0))


cdef inline void scale_by_rstd(double* v, const double* var, Py_ssize_t n, double eps) noexcept nogil:
    """v (n,) *= 1 / sqrt(var + eps): sum(g * (x - mean)) becomes the gradient of the weight."""
    cdef Py_ssize_t c, some_n
    for c in range(0, n, 16):
        some_n = min(n - c, <Py_ssize_t>SIDE_BY_SIDE)
        store_some(v + c, some(v + c, some_n) * rstd(some(var + c, some_n), Channels(eps)), some_n)
