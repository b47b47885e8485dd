# The sums of a job's chunks and spans, in the order that _order.py fixes.

cdef inline double samples_before(const Job* job, Py_ssize_t chunk) noexcept nogil:
    """Samples of a channel in the chunks before this one."""
    cdef Py_ssize_t row = min(chunk // job.pieces * job.rows, job.outer)
    return <double>(row * job.inner + chunk % job.pieces * job.piece)


cdef inline void combine(
    const Job* job, double* into, Py_ssize_t plane, const double* part, Py_ssize_t part_plane, Py_ssize_t n,
    double before, double added
) noexcept nogil:
    """into (3, n) of `before` samples <- into + part (3, n) of `added` samples; rows lie a plane apart."""
    cdef Moments m
    cdef Py_ssize_t c, i
    if job.backward:
        for i in range(2):
            for c in range(n):
                into[i * plane + c] += part[i * part_plane + c]
    else:
        for c in range(n):
            m = merge(
                before, into[c], into[plane + c], into[2 * plane + c],
                added, part[c], part[part_plane + c], part[2 * part_plane + c]
            )
            into[c] = m.mean
            into[plane + c] = m.low
            into[2 * plane + c] = m.m2


cdef void row_totals(
    const Job* job, const real* tag, Py_ssize_t o0, Py_ssize_t o1, Py_ssize_t i0, Py_ssize_t n, Py_ssize_t c,
    double centre, double* total, double* square
) noexcept nogil:
    """Sums about `centre` of n elements from i0 of each of the rows o0 to o1 of channel c."""
    cdef double s[LANES]
    cdef double q[LANES]
    cdef Py_ssize_t dy_step = job.dy.inner, step = job.x.inner, o, l
    cdef bint unit = step == 1 and dy_step == 1
    cdef const real* x
    cdef const real* dy
    for l in range(LANES):
        s[l] = 0.0
        q[l] = 0.0
    for o in range(o0, o1):
        if real is float:
            if job.loaded:
                loaded_row_sums(job, tag, o, i0, n, c, centre, s, q)
                continue
        x = at(tag, &job.x, o, c, i0)
        dy = at(tag, &job.dy, o, c, i0)
        if job.backward and unit:
            row_sums(True, dy, 1, x, 1, n, centre, s, q)
        elif job.backward:
            row_sums(True, dy, dy_step, x, step, n, centre, s, q)
        elif unit:
            row_sums(False, x, 1, x, 1, n, centre, s, q)
        else:
            row_sums(False, x, step, x, step, n, centre, s, q)
    total[0] = fold_lanes(s)
    square[0] = fold_lanes(q)


cdef void run_totals(
    const Job* job, const real* tag, Py_ssize_t o, Py_ssize_t c0, Py_ssize_t n,
    const double* centre, double* total, double* square
) noexcept nogil:
    """Sums of the one row o of n channels from c0, whose samples are columns."""
    cdef Py_ssize_t dy_step = job.dy.inner, step = job.x.inner, c
    cdef bint unit = step == 1 and dy_step == 1
    cdef const real* x
    cdef const real* dy
    for c in range(n):
        if real is float:
            if job.loaded:
                loaded_run_sums(job, tag, o, c0 + c, centre[c], total + c, square + c)
                continue
        x = at(tag, &job.x, o, c0 + c, 0)
        dy = at(tag, &job.dy, o, c0 + c, 0)
        if job.backward and unit:
            run_sums(True, dy, 1, x, 1, job.inner, centre[c], total + c, square + c)
        elif job.backward:
            run_sums(True, dy, dy_step, x, step, job.inner, centre[c], total + c, square + c)
        elif unit:
            run_sums(False, x, 1, x, 1, job.inner, centre[c], total + c, square + c)
        else:
            run_sums(False, x, step, x, step, job.inner, centre[c], total + c, square + c)


cdef void column_totals(
    const Job* job, const real* tag, Py_ssize_t o0, Py_ssize_t o1, Py_ssize_t c0, Py_ssize_t n,
    const double* centre, double* total, double* square
) noexcept nogil:
    """Sums of the rows o0 to o1 of n channels from c0, whose samples are columns; total, square have room for these."""
    cdef double centres[WIDEST]
    cdef Py_ssize_t inner = job.inner, rows = o1 - o0, c = 0, j, together
    cdef Py_ssize_t dy_step = column_step(&job.dy, inner), step = column_step(&job.x, inner)
    cdef const real* x
    cdef const real* dy
    if inner > 1:
        for c in range(n):
            for j in range(inner):
                centres[c * inner + j] = centre[c]
        centre = centres
    together = n if packed(&job.x, inner) and packed(&job.dy, inner) else 1
    for j in range(n * inner):
        total[j] = 0.0
        square[j] = 0.0
    c = 0
    while c < n:
        x = at(tag, &job.x, o0, c0 + c, 0)
        dy = at(tag, &job.dy, o0, c0 + c, 0)
        j = c * inner
        c += together
        if real is float:
            if job.loaded:
                loaded_column_sums(
                    job, tag, o0, o1, c0 + c - together, together * inner, centre + j, total + j, square + j
                )
                continue
        if job.backward:
            column_sums(
                True, dy, job.dy.outer, dy_step, x, job.x.outer, step, rows, together * inner,
                centre + j, total + j, square + j
            )
        else:
            column_sums(
                False, x, job.x.outer, step, x, job.x.outer, step, rows, together * inner,
                centre + j, total + j, square + j
            )
    if inner > 1:
        for c in range(n):
            total[c] = fold_columns(total + c * inner, inner)
            square[c] = fold_columns(square + c * inner, inner)


cdef void chunk_sums(
    const Job* job, const real* tag, Py_ssize_t chunk, Py_ssize_t c0, Py_ssize_t channels,
    double* parts, Py_ssize_t plane
) noexcept nogil:
    """parts (3, channels), whose rows lie a plane apart, <- the sums of one chunk of each channel."""
    cdef double centre[WIDEST]
    cdef double total[WIDEST]
    cdef double square[WIDEST]
    cdef Py_ssize_t o0 = chunk // job.pieces * job.rows, i0 = chunk % job.pieces * job.piece
    cdef Py_ssize_t o1 = min(o0 + job.rows, job.outer), n = min(job.piece, job.inner - i0)
    cdef double count = <double>((o1 - o0) * n)
    cdef double pivot, m2
    cdef Moments m
    cdef Py_ssize_t c, far, moved
    cdef int attempt
    for c in range(channels):
        centre[c] = job.mean[c0 + c] if job.backward else sample(job, tag, o0, c0 + c, i0)
    for attempt in range(3):
        if not job.columns:
            for c in range(channels):
                row_totals(job, tag, o0, o1, i0, n, c0 + c, centre[c], total + c, square + c)
        elif n > 1 and o1 - o0 == 1:
            run_totals(job, tag, o0, c0, channels, centre, total, square)
        else:
            column_totals(job, tag, o0, o1, c0, channels, centre, total, square)
        if job.backward:
            memcpy(parts, total, channels * sizeof(double))
            memcpy(parts + plane, square, channels * sizeof(double))
            return
        far = 0
        for c in range(channels):
            m = close(count, centre[c], total[c], square[c])
            parts[c] = m.mean
            parts[plane + c] = m.low
            parts[2 * plane + c] = m.m2
            far += pivot_is_far(total[c], total[c] / count, m.m2)
        if far == 0:
            return
        moved = 0
        for c in range(channels):
            m2 = parts[2 * plane + c]
            if pivot_is_far(total[c], total[c] / count, m2):
                pivot = next_pivot(tag, centre[c], total[c] / count, m2, attempt == 0)
                moved += pivot != centre[c]
                centre[c] = pivot
        if moved == 0:
            return


cdef void chunks_sums(
    const Job* job, const real* tag, Py_ssize_t first, Py_ssize_t last, Py_ssize_t c0, Py_ssize_t n,
    double* parts, Py_ssize_t plane
) noexcept nogil:
    """parts (3, n), whose rows lie a plane apart, <- the sums of the chunks from first to last, merged in turn."""
    cdef double fresh[3 * WIDEST]
    cdef double start = samples_before(job, first), before
    cdef Py_ssize_t chunk
    chunk_sums(job, tag, first, c0, n, parts, plane)
    for chunk in range(first + 1, last):
        chunk_sums(job, tag, chunk, c0, n, fresh, WIDEST)
        before = samples_before(job, chunk)
        combine(job, parts, plane, fresh, WIDEST, n, before - start, samples_before(job, chunk + 1) - before)
