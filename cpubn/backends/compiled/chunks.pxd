# The sums of a span of chunks, in the order that maths/order.py fixes, for a group of channels.

from libc.string cimport memcpy, memset

from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.lanes cimport *
from cpubn.backends.compiled.runs cimport *
from cpubn.backends.compiled.sums cimport SIDE_BY_SIDE

cdef enum:
    GROUP = 1024  # columns summed together: their sums stay in the first-level cache
    SLOTS = 1056  # sums of them, in whole lanes
    STEPS = 8  # of a block: as in sums.pxd
    TILE = 65536  # bytes of columns taken together, so that memory is read nearly row by row

# A thread's scratch, which its stack would be too small for: coefficients of lanes and the sums that they are added to, of a
# group of columns or of one row, and the sums of channels.
cdef struct Sums:
    double table[3 * 1056]
    double s[1056]
    double q[1056]
    double waiting[32]
    double channel_s[1024]
    double channel_q[1024]
    Buffers buffers


cdef inline void set_columns_table(
    const Job* job, bint wide, Sums* sums, Py_ssize_t c0, Py_ssize_t channels, Py_ssize_t width
) noexcept nogil:
    """Lanes belong to the channels from c0 on, `inner` columns each, again and again."""
    cdef Py_ssize_t k, c, i, j
    cdef const double* a
    for k in range(3 if job.prologue == BY_Z else 1):
        a = job.coefficients + k * job.channels + c0 if k > 0 else job.pivots + c0
        j = k * SLOTS
        if job.inner == 1 and not wide:
            for c in range(channels):
                (<float*>sums.table)[j + c] = <float>a[c]
        else:
            for c in range(channels):  # whole lanes: the next channel's go over what is too many
                for i in range(0, job.inner, 16):
                    if wide:
                        store(sums.table + j + c * job.inner + i, Lane[double](a[c]))
                    elif i & 16 == 0:
                        store(<float*>sums.table + j + c * job.inner + i, Lane[float](a[c]))
        for i in range(j + channels * job.inner, j + width):
            if wide:
                sums.table[i] = sums.table[i - channels * job.inner]
            else:
                (<float*>sums.table)[i] = (<float*>sums.table)[i - channels * job.inner]


cdef inline void set_row_table(const Job* job, bint wide, Sums* sums, Py_ssize_t c) noexcept nogil:
    """All lanes belong to channel c."""
    cdef Py_ssize_t k
    cdef double a
    for k in range(3 if job.prologue == BY_Z else 1):
        a = job.coefficients[k * job.channels + c] if k > 0 else job.pivots[c]
        if wide:
            store(sums.table + k * SLOTS, Lane[double](a))
        else:
            store(<float*>sums.table + k * SLOTS, Lane[float](a))


cdef inline const void* table_at(bint wide, const double* table, Py_ssize_t j) noexcept nogil:
    if wide:
        return table + j
    return <const float*>table + j


cdef inline Strip new_strip(bint wide, Sums* sums, Py_ssize_t step, bint closes) noexcept nogil:
    """A strip of all lanes, whose steps are so many elements apart."""
    cdef Strip strip
    strip.table, strip.length, strip.keep = sums.table, SLOTS, 16 if wide else 32
    strip.s, strip.q, strip.waiting = sums.s, sums.q, sums.waiting
    strip.ahead = strip.dy_ahead = strip.pending = 0
    strip.closes = closes
    strip.x_step = strip.dy_step = strip.residual_step = strip.kept_step = strip.bit_step = step
    strip.weights_type, strip.weights_still = FLOAT64 if wide else FLOAT32, False
    strip.weights_step = step * size_of(strip.weights_type)
    return strip


cdef inline void bounds(Py_ssize_t n, Py_ssize_t parts, Py_ssize_t k, Py_ssize_t* first, Py_ssize_t* last) noexcept nogil:
    first[0], last[0] = 0, n
    if parts > 1:
        first[0], last[0] = n * k // parts, n * (k + 1) // parts


cdef inline void add_buffered_row(
    const Job* job, bint wide, Strip* strip, Buffers* buffers, const Run* run, Py_ssize_t n, bint last
) noexcept nogil:
    """Add a row of n elements piece by piece: each is whole blocks, but for the last, which may need elements before it."""
    cdef Py_ssize_t lanes = 16 if wide else 32, first = 0, part, back
    while first < n:
        part = min(n - first, STEPS * lanes)
        back = lanes - part if part < lanes else 0
        fill(run, wide, buffers, first - back, 0, part + back)
        strip.spot = buffered_spot(run, buffers, 0)
        if back:
            move_buffered(&strip.spot, wide, back)
        strip.closes = last and first + part == n
        loops_for(job, wide, False).add_rows(
            job, strip.spot.x, strip, 1, whole_steps(wide, part), part & (lanes - 1)
        )
        first += part


cdef inline double fold_lanes(bint wide, const double* sums) noexcept nogil:
    return fold(load(sums)) if wide else fold(load(sums) + load(sums + 16))


cdef inline Rows rows_of(const Job* job, Py_ssize_t chunk, Py_ssize_t c0, Py_ssize_t n) noexcept nogil:
    cdef Rows rows
    rows.c0, rows.c1 = c0, c0 + n
    if job.pieces == 1:
        bounds(job.outer, job.levels, chunk, &rows.o0, &rows.o1)
        rows.i0, rows.i1 = 0, job.inner
    else:
        bounds(job.outer, job.levels, chunk // job.pieces, &rows.o0, &rows.o1)
        bounds(job.inner, job.pieces, chunk % job.pieces, &rows.i0, &rows.i1)
    return rows


cdef inline void sum_buffered_rows(
    const Job* job, bint wide, Sums* sums, const Rows* rows, Py_ssize_t c, double* s, double* q
) noexcept nogil:
    """Add one chunk of channel c, whose inner runs are rows, to s and q."""
    cdef Py_ssize_t lanes = 16 if wide else 32, o, n = rows.i1 - rows.i0
    cdef Strip strip = new_strip(wide, sums, lanes, False)
    cdef Run run
    set_row_table(job, wide, sums, c)
    clear(sums.s, lanes)
    clear(sums.q, lanes)
    for o in range(rows.o0, rows.o1):
        run = channel_run(job, o, c, rows.i0, n, False)
        add_buffered_row(job, wide, &strip, &sums.buffers, &run, n, o == rows.o1 - 1)
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
        strip.spot = buffered_spot(run, buffers, 0)
        loops_for(job, wide, False).add_rows(job, strip.spot.x, strip, 1, part, 0)
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
    strip.spot = buffered_spot(run, buffers, 0)
    loops_for(job, wide, False).add_rows(job, strip.spot.x, strip, 1, 1, 0)


cdef inline Py_ssize_t strip_start(Py_ssize_t k, Py_ssize_t lanes, Py_ssize_t width) noexcept nogil:
    """The first column of strip k: the last strip overlaps the one before it where columns are no whole lanes."""
    return max(0, min(k * lanes, width - lanes))


cdef inline void close_up(double* sums, Py_ssize_t lanes, Py_ssize_t width) noexcept nogil:
    """Sums of the last columns stand in the last lanes of their strip: put them behind those of the strips before."""
    cdef Py_ssize_t rest = width & (lanes - 1) if width > lanes else 0, i
    for i in range(rest):
        sums[width - rest + i] = sums[width - rest + lanes - rest + i]


cdef inline void fold_columns(const Job* job, const double* columns, Py_ssize_t channels, double* to) noexcept nogil:
    """Add the columns of each channel to its sum: `inner` of them in 16 lanes, which are folded, for each row laid together."""
    cdef double lanes[SIDE_BY_SIDE * 16]
    cdef Lane[double] few
    cdef Py_ssize_t row, c, k, i, n
    for row in range(job.together):
        for c in range(0, channels, 16):
            n = min(<Py_ssize_t>SIDE_BY_SIDE, channels - c)
            if job.inner == 1:
                few = some(columns + c, n)
            else:
                for k in range(n):
                    few = some(columns + (c + k) * job.inner, job.inner)
                    for i in range(16, job.inner, 16):
                        few = few + some(columns + (c + k) * job.inner + i, job.inner - i)
                    store(lanes + 16 * k, few)
                few = fold_rows(lanes)
            store_some(to + c, some(to + c, n) + few, n)
        columns += channels * job.inner


cdef inline void sum_columns(
    const Job* job, bint wide, Sums* sums, Py_ssize_t c0, Py_ssize_t channels, Py_ssize_t chunk, double* s, double* q
) noexcept nogil:
    """Add one chunk of the channels from c0 on, whose samples are columns, to s and q, (channels,)."""
    cdef Run run = columns_run(job, 0, c0, channels)
    cdef Py_ssize_t lanes = 16 if wide else 32, row = channels * job.inner, width = row * job.together
    cdef Py_ssize_t whole = job.outer // job.together, rows = (job.outer + job.together - 1) // job.together
    cdef Py_ssize_t strips = (width + lanes - 1) // lanes, v0, v1, v, j, k, tile, part
    cdef bint direct = wide == (job.x.type == FLOAT64) and width >= lanes and reads_rows(&run, job.x.type)
    cdef Strip strip = new_strip(wide, sums, lanes, True), short = strip
    cdef const Loops* loops
    direct = direct and (job.together == 1 or reads_lines(&run, width * rows))
    direct = direct and (job.weights.data is NULL or job.x.type <= FLOAT64)
    loops = loops_for(job, wide, direct)
    bounds(rows, job.levels, chunk, &v0, &v1)
    set_columns_table(job, wide, sums, c0, channels, width)
    clear(sums.s, strips * lanes)
    clear(sums.q, strips * lanes)
    if direct:
        strip.x_step, strip.dy_step = job.together * run.x.steps[1], job.together * run.dy.steps[1]
        strip.residual_step, strip.kept_step = job.together * run.residual.steps[1], job.together * run.kept.steps[1]
        strip.bit_step = job.together * run.signs.steps[1]
        strip.weights_type, strip.weights_still = job.weights.type, is_still(&run.weights)
        strip.weights_step = job.together * run.weights.steps[1] * run.weights.size
    tile = max(<Py_ssize_t>1, TILE // (width * size_of(job.x.type) * STEPS)) * STEPS
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
                loops.add_rows(job, strip.spot.x, &strip, 1, part, 0)
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
    close_up(sums.s, lanes, width)
    close_up(sums.q, lanes, width)
    fold_columns(job, sums.s, channels, s)
    fold_columns(job, sums.q, channels, q)


cdef inline void sum_span(Job* job, Py_ssize_t c0, Py_ssize_t n, Py_ssize_t span, void* scratch) noexcept nogil:
    """parts[span] of the n channels from c0 on that are to be summed, or to be summed once more."""
    cdef Sums* sums = <Sums*>scratch
    cdef double* s = sums.channel_s
    cdef double* q = sums.channel_q
    cdef double* part = job.parts + 2 * span * job.channels + c0
    cdef Py_ssize_t chunk, c, pending
    cdef bint wide
    cdef Rows rows
    for wide in range(2):
        pending = count_summed(job, wide, c0, n)
        if pending == 0:
            continue
        clear(s, n + 15)
        clear(q, n + 15)
        for chunk in range(span * job.span, min((span + 1) * job.span, job.chunks)):
            if job.columns:
                sum_columns(job, wide, sums, c0, n, chunk, s, q)
                continue
            rows = rows_of(job, chunk, c0, n)
            if sums_directly(job, wide):
                rows.s, rows.q = s, q
                loops_for(job, wide, True).add_channels(job, NULL, &rows)
                continue
            for c in range(n):
                if summed_in(job, wide, c0 + c):
                    sum_buffered_rows(job, wide, sums, &rows, c0 + c, s + c, q + c)
        if pending == n:
            memcpy(part, s, n * sizeof(double))
            memcpy(part + job.channels, q, n * sizeof(double))
            continue
        for c in range(n):
            if summed_in(job, wide, c0 + c):
                part[c], part[job.channels + c] = s[c], q[c]
