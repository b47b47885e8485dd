# The sums of a span of chunks, in the order that kernels/_order.py fixes, for a group of channels.

from libc.string cimport memset

from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.lanes cimport *
from cpubn.backends.compiled.runs cimport *

cdef enum:
    GROUP = 256  # columns summed together: their sums stay in the first-level cache, and a thread's stack small
    SLOTS = 288  # sums of them, in whole lanes
    STEPS = 8  # of a block: as in sums.pxd
    TILE = 65536  # bytes of columns taken together, so that memory is read nearly row by row
    AHEAD = 1024  # elements of a row that are asked for before they are needed

cdef enum State:  # how a channel is summed next
    ABOUT_SAMPLES  # about the mean of some
    ABOUT_MEAN  # about the mean that was found
    IN_DOUBLE
    IN_DOUBLE_ABOUT_MEAN
    DONE

# Lanes' coefficients, and the sums that they are added to, of a group of columns or of one row.
cdef struct Sums:
    double table[3 * 288]
    double s[288]
    double q[288]
    Buffers buffers


cdef inline void set_table(const Job* job, bint wide, Sums* sums, Py_ssize_t i, Py_ssize_t c) noexcept nogil:
    """Lane i belongs to channel c."""
    cdef Py_ssize_t k
    cdef double a
    for k in range(3 if job.prologue == BY_Z else 1):
        a = job.coefficients[k * job.channels + c] if k > 0 else job.pivots[c]
        if wide:
            sums.table[k * SLOTS + i] = a
        else:
            (<float*>sums.table)[k * SLOTS + i] = <float>a


cdef inline const void* table_at(bint wide, const double* table, Py_ssize_t j) noexcept nogil:
    if wide:
        return table + j
    return <const float*>table + j


cdef inline Strip new_strip(bint wide, Sums* sums, Py_ssize_t step) noexcept nogil:
    """A strip of all lanes, whose steps are so many elements apart."""
    cdef Strip strip
    strip.table, strip.length, strip.keep = sums.table, SLOTS, 16 if wide else 32
    strip.s, strip.q = sums.s, sums.q
    strip.ahead = strip.dy_ahead = 0
    strip.x_step = strip.dy_step = strip.residual_step = strip.kept_step = strip.bit_step = step
    return strip


cdef inline void bounds(Py_ssize_t n, Py_ssize_t parts, Py_ssize_t k, Py_ssize_t* first, Py_ssize_t* last) noexcept nogil:
    first[0] = n * k // parts
    last[0] = n * (k + 1) // parts


cdef inline void add_row(
    const Job* job, bint wide, Strip* strip, Buffers* buffers, Py_ssize_t o, Py_ssize_t c, Py_ssize_t i, Py_ssize_t n
) noexcept nogil:
    """Add n elements from i of row o of channel c; what is no whole step are the last of the last lanes."""
    cdef Py_ssize_t lanes = 16 if wide else 32, rest = n % lanes, first = 0, part
    cdef bint direct = is_direct(job, wide)
    cdef const Loops* loops = loops_for(job, wide, direct)
    cdef Run run
    if direct:
        strip.spot = spot_of(job, o, c, i)
        loops.add_steps(job, strip.spot.x, strip, n // lanes)
        strip.spot = spot_of(job, o, c, i + n - lanes)
    else:
        run = channel_run(job, o, c, i, n, False)
        while first + lanes <= n:
            part = min(n - rest - first, STEPS * lanes)
            fill(&run, wide, buffers, first, 0, part)
            strip.spot = buffered_spot(&run, buffers)
            loops.add_steps(job, strip.spot.x, strip, part // lanes)
            first += part
        if rest:
            fill(&run, wide, buffers, n - lanes, 0, lanes)
            strip.spot = buffered_spot(&run, buffers)
    if rest:
        strip.keep = rest
        loops.add_steps(job, strip.spot.x, strip, 1)
        strip.keep = lanes


cdef inline double fold_lanes(bint wide, const double* sums) noexcept nogil:
    return fold(load(sums)) if wide else fold(load(sums) + load(sums + 16))


cdef inline void sum_rows(
    const Job* job, bint wide, Sums* sums, Py_ssize_t c, Py_ssize_t chunk, double* s, double* q
) noexcept nogil:
    """Add one chunk of channel c, whose inner runs are rows, to s and q."""
    cdef Py_ssize_t o0, o1, i0, i1, i, o, lanes = 16 if wide else 32
    cdef Strip strip = new_strip(wide, sums, lanes)
    bounds(job.outer, job.levels, chunk // job.pieces, &o0, &o1)
    bounds(job.inner, job.pieces, chunk % job.pieces, &i0, &i1)
    for i in range(lanes):
        set_table(job, wide, sums, i, c)
        sums.s[i] = sums.q[i] = 0.0
    if job.far:
        strip.ahead = strip.dy_ahead = AHEAD
    for o in range(o0, o1):
        add_row(job, wide, &strip, &sums.buffers, o, c, i0, i1 - i0)
    s[0] += fold_lanes(wide, sums.s)
    q[0] += fold_lanes(wide, sums.q)


cdef inline void add_buffered_strip(
    const Job* job, bint wide, Strip* strip, Buffers* buffers, const Run* run, Py_ssize_t first, Py_ssize_t rows,
    Py_ssize_t width
) noexcept nogil:
    """Add `rows` rows, `width` elements of the run apart, of the lanes from element `first` on."""
    cdef Py_ssize_t lanes = 16 if wide else 32, done = 0, row, part
    while done < rows:
        part = min(rows - done, <Py_ssize_t>STEPS)
        for row in range(part):
            fill(run, wide, buffers, first + (done + row) * width, row * lanes, min(width, lanes))
        strip.spot = buffered_spot(run, buffers)
        loops_for(job, wide, False).add_steps(job, strip.spot.x, strip, part)
        done += part


cdef inline void add_last_row(
    const Job* job, bint wide, Strip* strip, Buffers* buffers, const Run* run, Py_ssize_t first, Py_ssize_t n
) noexcept nogil:
    """Add the n lanes that a last, shorter row still has; the others stand at their pivots and add nothing."""
    cdef Py_ssize_t i
    memset(buffers, 0, sizeof(Buffers))
    fill(run, wide, buffers, first, 0, n)
    for i in range(n, 16 if wide else 32):
        if wide:
            buffers.x[i] = (<const double*>strip.table)[i]
        else:
            (<float*>buffers.x)[i] = (<const float*>strip.table)[i]
    strip.spot = buffered_spot(run, buffers)
    loops_for(job, wide, False).add_steps(job, strip.spot.x, strip, 1)


cdef inline Py_ssize_t strip_start(Py_ssize_t k, Py_ssize_t lanes, Py_ssize_t width) noexcept nogil:
    """The first column of strip k: the last strip overlaps the one before it where columns are no whole lanes."""
    return max(0, min(k * lanes, width - lanes))


cdef inline void sum_columns(
    const Job* job, bint wide, Sums* sums, Py_ssize_t c0, Py_ssize_t channels, Py_ssize_t chunk, double* s, double* q
) noexcept nogil:
    """Add one chunk of the channels from c0 on, whose samples are columns, to s and q, (channels,)."""
    cdef Run run = columns_run(job, 0, c0, channels)
    cdef Py_ssize_t lanes = 16 if wide else 32, row = channels * job.inner, width = row * job.together
    cdef Py_ssize_t whole = job.outer // job.together, rows = (job.outer + job.together - 1) // job.together
    cdef Py_ssize_t strips = (width + lanes - 1) // lanes, v0, v1, v, j, k, tile, part
    cdef bint direct = wide == (job.x.type == FLOAT64) and width >= lanes and reads_rows(&run, job.x.type)
    cdef Strip strip = new_strip(wide, sums, lanes), short = strip
    cdef const Loops* loops
    direct = direct and (job.together == 1 or reads_lines(&run, width * rows))
    loops = loops_for(job, wide, direct)
    bounds(rows, job.levels, chunk, &v0, &v1)
    for j in range(width):
        set_table(job, wide, sums, j, c0 + j % row // job.inner)
    memset(sums.s, 0, strips * lanes * sizeof(double))
    memset(sums.q, 0, strips * lanes * sizeof(double))
    if direct:
        strip.x_step, strip.dy_step = job.together * run.x.plane, job.together * run.dy.plane
        strip.residual_step, strip.kept_step = job.together * run.residual.plane, job.together * run.kept.plane
        strip.bit_step = job.together * run.signs.plane
    tile = max(<Py_ssize_t>1, TILE // (width * job.x.size * STEPS)) * STEPS
    v = v0
    while v < min(v1, whole):
        part = min(tile, min(v1, whole) - v)
        strip.ahead = strip.dy_ahead = 0
        if direct and job.far and v + part < whole:
            strip.ahead, strip.dy_ahead = part * strip.x_step, part * strip.dy_step
        for k in range(strips):
            j = strip_start(k, lanes, width)
            strip.keep = min(lanes, width - k * lanes) if width >= lanes else lanes
            strip.table, strip.s, strip.q = table_at(wide, sums.table, j), sums.s + k * lanes, sums.q + k * lanes
            if direct:
                strip.spot = spot_at(&run, v * width + j)
                loops.add_steps(job, strip.spot.x, &strip, part)
            else:
                add_buffered_strip(job, wide, &strip, &sums.buffers, &run, v * width + j, part, width)
        v += part
    if v1 > whole:
        part = job.outer * row - whole * width
        for k in range(strips):
            j = strip_start(k, lanes, width)
            if j < part:
                short.keep = min(lanes, width - k * lanes) if width >= lanes else lanes
                short.table, short.s, short.q = table_at(wide, sums.table, j), sums.s + k * lanes, sums.q + k * lanes
                add_last_row(job, wide, &short, &sums.buffers, &run, whole * width + j, min(lanes, part - j))
    for j in range(width):
        k = j // lanes
        k = k * lanes + j - strip_start(k, lanes, width)
        s[j % row // job.inner] += sums.s[k]
        q[j % row // job.inner] += sums.q[k]


cdef inline bint summed_in(const Job* job, bint wide, Py_ssize_t c) noexcept nogil:
    """Whether a channel is to be summed next in float64, or in float32."""
    if wide:
        return job.states[c] == IN_DOUBLE or job.states[c] == IN_DOUBLE_ABOUT_MEAN
    return job.states[c] < IN_DOUBLE


cdef inline void sum_span(Job* job, Py_ssize_t c0, Py_ssize_t n, Py_ssize_t span) noexcept nogil:
    """parts[span] of the n channels from c0 on that are to be summed, or to be summed once more."""
    cdef Sums sums
    cdef double s[GROUP]
    cdef double q[GROUP]
    cdef double* part = job.parts + 2 * span * job.channels + c0
    cdef Py_ssize_t chunk, c, pending
    cdef bint wide
    for wide in range(2):
        pending = 0
        for c in range(n):
            s[c] = q[c] = 0.0
            pending += summed_in(job, wide, c0 + c)
        if pending == 0:
            continue
        for chunk in range(span * job.span, min((span + 1) * job.span, job.chunks)):
            if job.columns:
                sum_columns(job, wide, &sums, c0, n, chunk, s, q)
                continue
            for c in range(n):
                if summed_in(job, wide, c0 + c):
                    sum_rows(job, wide, &sums, c0 + c, chunk, s + c, q + c)
        for c in range(n):
            if summed_in(job, wide, c0 + c):
                part[c], part[job.channels + c] = s[c], q[c]
