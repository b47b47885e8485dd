# A pass: sums, per-channel algebra and the elementwise loop, shared out among threads.
#
# Which thread does what never changes a bit: chunks and spans are merged in their own order wherever they were summed.

cdef void narrow_down(const Job* job, const real* tag, Py_ssize_t c0, Py_ssize_t width) noexcept nogil:
    """The coefficients of `width` channels from c0 in the data's type."""
    cdef real* narrow = <real*>job.narrow
    cdef Py_ssize_t first, i, c
    for i in range(COEFFICIENTS if job.backward else 3):
        first = i * job.channels + c0
        for c in range(width):
            narrow[first + c] = <real>job.coefficients[first + c]


cdef void finish(
    const Job* job, const real* tag, Py_ssize_t c0, Py_ssize_t width, const double* totals, Py_ssize_t plane
) noexcept nogil:
    """Results and coefficients of `width` channels from c0, from their sums (3, width); rows lie a plane apart."""
    cdef double count = <double>(job.outer * job.inner)
    cdef const double* second = totals + plane
    cdef Py_ssize_t n = job.channels, i
    for i in range(2 if job.backward else 3):
        memcpy(job.result + i * n + c0, totals + i * plane, width * sizeof(double))
    if not job.apply:
        return
    if job.backward:
        gradient_vectors(
            tag, width, count, job.mean + c0, job.var + c0, job.weight + c0, job.eps, totals, second,
            job.coefficients + c0, n
        )
    else:
        affine_vectors(
            tag, width, totals, second, second + plane, count, job.weight + c0, job.bias + c0, job.eps,
            job.coefficients + c0, n
        )
    if job.narrow is not NULL:
        narrow_down(job, tag, c0, width)


cdef inline bint is_wide(const Job* job, const real* tag, Py_ssize_t c) noexcept nogil:
    """Whether channel c must be computed in float64."""
    cdef const double* a = job.coefficients + c
    cdef Py_ssize_t n = job.channels
    if real is double:
        return False
    elif job.backward:
        return backward_is_wide(a[0], a[n], a[2 * n], a[3 * n], a[4 * n])
    else:
        return forward_is_wide(a[0], a[n], a[2 * n])


cdef inline Py_ssize_t wide_among(const Job* job, const real* tag, Py_ssize_t c0, Py_ssize_t c1) noexcept nogil:
    """How many of the channels c0 to c1 must be computed in float64: by vectors, as a search is not."""
    cdef Py_ssize_t c, wide = 0
    if job.epilogue.bare:
        return 0
    for c in range(c0, c1):
        wide += is_wide(job, tag, c)
    return wide


cdef inline void apply_with(
    const Job* job, const real* tag, Py_ssize_t o0, Py_ssize_t o1, Py_ssize_t n, Py_ssize_t c0, Py_ssize_t c1,
    const real* a, Py_ssize_t plane
) noexcept nogil:
    """`apply_narrow` with coefficients a, each kind a plane apart."""
    cdef const Strided* dy = &job.dy
    if job.backward:
        apply_columns(
            True, at(tag, dy, o0, c0, 0), dy.outer, column_step(dy, n),
            at(tag, &job.x, o0, c0, 0), job.x.outer, column_step(&job.x, n),
            <real*>at(tag, &job.y, o0, c0, 0), job.y.outer, column_step(&job.y, n),
            o1 - o0, (c1 - c0) * n, a, plane, job.stream
        )
    else:
        apply_columns(
            False, at(tag, &job.x, o0, c0, 0), job.x.outer, column_step(&job.x, n),
            at(tag, &job.x, o0, c0, 0), job.x.outer, column_step(&job.x, n),
            <real*>at(tag, &job.y, o0, c0, 0), job.y.outer, column_step(&job.y, n),
            o1 - o0, (c1 - c0) * n, a, plane, job.stream
        )


cdef inline void spread(
    const Job* job, Py_ssize_t n, Py_ssize_t c0, Py_ssize_t c1, real* a
) noexcept nogil:
    """a (COEFFICIENTS, WIDEST) <- the coefficients of channels c0 to c1, each for n columns."""
    cdef const double* coefficients
    cdef Py_ssize_t c, i, j
    for i in range(COEFFICIENTS if job.backward else 3):
        coefficients = job.coefficients + i * job.channels + c0
        if n == 1:
            for c in range(c1 - c0):
                a[i * WIDEST + c] = <real>coefficients[c]
        else:
            for c in range(c1 - c0):
                for j in range(n):
                    a[i * WIDEST + c * n + j] = <real>coefficients[c]


cdef void apply_narrow(
    const Job* job, const real* tag, Py_ssize_t o0, Py_ssize_t o1, Py_ssize_t n, Py_ssize_t c0, Py_ssize_t c1
) noexcept nogil:
    """The elementwise pass over columns, none of them wide: channels c0 to c1 of n columns each.

    From a local copy of their coefficients where it has room: that nothing else can point there is worth 1.1x to 1.3x.
    """
    cdef real a[COEFFICIENTS * WIDEST]
    if job.narrow is not NULL:
        apply_with(job, tag, o0, o1, n, c0, c1, <const real*>job.narrow + c0, job.channels)
    else:
        spread(job, n, c0, c1, a)
        apply_with(job, tag, o0, o1, n, c0, c1, a, WIDEST)


cdef void apply_channel(
    const Job* job, const real* tag, Py_ssize_t o, Py_ssize_t i, Py_ssize_t n, Py_ssize_t c, bint down
) noexcept nogil:
    """The elementwise pass over a run of n elements of channel c from (o, i): inner ones or, if `down`, outer ones."""
    cdef double a[COEFFICIENTS]
    cdef const Strided* dy = &job.dy
    cdef bint wide = is_wide(job, tag, c)
    cdef Py_ssize_t x_step = job.x.outer if down else job.x.inner
    cdef Py_ssize_t y_step = job.y.outer if down else job.y.inner
    cdef Py_ssize_t dy_step = dy.outer if down else dy.inner
    cdef Py_ssize_t k
    for k in range(COEFFICIENTS if job.backward else 3):
        a[k] = job.coefficients[k * job.channels + c]
    if job.backward:
        apply_row(
            True, at(tag, dy, o, c, i), dy_step, at(tag, &job.x, o, c, i), x_step,
            <real*>at(tag, &job.y, o, c, i), y_step, n, a, wide, job.stream
        )
    else:
        apply_row(
            False, at(tag, &job.x, o, c, i), x_step, at(tag, &job.x, o, c, i), x_step,
            <real*>at(tag, &job.y, o, c, i), y_step, n, a, wide, job.stream
        )


cdef inline void apply_one(
    const Job* job, const real* tag, Py_ssize_t o, Py_ssize_t i, Py_ssize_t n, Py_ssize_t c, bint down
) noexcept nogil:
    if job.staged:
        staged_channel(job, tag, o, i, n, c, down)
    else:
        apply_channel(job, tag, o, i, n, c, down)


cdef inline void apply_some(
    const Job* job, const real* tag, Py_ssize_t o0, Py_ssize_t o1, Py_ssize_t n, Py_ssize_t c0, Py_ssize_t c1
) noexcept nogil:
    if job.staged:
        staged_narrow(job, tag, o0, o1, n, c0, c1)
    else:
        apply_narrow(job, tag, o0, o1, n, c0, c1)


cdef void apply_block(
    const Job* job, const real* tag, Py_ssize_t o0, Py_ssize_t o1, Py_ssize_t i0, Py_ssize_t n,
    Py_ssize_t c0, Py_ssize_t c1
) noexcept nogil:
    """The elementwise pass over outer rows o0 to o1, n inner elements from i0, channels c0 to c1."""
    cdef bint columns = job.columns and (n == 1 or o1 - o0 >= FEW_ROWS)
    cdef Py_ssize_t first, c, o, i
    columns = columns and packed(&job.x, n) and packed(&job.y, n) and packed(&job.dy, n)
    columns = columns and (job.epilogue.residual.data is NULL or packed(&job.epilogue.residual, n))
    if job.colours:
        staged_colours(job, tag, o0, o1)
    elif job.down:
        for c in range(c0, c1):
            apply_one(job, tag, o0, 0, o1 - o0, c, True)
    elif not columns:
        for o in range(o0, o1):
            for c in range(c0, c1):
                apply_one(job, tag, o, i0, n, c, False)
    elif wide_among(job, tag, c0, c1) == 0:
        apply_some(job, tag, o0, o1, n, c0, c1)
    else:
        c = c0
        while c < c1:
            first = c
            while c < c1 and not is_wide(job, tag, c):
                c += 1
            if c > first:
                apply_some(job, tag, o0, o1, n, first, c)
            if c < c1:
                for i in range(n):
                    apply_one(job, tag, o0, i, o1 - o0, c, True)
                c += 1
    if job.stream:
        cpubn_stream_end()


cdef enum Phase:
    WHOLE  # a group of channels from its sums to its output, while it is in cache; its spans are single chunks
    SUMS  # one span of one group
    COMBINE  # a group's spans to its coefficients
    APPLY  # a block of outer rows of one band


cdef void unit(const Job* job, const real* tag, Phase phase, Py_ssize_t u) noexcept nogil:
    """One unit of work of a phase; units may run in any order and at the same time."""
    cdef double totals[3 * WIDEST]
    cdef double* parts
    cdef double before
    cdef Py_ssize_t c0, c1, n, span, chunk, o0, i0
    cdef Py_ssize_t group = job.band if phase == APPLY else job.group
    cdef Py_ssize_t groups = job.bands if phase == APPLY else job.groups
    if phase == APPLY:
        i0 = u % job.pieces * job.piece
        u //= job.pieces
    c0 = u % groups * group
    c1 = min(c0 + group, job.channels)
    n = c1 - c0
    if phase == SUMS:
        span = u // groups
        parts = job.parts + 3 * span * job.channels + c0
        span *= job.span
        chunks_sums(job, tag, span, min(span + job.span, job.chunks), c0, n, parts, job.channels)
    elif phase == COMBINE:
        parts = job.parts + c0
        for span in range(1, job.spans):
            before = samples_before(job, span * job.span)
            combine(
                job, parts, job.channels, parts + 3 * span * job.channels, job.channels, n, before,
                samples_before(job, min((span + 1) * job.span, job.chunks)) - before
            )
        finish(job, tag, c0, n, parts, job.channels)
    elif phase == APPLY:
        o0 = u // groups * job.block
        apply_block(job, tag, o0, min(o0 + job.block, job.outer), i0, min(job.piece, job.inner - i0), c0, c1)
    else:
        chunks_sums(job, tag, 0, job.chunks, c0, n, totals, WIDEST)
        finish(job, tag, c0, n, totals, WIDEST)
        if job.apply:
            for chunk in range(job.chunks):
                o0 = chunk // job.pieces * job.rows
                i0 = chunk % job.pieces * job.piece
                apply_block(
                    job, tag, o0, min(o0 + job.rows, job.outer), i0, min(job.piece, job.inner - i0), c0, c1
                )


cdef void share_out(const Job* job, const real* tag, Phase phase, Py_ssize_t units, int threads) noexcept nogil:
    cdef Py_ssize_t u
    if threads == 1 or units == 1:  # a forked child may not enter OpenMP
        for u in range(units):
            unit(job, tag, phase, u)
    else:
        for u in prange(units, num_threads=threads, schedule="static"):
            unit(job, tag, phase, u)


cdef void run(const Job* job, const real* tag, int threads) noexcept nogil:
    cdef Py_ssize_t blocks = (job.outer + job.block - 1) // job.block
    if not job.sums and job.narrow is not NULL:
        narrow_down(job, tag, 0, job.channels)
    if job.sums and job.parts is NULL:
        share_out(job, tag, WHOLE, job.groups, threads)
        return
    if job.sums:
        share_out(job, tag, SUMS, job.spans * job.groups, threads)
        share_out(job, tag, COMBINE, job.groups, threads)
    if job.apply:
        share_out(job, tag, APPLY, blocks * job.bands * job.pieces, threads)
