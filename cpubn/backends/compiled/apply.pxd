# The elementwise pass, 32 float lanes or 16 double ones at a time:
#
#     forward:    y  = quantize(activation((x - centre) * scale + shift + residual))
#     backward:   dx = scale * ((g - k) - ((x - centre) * r) * s),  or g * scale in inference;  g: see prologue.pxd
#
# A channel whose coefficients float32 does not hold is computed in float64, through buffers. y may be x or the residual, and
# dx may be dy or x: of a run, the last lanes are computed first, since those before them overlap them.
# Moves: every sample once each way.

from libc.string cimport memcpy

from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.lanes cimport *
from cpubn.backends.compiled.prologue cimport *
from cpubn.backends.compiled.runs cimport *


cdef inline Lane[sample] coefficient(
    const Job* job, const sample* x, const double* own, const void* table, Py_ssize_t kind, bint columns
) noexcept nogil:
    """A coefficient of one channel, or those of columns."""
    if columns:
        return lanes_at(x, table, kind * job.length)
    return Lane[sample](own[kind])


cdef inline Lane[sample] forward_lanes(
    const Job* job, const Spot* spot, const sample* x, const double* own, const void* table, bint columns, bint plain
) noexcept nogil:
    """y of the lanes at a spot."""
    cdef Lane[sample] z = load(x) - coefficient(job, x, own, table, CENTRE, columns)
    z = z * coefficient(job, x, own, table, FACTOR, columns) + coefficient(job, x, own, table, SHIFT, columns)
    if plain:
        return z
    if spot.residual is not NULL:
        z = z + load(<const sample*>spot.residual)
    if job.activation:
        z = activate(job.activation, z, job.low, job.high)
    return z


cdef inline Lane[sample] backward_lanes(
    const Job* job, const Spot* spot, const sample* x, const double* own, const void* table, bint columns, bint plain,
    sample* g_to
) noexcept nogil:
    """dx of the lanes at a spot; their g where it is wanted."""
    cdef Lane[sample] d = load(x) - coefficient(job, x, own, table, CENTRE, columns), z = d, g
    cdef Lane[sample] scale = coefficient(job, x, own, table, FACTOR, columns)
    if plain or job.prologue == NO_PROLOGUE:
        g = load(<const sample*>spot.dy)
    else:
        if job.prologue == BY_Z:
            z = d * scale + coefficient(job, x, own, table, SHIFT, columns)
        g = gradient_of(job, x, spot, z)
    if not plain:
        if g_to is not NULL:
            store(g_to, g)
        if job.map == SCALE:
            return g * scale
    z = (d * coefficient(job, x, own, table, RSTD, columns)) * coefficient(job, x, own, table, SLOPE, columns)
    return scale * ((g - coefficient(job, x, own, table, LEVEL, columns)) - z)


cdef inline Lane[sample] lanes_of_result(
    const Job* job, const sample* x, const Stretch* run, const double* own, Py_ssize_t j, Py_ssize_t column,
    bint backward, bint columns, bint plain
) noexcept nogil:
    """What is written to the lanes from element j on, whose first column is given."""
    cdef Spot spot = run.spot
    cdef const void* table = NULL
    cdef sample* g = <sample*>run.g
    if columns:
        table = from_column(x, run.table, column)
    spot.dy += j * <Py_ssize_t>sizeof(sample)
    spot.kept += j * <Py_ssize_t>sizeof(sample)
    spot.bit += j
    if spot.residual is not NULL:
        spot.residual += j * <Py_ssize_t>sizeof(sample)
    if not backward:
        return forward_lanes(job, &spot, x + j, own, table, columns, plain)
    return backward_lanes(job, &spot, x + j, own, table, columns, plain, g + j if g is not NULL else NULL)


cdef inline const void* from_column(const sample* x, const void* table, Py_ssize_t column) noexcept nogil:
    if sample is double:
        return <const double*>table + column
    else:
        return <const float*>table + column


cdef inline void apply_loop(
    const Job* job, const sample* x, const Stretch* run, bint backward, bint columns, bint plain
) noexcept nogil:
    """A run of at least as many elements as there are lanes."""
    cdef double own[COEFFICIENTS]  # a copy: nothing that is written can be it
    cdef sample edge[32]
    cdef sample* y = <sample*>run.y
    cdef Lane[sample] value, rest, first
    cdef Py_ssize_t lanes = lanes_of(x), n = run.n, j = 0, column = run.column, period = job.period, k
    cdef bint past = run.past
    if not columns:
        for k in range(COEFFICIENTS if backward else SHIFT + 1):
            own[k] = job.coefficients[k * job.channels + run.channel]
    rest = lanes_of_result(
        job, x, run, own, n - lanes, (column + n - lanes) % period if columns else 0, backward, columns, plain
    )
    if past:  # whole cache lines, and the elements before and behind them as usual
        first = lanes_of_result(job, x, run, own, 0, column, backward, columns, plain)
        j = <Py_ssize_t>(-<size_t>y % 64) // <Py_ssize_t>sizeof(sample)
        column += j
    while j + lanes <= n:
        if columns and column >= period:
            column -= period
        value = lanes_of_result(job, x, run, own, j, column, backward, columns, plain)
        if past:
            stream(y + j, value)
        else:
            store(y + j, value)
        j += lanes
        column += lanes
    if not past:
        store(y + n - lanes, rest)
        return
    store(edge, first)
    memcpy(y, edge, <Py_ssize_t>(-<size_t>y % 64))
    store(edge, rest)
    memcpy(y + j, edge + lanes - (n - j), (n - j) * sizeof(sample))


cdef inline void apply_runs(
    const Job* job, const sample* x, const Stretch* runs, bint backward, bint columns, bint plain
) noexcept nogil:
    """One run of columns, or as many runs as there are channels, each at its channel's place."""
    cdef Stretch run = runs[0]
    cdef Py_ssize_t size = sizeof(sample), c
    if columns:
        apply_loop(job, x, &run, backward, True, plain)
        return
    for c in range(runs.channels):
        apply_loop(job, <const sample*>run.spot.x, &run, backward, False, plain)
        run.channel += 1
        run.y += job.y.channel * size
        if run.g is not NULL:
            run.g += job.g.channel * size
        move_spot(
            &run.spot, job.x.channel * size, job.dy.channel * size, job.residual.channel * size,
            job.kept.channel * size, job.signs.channel
        )


cdef inline void apply_stretch(const Job* job, const sample* x, const Stretch* run) noexcept nogil:
    """A run, by a loop of its own for each kind."""
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
