# The elementwise pass, 32 float lanes or 16 double ones at a time:
#
#     forward:    y  = quantize(activation((x - centre) * scale + shift + residual))
#     backward:   dx = scale * ((g - k) - ((x - centre) * r) * s),  or g * scale in inference;  g: see prologue.pxd
#
# A channel whose coefficients float32 does not hold is computed in float64, through buffers. y may be x or the residual, and
# dx may be dy or x: of a run, the last lanes, and where whole lines are written the first ones, come before those that
# overlap them.
# Moves: every sample once each way.

from libc.string cimport memcpy

from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.lanes cimport *
from cpubn.backends.compiled.prologue cimport *
from cpubn.backends.compiled.runs cimport *


# Coefficients of a run: those of its channel, or where those of each lane stand, be they of columns or of two channels. A
# copy, since a compiler must take what is stored for anything in memory: read from the job again at each step, they left
# too few samples in flight.
cdef struct Coefficients:
    double own[COEFFICIENTS]
    const void* tables[COEFFICIENTS]
    Py_ssize_t column


cdef inline Lane[sample] coefficient(const sample* x, const Coefficients* a, Py_ssize_t kind, bint columns) noexcept nogil:
    if columns:
        return lanes_at(x, a.tables[kind], a.column)
    return Lane[sample](a.own[kind])


cdef inline Lane[sample] forward_lanes(
    const Job* job, const Spot* spot, const sample* x, const Coefficients* a, bint columns, bint plain
) noexcept nogil:
    """y of the lanes at a spot."""
    cdef Lane[sample] z = load(x) - coefficient(x, a, CENTRE, columns)
    z = z * coefficient(x, a, FACTOR, columns) + coefficient(x, a, SHIFT, columns)
    if plain:
        return z
    if spot.residual is not NULL:
        z = z + load(<const sample*>spot.residual)
    if job.activation:
        z = activate(job.activation, z, job.low, job.high)
    return z


cdef inline Lane[sample] backward_lanes(
    const Job* job, const Spot* spot, const sample* x, const Coefficients* a, bint columns, bint plain,
    sample* g_to
) noexcept nogil:
    """dx of the lanes at a spot; their g where it is wanted."""
    cdef Lane[sample] d = load(x) - coefficient(x, a, CENTRE, columns), z = d, g
    cdef Lane[sample] scale = coefficient(x, a, FACTOR, columns)
    if plain or job.prologue == NO_PROLOGUE:
        g = load(<const sample*>spot.dy)
    else:
        if job.prologue == BY_Z:
            z = d * scale + coefficient(x, a, SHIFT, columns)
        g = gradient_of(job, x, spot, z)
    if not plain:
        if g_to is not NULL:
            store(g_to, g)
        if job.map == SCALE:
            return g * scale
    z = (d * coefficient(x, a, RSTD, columns)) * coefficient(x, a, SLOPE, columns)
    return scale * ((g - coefficient(x, a, LEVEL, columns)) - z)


cdef inline Lane[sample] lanes_of_result(
    const Job* job, const sample* x, const Stretch* run, Coefficients* a, Py_ssize_t j, Py_ssize_t column,
    bint backward, bint columns, bint plain
) noexcept nogil:
    """What is written to the lanes from element j on, whose first column is given."""
    cdef Spot spot = run.spot
    cdef sample* g = <sample*>run.g
    a.column = column
    spot.dy += j * <Py_ssize_t>sizeof(sample)
    spot.kept += j * <Py_ssize_t>sizeof(sample)
    spot.bit += j
    if spot.residual is not NULL:
        spot.residual += j * <Py_ssize_t>sizeof(sample)
    if not backward:
        return forward_lanes(job, &spot, x + j, a, columns, plain)
    return backward_lanes(job, &spot, x + j, a, columns, plain, g + j if g is not NULL else NULL)


cdef inline const void* table_of(const sample* x, const void* tables, Py_ssize_t first) noexcept nogil:
    if sample is double:
        return <const double*>tables + first
    else:
        return <const float*>tables + first


cdef inline void set_two(
    const Job* job, const sample* x, double* table, Py_ssize_t channel, Py_ssize_t n, Py_ssize_t kinds
) noexcept nogil:
    """Of lanes of which the first n are a channel's, and the others, if there are, those of the next one."""
    cdef const double* own = job.coefficients + channel
    cdef Py_ssize_t next = n < lanes_of(x), k
    for k in range(kinds):
        if sample is double:
            put_two(table + 16 * k, own[0], own[next], n)
        else:
            put_two(<float*>(table + 16 * k), own[0], own[next], n)
        own += job.channels


cdef inline void put(sample* y, Lane[sample] value, bint past) noexcept nogil:
    if past:
        stream(y, value)
    else:
        store(y, value)


cdef enum Alone:  # lanes that are computed one by one, in this order
    LAST  # before those that overlap them
    FIRST
    BETWEEN  # of the end of one run and the start of the next


cdef inline void apply_loop(
    const Job* job, const sample* x, const Stretch* run, Py_ssize_t runs, bint backward, bint columns, bint plain
) noexcept nogil:
    """Runs end to end, each of at least as many elements as there are lanes; of columns one."""
    cdef Coefficients own, alone
    cdef double table[COEFFICIENTS * 16]
    cdef sample edge[32]
    cdef sample* y = <sample*>run.y
    cdef Lane[sample] value, rest, first
    cdef Py_ssize_t lanes = lanes_of(x), n = run.n * runs, j = 0, end = run.n, channel = run.channel
    cdef Py_ssize_t column, last, k
    cdef Py_ssize_t kinds = COEFFICIENTS if backward else SHIFT + 1
    cdef bint past = run.past, whole_lines = past or n >= 4 * lanes  # and what stands before and behind them as usual
    cdef Alone which = LAST
    for k in range(kinds):
        own.tables[k] = alone.tables[k] = table_of(x, run.table, k * job.length) if columns else table + 16 * k
    while True:
        k = n - lanes if which == LAST else j
        column = run.column + k if columns else 0
        if columns and column >= job.period:
            column = column % job.period
        if not columns:
            last = channel + runs - 1 if which == LAST else channel
            set_two(job, x, table, last, lanes if which == LAST else min(lanes, end - k), kinds)
        value = lanes_of_result(job, x, run, &alone, k, column, backward, True, plain)
        if which == LAST:
            rest = value
        elif which == FIRST:
            first = value
        else:
            put(y + j, value, past)
            j += lanes
            channel += 1
            end += run.n
        if which == LAST and whole_lines:
            which = FIRST
            continue
        if which == FIRST:
            j = <Py_ssize_t>(-<size_t>y % 64) // <Py_ssize_t>sizeof(sample)
        which = BETWEEN
        column = run.column + j
        if not columns:
            for k in range(kinds):
                own.own[k] = job.coefficients[k * job.channels + channel]
        while j + lanes <= end:
            if columns and column >= job.period:
                column -= job.period
            put(y + j, lanes_of_result(job, x, run, &own, j, column, backward, columns, plain), past)
            j += lanes
            column += lanes
        if j + lanes > n:
            break
    if not past:
        store(y + n - lanes, rest)
        if whole_lines:
            store(y, first)
        return
    store(edge, first)
    memcpy(y, edge, <Py_ssize_t>(-<size_t>y % 64))
    store(edge, rest)
    memcpy(y + j, edge + lanes - (n - j), (n - j) * sizeof(sample))


cdef inline Py_ssize_t step_of(const Strided* a, bint columns) noexcept nogil:
    """Bytes, of signs bits, from one run to the next."""
    return (a.outer if columns else a.channel) * max(<Py_ssize_t>1, a.size)


cdef inline void apply_runs(
    const Job* job, const sample* x, const Stretch* runs, bint backward, bint columns, bint plain
) noexcept nogil:
    cdef Stretch run = runs[0]
    cdef Py_ssize_t x_step = step_of(&job.x, columns), dy_step = step_of(&job.dy, columns)
    cdef Py_ssize_t residual_step = step_of(&job.residual, columns), kept_step = step_of(&job.kept, columns)
    cdef Py_ssize_t bit_step = step_of(&job.signs, columns), y_step = step_of(&job.y, columns)
    cdef Py_ssize_t g_step = step_of(&job.g, columns), k, count = runs.runs
    if job.joined and run.n == job.inner and not columns:
        apply_loop(job, x, &run, count, backward, columns, plain)
        return
    for k in range(count):
        apply_loop(job, <const sample*>run.spot.x, &run, 1, backward, columns, plain)
        run.channel += 1
        run.y += y_step
        if run.g is not NULL:
            run.g += g_step
        move_spot(&run.spot, x_step, dy_step, residual_step, kept_step, bit_step)


cdef inline void apply_stretch(const Job* job, const sample* x, const Stretch* run) noexcept nogil:
    """Runs, by a loop of its own for each kind."""
    if job.plain:
        if job.backward and run.table is not NULL:
            apply_runs(job, x, run, True, True, True)
        elif job.backward:
            apply_runs(job, x, run, True, False, True)
        elif run.table is not NULL:
            apply_runs(job, x, run, False, True, True)
        else:
            apply_runs(job, x, run, False, False, True)
    elif job.backward and run.table is not NULL:
        apply_runs(job, x, run, True, True, False)
    elif job.backward:
        apply_runs(job, x, run, True, False, False)
    elif run.table is not NULL:
        apply_runs(job, x, run, False, True, False)
    else:
        apply_runs(job, x, run, False, False, False)
