# The elementwise pass over blocks of a walk, by rows or by columns, whole where nothing stands in the way.

from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.lanes cimport *
from cpubn.backends.compiled.runs cimport *


cdef inline Stretch new_stretch(const Job* job, Py_ssize_t n) noexcept nogil:
    cdef Stretch stretch
    stretch.n, stretch.channel, stretch.runs, stretch.column, stretch.past = n, 0, 1, 0, job.past
    stretch.table = NULL
    stretch.y = stretch.g = NULL
    return stretch


cdef inline void apply_buffered(
    const Job* job, bint wide, const Run* run, Py_ssize_t start, Stretch stretch
) noexcept nogil:
    """Elements of a run of any strides, types and length from `start` on, BUFFER at a time."""
    cdef Buffers buffers
    cdef double y[256]
    cdef double g[256]
    cdef Py_ssize_t first, n = stretch.n, part, column = stretch.column
    stretch.past = False
    stretch.y = <char*>y
    if run.g.data is not NULL:
        stretch.g = <char*>g
    for first in range(0, n, 256):
        part = min(n - first, BUFFER)
        fill(run, wide, &buffers, start + first, 0, part)
        stretch.spot = buffered_spot(run, &buffers)
        stretch.n = (part + 31) // 32 * 32
        if stretch.table is not NULL:
            stretch.column = (column + first) % job.period
        loops_for(job, wide, False).apply(job, stretch.spot.x, &stretch)
        if wide:
            scatter(<const double*>y, run.y, start + first, part, &job.quantizer)
        else:
            scatter(<const float*>y, run.y, start + first, part, &job.quantizer)
        if run.g.data is not NULL and wide:
            scatter(<const double*>g, run.g, start + first, part, NULL)
        elif run.g.data is not NULL:
            scatter(<const float*>g, run.g, start + first, part, NULL)


cdef inline void apply_channels(
    const Job* job, Py_ssize_t o, Py_ssize_t c0, Py_ssize_t c1, Py_ssize_t i, Py_ssize_t n
) noexcept nogil:
    """n elements of each channel, all of them wide or none, from (o, i): inner ones or, where y runs along those, outer ones."""
    cdef bint wide = job.x.type == FLOAT64 or job.wide[c0] != 0
    cdef Stretch stretch = new_stretch(job, n)
    cdef Run run
    cdef Py_ssize_t c
    if is_direct(job, wide) and n >= 32:
        stretch.spot, stretch.channel, stretch.runs = spot_of(job, o, c0, i), c0, c1 - c0
        stretch.y, stretch.g = at(&job.y, o, c0, i), at(&job.g, o, c0, i)
        loops_for(job, wide, True).apply(job, stretch.spot.x, &stretch)
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
    cdef bint direct = reads_rows(&run, job.x.type) and is_row(&run.y, job.x.type) and is_row(&run.g, job.x.type)
    cdef bint end_to_end = reads_lines(&run, n) and is_line(&run.y, n) and is_line(&run.g, n)
    cdef bint all = c1 - c0 == job.channels
    cdef Stretch stretch = new_stretch(job, row)
    stretch.table, stretch.column = job.table, c0 * job.inner
    if all and ((direct and end_to_end) or not direct or row < 32):
        direct = direct and end_to_end
        stretch.n = n
    if direct and stretch.n >= 32:
        stretch.spot = spot_at(&run, 0)
        stretch.y, stretch.g, stretch.runs = run.y.data, run.g.data, n // stretch.n
        loops_for(job, wide, True).apply(job, stretch.spot.x, &stretch)
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
