# Sums of samples that are not of the type computed in: read piece by piece into buffers, then summed as any others, in
# the same order. What is computed in float64 is float64, and calls none of these: their buffers would take room of a
# worker's small stack.

cdef enum:
    STRIP = 64  # columns read together
    BUFFERED = 1024  # elements of them, so that there are rows enough to pay for loading the columns' accumulators


cdef void loaded_row_sums(
    const Job* job, const real* tag, Py_ssize_t o, Py_ssize_t i0, Py_ssize_t n, Py_ssize_t c,
    double centre, double* s, double* q
) noexcept nogil:
    """`row_sums` of n elements from i0 of row o of channel c."""
    cdef real x[PIECE]
    cdef real dy[PIECE]
    cdef Py_ssize_t i = 0, part
    while i < n:
        part = min(n - i, <Py_ssize_t>PIECE)  # whole blocks of LANES, but for the last
        load(job.x.type, spot(&job.x, o, c, i0 + i), job.x.inner, x, part)
        if job.backward:
            load(job.dy.type, spot(&job.dy, o, c, i0 + i), job.dy.inner, dy, part)
            row_sums(True, dy, 1, x, 1, part, centre, s, q)
        else:
            row_sums(False, x, 1, x, 1, part, centre, s, q)
        i += part


cdef void loaded_run_sums(
    const Job* job, const real* tag, Py_ssize_t o, Py_ssize_t c, double centre, double* s, double* q
) noexcept nogil:
    """`run_sums` of row o of channel c, which is shorter than a piece."""
    cdef real x[PIECE]
    cdef real dy[PIECE]
    load(job.x.type, spot(&job.x, o, c, 0), job.x.inner, x, job.inner)
    if job.backward:
        load(job.dy.type, spot(&job.dy, o, c, 0), job.dy.inner, dy, job.inner)
        run_sums(True, dy, 1, x, 1, job.inner, centre, s, q)
    else:
        run_sums(False, x, 1, x, 1, job.inner, centre, s, q)


cdef inline void fetch_bytes(const char* p, Py_ssize_t count) noexcept nogil:
    """Ask for bytes that will be read soon."""
    cdef Py_ssize_t i
    for i in range((count + LINE - 1) // LINE):
        cpubn_prefetch(p + i * LINE)


cdef inline void load_rows(
    const Job* job, const Strided* w, Py_ssize_t o, Py_ssize_t c, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t columns,
    real* to
) noexcept nogil:
    """to (rows, columns) <- columns from `first` on, counted from channel c, of the rows from o on."""
    cdef Py_ssize_t step = column_step(w, job.inner), row
    cdef const char* source = <const char*>spot(w, o, c, 0) + first * step * w.size
    if step == 1 and w.outer == columns:
        load(w.type, source, 1, to, rows * columns)
        return
    for row in range(rows):
        fetch_bytes(source + (rows + row) * w.outer * w.size, columns * step * w.size)
        load(w.type, source + row * w.outer * w.size, step, to + row * columns, columns)


cdef void loaded_column_sums(
    const Job* job, const real* tag, Py_ssize_t o0, Py_ssize_t o1, Py_ssize_t c, Py_ssize_t width,
    const double* centre, double* s, double* q
) noexcept nogil:
    """`column_sums` of the rows o0 to o1 of `width` columns from channel c."""
    cdef real x[BUFFERED]
    cdef real dy[BUFFERED]
    cdef Py_ssize_t columns, first, o = o0, rows = BUFFERED // min(width, <Py_ssize_t>STRIP)
    while o < o1:  # rows outermost, so that memory is read nearly row by row
        rows = min(rows, o1 - o)
        first = 0
        while first < width:
            columns = min(width - first, <Py_ssize_t>STRIP)
            load_rows(job, &job.x, o, c, first, rows, columns, x)
            if job.backward:
                load_rows(job, &job.dy, o, c, first, rows, columns, dy)
                column_sums(
                    True, dy, columns, 1, x, columns, 1, rows, columns, centre + first, s + first, q + first
                )
            else:
                column_sums(
                    False, x, columns, 1, x, columns, 1, rows, columns, centre + first, s + first, q + first
                )
            first += columns
        o += rows
