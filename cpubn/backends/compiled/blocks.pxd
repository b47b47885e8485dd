# The elementwise pass over blocks of a walk, by rows or by columns, whole where nothing stands in the way.

from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.lanes cimport *
from cpubn.backends.compiled.runs cimport *


cdef inline Stretch new_stretch(const Job* job, Py_ssize_t n) noexcept nogil:
    cdef Stretch stretch
    stretch.n, stretch.channel, stretch.runs, stretch.column, stretch.past = n, 0, 1, 0, job.past
    stretch.table = NULL
    stretch.still = False
    stretch.types = &job.types[0]
    stretch.y = stretch.g = NULL
    return stretch


cdef inline bint are_rows(const Run* run, Type wanted) noexcept nogil:
    return reads_rows(run, wanted) and is_row(&run.y, wanted) and is_row(&run.g, wanted)


cdef inline run_function loop_for(const Job* job, bint wide, bint direct) noexcept nogil:
    """That of the data's type, or of whatever type each array has, or its buffer."""
    cdef bint own = direct and (job.weights.data is NULL or job.x.type <= FLOAT64)
    return job.kernels.loops[loops_of(job.x.type) if own else loops_of(FLOAT64) if wide else MIXED].apply


cdef inline int settle(const Place* p, int role, bint wide, Py_ssize_t end, Type* types) noexcept nogil:
    """The bit of an array whose first `end` elements lanes can be loaded from, each of its own type."""
    if not is_row(p, FLOAT64 if wide else OTHER) or not is_line(p, end):
        return 0
    types[role] = p.type
    return bit_of(role)


cdef inline int settle_weights(const Place* p, Py_ssize_t end, Type* types) noexcept nogil:
    if not reads_weights(p) or is_still(p) or not is_line(p, end):
        return 0
    if p.data is not NULL:
        types[OF_WEIGHTS] = p.type
    return bit_of(OF_WEIGHTS)


cdef inline int settle_all(const Run* run, bint wide, Py_ssize_t end, Type* types) noexcept nogil:
    return (
        settle(&run.x, OF_X, wide, end, types) | settle(&run.dy, OF_DY, wide, end, types)
        | settle(&run.residual, OF_RESIDUAL, wide, end, types) | settle(&run.kept, OF_KEPT, wide, end, types)
        | settle(&run.g, OF_G, wide, end, types) | settle(&run.y, OF_Y, wide, end, types)
        | settle_weights(&run.weights, end, types)
    )


cdef inline void put_back(
    const Job* job, const Run* run, Py_ssize_t first, Py_ssize_t n, const real* y, const real* g
) noexcept nogil:
    if not run.standing & bit_of(OF_Y):
        scatter(y, run.y, first, n, &job.quantizer)
    if not run.standing & bit_of(OF_G) and run.g.data is not NULL:
        scatter(g, run.g, first, n, NULL)


cdef inline void apply_buffered(const Job* job, bint wide, Run* run, Py_ssize_t start, Stretch stretch) noexcept nogil:
    """Elements of a run of any strides, types and length from `start` on, by buffers where lanes are not loaded or stored."""
    cdef Buffers buffers
    cdef double y[256]
    cdef double g[256]
    cdef Type types[ROLES]
    cdef Py_ssize_t first = 0, n = stretch.n, part, column = stretch.column
    cdef int role
    cdef bint whole
    for role in range(ROLES):
        types[role] = FLOAT64 if wide else FLOAT32
    run.standing = settle_all(run, wide, start + n, types) if n >= 32 else 0
    whole = run.standing == bit_of(ROLES) - 1 and run.signs.data is NULL
    stretch.types, stretch.past, stretch.still = types, stretch.past and whole, False
    while first < n:
        part = n - first
        if part > BUFFER and not whole:  # and what is left is at least as much as there are lanes
            part = BUFFER if part >= BUFFER + 32 else BUFFER - 32
        fill(run, wide, &buffers, start + first, 0, part)
        stretch.spot = buffered_spot(run, &buffers, start + first)
        stretch.n = max(part, <Py_ssize_t>32)
        stretch.y = <char*>address(&run.y, start + first) if run.standing & bit_of(OF_Y) else <char*>y
        if run.g.data is not NULL:
            stretch.g = <char*>address(&run.g, start + first) if run.standing & bit_of(OF_G) else <char*>g
        if stretch.table is not NULL:
            stretch.column = (column + first) % job.period
        loop_for(job, wide, False)(job, stretch.spot.x, &stretch)
        if wide:
            put_back(job, run, start + first, part, y, g)
        else:
            put_back(job, run, start + first, part, <const float*>y, <const float*>g)
        first += part


cdef inline void apply_channels(
    const Job* job, Py_ssize_t o, Py_ssize_t c0, Py_ssize_t c1, Py_ssize_t i, Py_ssize_t n
) noexcept nogil:
    """n elements of each channel, all of them wide or none, from (o, i): inner ones or, where y runs along those, outer ones."""
    cdef bint wide = job.x.type == FLOAT64 or job.wide[c0] != 0, direct = is_direct(job, wide)
    cdef Stretch stretch = new_stretch(job, n)
    cdef Run run
    cdef Py_ssize_t c
    if (direct or (job.in_rows and not wide)) and n >= 32:
        stretch.spot, stretch.channel, stretch.runs = spot_of(job, o, c0, i), c0, c1 - c0
        stretch.y, stretch.g = at(job, &job.y, o, c0, i), at(job, &job.g, o, c0, i)
        stretch.still = job.weights.inner == 0
        loop_for(job, wide, direct)(job, stretch.spot.x, &stretch)
        return
    for c in range(c0, c1):
        stretch.channel = c
        run = channel_run(job, o, c, i, n, job.down)
        apply_buffered(job, wide, &run, 0, stretch)


cdef inline void apply_columns(const Job* job, const Block* block, Py_ssize_t c0, Py_ssize_t c1) noexcept nogil:
    """The outer rows of a block, of the channels c0 to c1, none of them wide: as one run, or row by row."""
    cdef bint wide = job.x.type == FLOAT64
    cdef Run run = columns_run(job, block.o0, c0, c1 - c0)
    cdef Py_ssize_t row = (c1 - c0) * job.inner, n = row * (block.o1 - block.o0), first = 0
    cdef bint direct = are_rows(&run, job.x.type), in_rows = direct or (not wide and are_rows(&run, OTHER))
    cdef bint end_to_end = reads_lines(&run, n) and is_line(&run.y, n) and is_line(&run.g, n)
    cdef bint all = c1 - c0 == job.channels
    cdef Stretch stretch = new_stretch(job, row)
    stretch.table, stretch.column = job.table, c0 * job.inner
    if all and (end_to_end or not in_rows or row < 32):
        in_rows = in_rows and end_to_end
        stretch.n = n
    if in_rows and stretch.n >= 32:
        stretch.spot = spot_at(&run, 0)
        stretch.y, stretch.g, stretch.runs, stretch.still = run.y.data, run.g.data, n // stretch.n, is_still(&run.weights)
        loop_for(job, wide, direct)(job, stretch.spot.x, &stretch)
        return
    while first < n:
        apply_buffered(job, wide, &run, first, stretch)
        first += stretch.n


cdef inline Py_ssize_t segment_end(const uint8_t* wide, Py_ssize_t c, Py_ssize_t end) noexcept nogil:
    """Behind the channels from c on that are all wide, or none of them is."""
    cdef bint first = wide[c] != 0
    if are_equal(wide + c, end - c):
        return end
    while c < end and (wide[c] != 0) == first:
        c += 1
    return c


cdef inline void apply_block(const Job* job, const Block* block) noexcept nogil:
    """A block, segment by segment of channels that are wide, or are not; all rows of a segment of columns, or row by row."""
    cdef Py_ssize_t c = block.c0, first, o, rows = block.o1 - block.o0, n = block.n, i = block.i0
    if job.down:
        rows, n, i = 1, rows, 0
    while c < block.c1:
        first = c
        c = segment_end(job.wide, c, block.c1)
        if job.columns_apply and not job.wide[first]:
            apply_columns(job, block, first, c)
        else:  # one call for both: inlined twice, it had twice the buffers, and the frame took 30 KB of the stack
            for o in range(block.o0, block.o0 + rows):
                apply_channels(job, o, first, c, i, n)
