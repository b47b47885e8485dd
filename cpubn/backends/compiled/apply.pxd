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


cdef enum Kind:  # bits of what a loop does, which its compiler knows
    BACKWARD = 1
    COLUMNS = 2
    PLAIN = 4  # the map and nothing else


# Where lanes start, and their coefficients: those of their channel, or where those of each lane stand, be they of columns or
# of two channels. A copy, since a compiler must take what is stored for anything in memory: read from the job again at each
# step, they left too few samples in flight.
cdef struct Here:
    Py_ssize_t element
    Py_ssize_t column
    double own[COEFFICIENTS]
    const void* tables[COEFFICIENTS]


cdef inline Lane[any_sample] coefficient(const any_sample* x, const Here* here, Py_ssize_t which, int kind) noexcept nogil:
    if kind & COLUMNS:
        return lanes_at(x, here.tables[which], here.column)
    return Lane[any_sample](here.own[which])


cdef inline void put(
    const Job* job, any_sample* to, Py_ssize_t i, const Type* types, int role, Lane[any_sample] value
) noexcept nogil:
    if any_sample is mixed:
        put_as(types[role], &job.quantizer, to, i, value, False)
    else:
        store(to + i, value)


cdef inline void put_result(
    const Job* job, const Stretch* run, any_sample* y, Py_ssize_t i, Lane[any_sample] value, bint past
) noexcept nogil:
    if not past:
        put(job, y, i, run.types, OF_Y, value)
    elif any_sample is mixed:
        put_as(run.types[OF_Y], &job.quantizer, y, i, value, True)
    else:
        stream(y + i, value)


cdef inline bint has_weights(const any_sample* x, const Stretch* run) noexcept nogil:
    """Halves go by the loops of mixed types. Loops for weights alone made the three sets 1 MB larger."""
    if any_sample is half or any_sample is bfloat:
        return False
    else:
        return run.spot.weights is not NULL


cdef inline Lane[any_sample] weights_here(const any_sample* x, const Stretch* run, const Here* here) noexcept nogil:
    cdef Type type = run.types[OF_WEIGHTS]
    return weights_at(x, type, run.spot.weights + (0 if run.still else here.element * size_of(type)), run.still)


cdef inline Lane[any_sample] forward_lanes(
    const Job* job, const any_sample* x, const Stretch* run, const Here* here, int kind
) noexcept nogil:
    """y of the lanes here."""
    cdef Lane[any_sample] z = load_at(x, here.element, run.types, OF_X) - coefficient(x, here, CENTRE, kind)
    z = z * coefficient(x, here, FACTOR, kind) + coefficient(x, here, SHIFT, kind)
    if kind & PLAIN:
        return z
    if run.spot.residual is not NULL:
        z = z + load_at(<const any_sample*>run.spot.residual, here.element, run.types, OF_RESIDUAL)
    if job.activation:
        z = activate(job.activation, z, job.low, job.high)
    if has_weights(x, run):
        z = counted(weights_here(x, run, here), z, Lane[any_sample](job.filling))
    return z


cdef inline Lane[any_sample] backward_lanes(
    const Job* job, const any_sample* x, const Stretch* run, const Here* here, int kind
) noexcept nogil:
    """dx of the lanes here; their g is written where it is wanted."""
    cdef Lane[any_sample] d = load_at(x, here.element, run.types, OF_X) - coefficient(x, here, CENTRE, kind), z = d, g, w
    cdef Lane[any_sample] scale = coefficient(x, here, FACTOR, kind), nothing = Lane[any_sample](0.0)
    if kind & PLAIN or job.prologue == NO_PROLOGUE:
        g = load_at(<const any_sample*>run.spot.dy, here.element, run.types, OF_DY)
    else:
        if job.prologue == BY_Z:
            z = d * scale + coefficient(x, here, SHIFT, kind)
        g = gradient_of(job, x, &run.spot, here.element, run.types, z)
    if not kind & PLAIN:
        if has_weights(x, run):
            w = weights_here(x, run, here)
            g = counted(w, g, nothing)
        if run.g is not NULL:
            put(job, <any_sample*>run.g, here.element, run.types, OF_G, g)
        if job.map == SCALE:
            if has_weights(x, run):
                return counted(w, g * scale, nothing)
            return g * scale
    z = (d * coefficient(x, here, RSTD, kind)) * coefficient(x, here, SLOPE, kind)
    if not kind & PLAIN and has_weights(x, run):
        return counted(w, scale * ((g - w * coefficient(x, here, LEVEL, kind)) - w * z), nothing)
    return scale * ((g - coefficient(x, here, LEVEL, kind)) - z)


cdef inline Lane[any_sample] lanes_of_result(
    const Job* job, const any_sample* x, const Stretch* run, const Here* here, int kind
) noexcept nogil:
    if kind & BACKWARD:
        return backward_lanes(job, x, run, here, kind)
    return forward_lanes(job, x, run, here, kind)


cdef inline const void* table_of(const any_sample* x, const void* tables, Py_ssize_t first) noexcept nogil:
    if any_sample is double:
        return <const double*>tables + first
    else:
        return <const float*>tables + first


cdef inline void set_two(
    const Job* job, const any_sample* x, double* table, Py_ssize_t channel, Py_ssize_t n, Py_ssize_t kinds
) noexcept nogil:
    """Of lanes of which the first n are a channel's, and the others, if there are, those of the next one."""
    cdef const double* own = job.coefficients + channel
    cdef Py_ssize_t next = n < lanes_of(x), k
    for k in range(kinds):
        if any_sample is double:
            put_two(table + 16 * k, own[0], own[next], n)
        else:
            put_two(<float*>(table + 16 * k), own[0], own[next], n)
        own += job.channels


cdef enum Alone:  # lanes that are computed one by one, in this order
    LAST  # before those that overlap them
    FIRST
    BETWEEN  # of the end of one run and the start of the next


cdef inline void apply_loop(const Job* job, const any_sample* x, const Stretch* run, int kind) noexcept nogil:
    """Runs end to end, each of at least as many elements as there are lanes; of columns one."""
    cdef Here own, alone
    cdef double table[COEFFICIENTS * 16]
    cdef any_sample edge[32]
    cdef any_sample* y = <any_sample*>run.y
    cdef Lane[any_sample] value, rest, first
    cdef Py_ssize_t lanes = lanes_of(x), n = run.n * run.runs, size = size_at(x, run.types, OF_Y), end = run.n
    cdef Py_ssize_t channel = run.channel, last, k, head = <Py_ssize_t>(-<size_t>y % <size_t>min(64, lanes * size)) // size
    cdef Py_ssize_t kinds = COEFFICIENTS if kind & BACKWARD else SHIFT + 1
    cdef bint past = run.past, whole_lines = past or n >= 4 * lanes  # and what stands before and behind them as usual
    cdef Alone which = LAST
    own.element = own.column = alone.column = 0
    for k in range(kinds):
        own.tables[k] = alone.tables[k] = table_of(x, run.table, k * job.length) if kind & COLUMNS else table + 16 * k
    while True:
        alone.element = n - lanes if which == LAST else own.element
        if kind & COLUMNS:
            alone.column = run.column + alone.element
            if alone.column >= job.period:
                alone.column = alone.column % job.period
        else:
            last = channel + run.runs - 1 if which == LAST else channel
            set_two(job, x, table, last, lanes if which == LAST else min(lanes, end - own.element), kinds)
        value = lanes_of_result(job, x, run, &alone, kind | COLUMNS)
        if which == LAST:
            rest = value
        elif which == FIRST:
            first = value
        else:
            put_result(job, run, y, own.element, value, past)
            own.element += lanes
            channel += 1
            end += run.n
        if which == LAST and whole_lines:
            which = FIRST
            continue
        if which == FIRST:
            own.element = head
        which = BETWEEN
        if kind & COLUMNS:
            own.column = run.column + own.element
        else:
            for k in range(kinds):
                own.own[k] = job.coefficients[k * job.channels + channel]
        while own.element + lanes <= end:
            if kind & COLUMNS and own.column >= job.period:
                own.column -= job.period
            value = lanes_of_result(job, x, run, &own, kind)
            put_result(job, run, y, own.element, value, past)
            own.element += lanes
            own.column += lanes
        if own.element + lanes > n:
            break
    if not past:
        put(job, y, n - lanes, run.types, OF_Y, rest)
        if whole_lines:
            put(job, y, 0, run.types, OF_Y, first)
        return
    put(job, edge, 0, run.types, OF_Y, first)
    memcpy(y, edge, head * size)
    put(job, edge, 0, run.types, OF_Y, rest)
    n -= own.element
    memcpy(run.y + own.element * size, <char*>edge + (lanes - n) * size, n * size)


cdef inline Py_ssize_t step_of(const Strided* a, bint columns) noexcept nogil:
    """Bytes, of signs bits, from one run to the next."""
    return (a.outer if columns else a.channel) * max(<Py_ssize_t>1, a.size)


cdef inline void apply_runs(const Job* job, const any_sample* x, const Stretch* runs, int kind) noexcept nogil:
    cdef Stretch run = runs[0]
    cdef bint columns = kind & COLUMNS
    cdef bint joined = job.joined and run.n == job.inner and not columns and run.spot.weights is NULL
    cdef Py_ssize_t x_step = step_of(&job.x, columns), dy_step = step_of(&job.dy, columns)
    cdef Py_ssize_t residual_step = step_of(&job.residual, columns), kept_step = step_of(&job.kept, columns)
    cdef Py_ssize_t bit_step = step_of(&job.signs, columns), y_step = step_of(&job.y, columns)
    cdef Py_ssize_t g_step = step_of(&job.g, columns), weights_step = step_of(&job.weights, columns), k
    if not joined:
        run.runs = 1
    elif any_sample is float or any_sample is double:  # a loop of its own, which of other types would take 80 KB
        run.spot.weights = NULL  # there are none, as its compiler is to know
        apply_loop(job, x, &run, kind)
        return
    for k in range(1 if joined else runs.runs):
        apply_loop(job, <const any_sample*>run.spot.x, &run, kind)
        run.channel += 1
        run.y += y_step
        if run.g is not NULL:
            run.g += g_step
        move_spot(&run.spot, x_step, dy_step, residual_step, kept_step, bit_step, weights_step)


cdef inline void apply_stretch(const Job* job, const any_sample* x, const Stretch* run) noexcept nogil:
    """Runs, by a loop of its own for each kind."""
    cdef int kind = (BACKWARD if job.backward else 0) + (COLUMNS if run.table is not NULL else 0)
    if any_sample is not mixed and job.plain:
        kind += PLAIN
    if kind == 0:
        apply_runs(job, x, run, 0)
    elif kind == BACKWARD:
        apply_runs(job, x, run, BACKWARD)
    elif kind == COLUMNS:
        apply_runs(job, x, run, COLUMNS)
    elif kind == BACKWARD + COLUMNS:
        apply_runs(job, x, run, BACKWARD + COLUMNS)
    elif any_sample is not mixed:
        if kind == PLAIN:
            apply_runs(job, x, run, PLAIN)
        elif kind == PLAIN + BACKWARD:
            apply_runs(job, x, run, PLAIN + BACKWARD)
        elif kind == PLAIN + COLUMNS:
            apply_runs(job, x, run, PLAIN + COLUMNS)
        else:
            apply_runs(job, x, run, PLAIN + BACKWARD + COLUMNS)
