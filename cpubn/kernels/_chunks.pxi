# A job, and the sums of its chunks and spans, in the order that _order.py fixes.

cdef struct Strided:
    void* data
    Py_ssize_t outer  # strides in elements
    Py_ssize_t channel
    Py_ssize_t inner

cdef struct Job:
    bint backward
    bint sums  # otherwise the coefficients are given
    bint apply  # otherwise only the sums are wanted
    Py_ssize_t outer
    Py_ssize_t channels
    Py_ssize_t inner
    bint columns  # the order of summation: see _order.py
    Py_ssize_t rows
    Py_ssize_t piece
    Py_ssize_t pieces
    Py_ssize_t chunks
    Py_ssize_t span
    Py_ssize_t spans
    Py_ssize_t group  # channels taken together
    Py_ssize_t groups
    Py_ssize_t block  # outer rows taken together where the coefficients are known
    bint stream
    Strided x
    Strided dy
    Strided y
    const double* mean
    const double* var
    const double* weight
    const double* bias
    double eps
    double* result  # (3, C) moments or (2, C) gradient sums
    double* coefficients  # (3 or COEFFICIENTS, C), as _apply.pxi numbers them
    double* parts  # (spans, C, 3)


cdef inline const real* at(const real* tag, const Strided* w, Py_ssize_t o, Py_ssize_t c, Py_ssize_t i) noexcept nogil:
    return <const real*>w.data + (o * w.outer + c * w.channel + i * w.inner)


cdef inline double samples_before(const Job* job, Py_ssize_t chunk) noexcept nogil:
    """Samples of a channel in the chunks before this one."""
    cdef Py_ssize_t row = min(chunk // job.pieces * job.rows, job.outer)
    return <double>(row * job.inner + chunk % job.pieces * job.piece)


cdef inline void combine(
    const Job* job, double* into, const double* part, Py_ssize_t count, double before, double added
) noexcept nogil:
    """into (count, 3) <- into + part; the first part simply is the sum."""
    cdef Py_ssize_t c
    for c in range(0, 3 * count, 3):
        if before == 0.0:
            into[c] = part[c]
            into[c + 1] = part[c + 1]
            into[c + 2] = part[c + 2]
        elif job.backward:
            into[c] += part[c]
            into[c + 1] += part[c + 1]
        else:
            merge(before, into + c, added, part + c)


cdef inline void lane_sums(
    const Job* job, const real* tag, Py_ssize_t o0, Py_ssize_t o1, Py_ssize_t i0, Py_ssize_t n, Py_ssize_t c,
    double centre, double* total, double* square
) noexcept nogil:
    """Sums of n elements from i0 of each of the rows o0 to o1 of channel c."""
    cdef double s[LANES]
    cdef double q[LANES]
    cdef Py_ssize_t dy_step = job.dy.inner, step = job.x.inner, o, l
    cdef bint unit = step == 1 and dy_step == 1
    cdef const real* x = at(tag, &job.x, o0, c, i0)
    cdef const real* dy = at(tag, &job.dy, o0, c, i0)
    if job.columns:
        if job.backward and unit:
            run_sums(True, dy, 1, x, 1, n, centre, total, square)
        elif job.backward:
            run_sums(True, dy, dy_step, x, step, n, centre, total, square)
        elif unit:
            run_sums(False, x, 1, x, 1, n, centre, total, square)
        else:
            run_sums(False, x, step, x, step, n, centre, total, square)
        return
    for l in range(LANES):
        s[l] = 0.0
        q[l] = 0.0
    for o in range(o0, o1):
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


cdef void row_chunk(
    const Job* job, const real* tag, Py_ssize_t o0, Py_ssize_t o1, Py_ssize_t i0, Py_ssize_t n, Py_ssize_t c,
    double* part
) noexcept nogil:
    """part (3,) <- the sums of one chunk of channel c, row by row."""
    cdef double total, square, count = <double>((o1 - o0) * n)
    cdef double centre = job.mean[c] if job.backward else <double>at(tag, &job.x, o0, c, i0)[0]
    cdef int attempt
    for attempt in range(2):
        lane_sums(job, tag, o0, o1, i0, n, c, centre, &total, &square)
        if job.backward:
            part[0] = total
            part[1] = square
            return
        close(count, centre, total, square, part)
        if not pivot_is_far(total, total / count, part[2]):
            return
        centre += total / count


cdef inline bint packed(const Strided* w, Py_ssize_t inner) noexcept nogil:
    """Whether the inner runs of all channels lie one step apart from one another."""
    return inner == 1 or w.channel == inner * w.inner


cdef inline Py_ssize_t column_step(const Strided* w, Py_ssize_t inner) noexcept nogil:
    return w.channel if inner == 1 else w.inner


cdef void column_chunk(
    const Job* job, const real* tag, Py_ssize_t o0, Py_ssize_t o1, Py_ssize_t c0, Py_ssize_t c1, double* parts
) noexcept nogil:
    """parts (c1 - c0, 3) <- the sums of one chunk of channels c0 to c1, whose samples are columns."""
    cdef double centre[WIDEST]
    cdef double s[WIDEST]
    cdef double q[WIDEST]
    cdef double total, count = <double>((o1 - o0) * job.inner)
    cdef Py_ssize_t inner = job.inner, rows = o1 - o0, c, j, together
    cdef Py_ssize_t dy_step = column_step(&job.dy, inner), step = column_step(&job.x, inner)
    cdef const real* x
    cdef const real* dy
    cdef bint far
    cdef int attempt
    together = c1 - c0 if packed(&job.x, inner) and packed(&job.dy, inner) else 1
    for c in range(c0, c1):
        centre[(c - c0) * inner] = job.mean[c] if job.backward else <double>at(tag, &job.x, o0, c, 0)[0]
    for attempt in range(2):
        for c in range(c1 - c0):
            for j in range(1, inner):
                centre[c * inner + j] = centre[c * inner]
        c = c0
        while c < c1:
            x = at(tag, &job.x, o0, c, 0)
            dy = at(tag, &job.dy, o0, c, 0)
            j = (c - c0) * inner
            if job.backward:
                column_sums(
                    True, dy, job.dy.outer, dy_step, x, job.x.outer, step, rows, together * inner, centre + j, s + j, q + j
                )
            else:
                column_sums(
                    False, x, job.x.outer, step, x, job.x.outer, step, rows, together * inner, centre + j, s + j, q + j
                )
            c += together
        far = False
        for c in range(c1 - c0):
            j = c * inner
            total = fold_columns(s + j, inner)
            if job.backward:
                parts[3 * c] = total
                parts[3 * c + 1] = fold_columns(q + j, inner)
            else:
                close(count, centre[j], total, fold_columns(q + j, inner), parts + 3 * c)
                if attempt == 0 and pivot_is_far(total, total / count, parts[3 * c + 2]):
                    centre[j] += total / count
                    far = True
        if not far:
            return


cdef void span_sums(
    const Job* job, const real* tag, Py_ssize_t span, Py_ssize_t c0, Py_ssize_t c1, double* parts
) noexcept nogil:
    """parts (c1 - c0, 3) <- the sums of one span, chunk by chunk."""
    cdef double fresh[3 * WIDEST]
    cdef double before, start
    cdef Py_ssize_t first = span * job.span, chunk, o0, o1, i0, c
    start = samples_before(job, first)
    for chunk in range(first, min(first + job.span, job.chunks)):
        o0 = chunk // job.pieces * job.rows
        o1 = min(o0 + job.rows, job.outer)
        i0 = chunk % job.pieces * job.piece
        if job.columns and (job.inner == 1 or o1 - o0 > 1):
            column_chunk(job, tag, o0, o1, c0, c1, fresh)
        else:
            for c in range(c0, c1):
                row_chunk(job, tag, o0, o1, i0, min(job.piece, job.inner - i0), c, fresh + 3 * (c - c0))
        before = samples_before(job, chunk)
        combine(job, parts, fresh, c1 - c0, before - start, samples_before(job, chunk + 1) - before)
