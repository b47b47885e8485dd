# Elementwise passes of more than one stage, piece by piece in the first-level cache:
#
#     forward:    z = (x - centre) * scale + shift;  y = quantize(activate(z + residual))
#     backward:   dx = scale * ((dy - k) - ((x - centre) * r) * s)
#     gradient:   g = dy * activate'(z + residual)
#
# x, dy, residual and y may each be of any type: a stage reads float32 and writes float32, so that types, activations and
# layouts need no loops for each combination. Against one fused loop that costs a load and a store of the first-level
# cache a stage. Moves: every sample once each way.

# Where one run of each array starts, and how many elements apart its samples lie.
cdef struct Run:
    const char* x
    const char* dy
    const char* residual
    char* y
    Py_ssize_t x_step
    Py_ssize_t dy_step
    Py_ssize_t residual_step
    Py_ssize_t y_step


cdef inline const real* samples(
    const Strided* w, const char* source, Py_ssize_t step, real* buffer, Py_ssize_t n
) noexcept nogil:
    """n samples side by side, in the type computed in: themselves where they are that, else read into the buffer."""
    if step == 1 and is_own(buffer, w.type):
        return <const real*>source
    load(w.type, source, step, buffer, n)
    return buffer


cdef inline void quantize(const Job* job, real* v, Py_ssize_t n) noexcept nogil:
    """Whole numbers that y's type holds; NaN becomes the lowest."""
    cdef real inverse = <real>job.epilogue.inverse, zero = <real>job.epilogue.zero
    cdef real low = <real>job.epilogue.lowest, high = <real>job.epilogue.highest
    cdef real rounder = 12582912.0  # 1.5 * 2**23: adding it leaves no bits for a fraction, rounded to even
    cdef real value
    cdef Py_ssize_t i
    for i in range(n):
        value = v[i] * inverse + zero
        value = value if value > low else low
        value = value if value < high else high
        v[i] = (value + rounder) - rounder


cdef inline void put(const Job* job, const real* values, char* y, Py_ssize_t step, Py_ssize_t n) noexcept nogil:
    """Write n samples of y, past the cache if the job says so."""
    cdef real converted[PIECE]
    if not job.stream or step != 1:
        store(values, job.y.type, y, step, n)
    elif is_own(values, job.y.type):
        cpubn_stream(y, values, n * job.y.size)
    else:
        store(values, job.y.type, converted, 1, n)
        cpubn_stream(y, converted, n * job.y.size)


cdef void staged_piece(
    const Job* job, const real* tag, const Run* run, Py_ssize_t n,
    const real* a, Py_ssize_t plane, const double* wide
) noexcept nogil:
    """At most PIECE samples with coefficients a: a plane apart for columns, one of each kind where plane is 0.

    Or, of one channel, with float64 coefficients `wide` if that is not NULL.
    """
    cdef const Epilogue* e = &job.epilogue
    cdef real first[PIECE]
    cdef real second[PIECE]
    cdef real* result = first
    cdef const real* x = samples(&job.x, run.x, run.x_step, first, n)
    cdef const real* other
    cdef Py_ssize_t i
    # In place where y is like what is computed, but for the residual that may still stand there.
    if run.y_step == 1 and is_own(first, job.y.type) and not (job.stream or e.gradient or run.residual == run.y):
        result = <real*>run.y
    if job.backward:
        other = samples(&job.dy, run.dy, run.dy_step, second, n)
        if wide is not NULL:
            apply_run(True, other, 1, x, 1, result, 1, n, wide)
        elif plane:
            apply_columns_run(True, other, 1, x, 1, result, 1, n, a, plane)
        else:
            apply_run(True, other, 1, x, 1, result, 1, n, a)
    else:
        if e.bare:
            for i in range(n):
                result[i] = x[i]
        elif wide is not NULL:
            apply_run(False, x, 1, x, 1, result, 1, n, wide)
        elif plane:
            apply_columns_run(False, x, 1, x, 1, result, 1, n, a, plane)
        else:
            apply_run(False, x, 1, x, 1, result, 1, n, a)
        if run.residual is not NULL:
            other = samples(&e.residual, run.residual, run.residual_step, second, n)
            for i in range(n):
                result[i] += other[i]
        if e.gradient:
            load(job.dy.type, run.dy, run.dy_step, second, n)
            scale_by_gradient(e.activation, <real>e.low, <real>e.high, result, second, n)
            result = second
        elif e.activation:
            activate(e.activation, <real>e.low, <real>e.high, result, n)
        if e.quantized:
            quantize(job, result, n)
    if result != <real*>run.y:
        put(job, result, run.y, run.y_step, n)


cdef void staged_run(
    const Job* job, const real* tag, Run run, Py_ssize_t n, const real* a, Py_ssize_t plane, const double* wide
) noexcept nogil:
    """`staged_piece` of any number of samples, a streamed one ending where a cache line ends."""
    cdef Py_ssize_t part
    while n > 0:
        part = PIECE
        if job.stream:
            part -= <Py_ssize_t>(<size_t>run.y % LINE) // job.y.size
        part = min(n, part)
        staged_piece(job, tag, &run, part, a, plane, wide)
        run.x += part * run.x_step * job.x.size
        run.dy += part * run.dy_step * job.dy.size
        run.y += part * run.y_step * job.y.size
        if run.residual is not NULL:
            run.residual += part * run.residual_step * job.epilogue.residual.size
        if plane:
            a += part
        n -= part


cdef inline Run run_at(
    const Job* job, Py_ssize_t o, Py_ssize_t c, Py_ssize_t i, Py_ssize_t x_step, Py_ssize_t dy_step,
    Py_ssize_t residual_step, Py_ssize_t y_step
) noexcept nogil:
    cdef Run run
    run.x, run.x_step = <const char*>spot(&job.x, o, c, i), x_step
    run.dy, run.dy_step = <const char*>spot(&job.dy, o, c, i), dy_step
    run.residual, run.residual_step = NULL, residual_step
    if job.epilogue.residual.data is not NULL:
        run.residual = <const char*>spot(&job.epilogue.residual, o, c, i)
    run.y, run.y_step = <char*>spot(&job.y, o, c, i), y_step
    return run


cdef void staged_channel(
    const Job* job, const real* tag, Py_ssize_t o, Py_ssize_t i, Py_ssize_t n, Py_ssize_t c, bint down
) noexcept nogil:
    """The pass over a run of n samples of channel c from (o, i): inner ones or, if `down`, outer ones."""
    cdef const Strided* residual = &job.epilogue.residual
    cdef double wide[COEFFICIENTS]
    cdef real a[COEFFICIENTS]
    cdef Py_ssize_t k
    cdef Run run
    if down:
        run = run_at(job, o, c, i, job.x.outer, job.dy.outer, residual.outer, job.y.outer)
    else:
        run = run_at(job, o, c, i, job.x.inner, job.dy.inner, residual.inner, job.y.inner)
    if job.epilogue.bare:
        staged_run[real](job, tag, run, n, NULL, 0, NULL)
        return
    for k in range(COEFFICIENTS if job.backward else 3):
        wide[k] = job.coefficients[k * job.channels + c]
        a[k] = <real>wide[k]
    staged_run(job, tag, run, n, a, 0, wide if is_wide(job, tag, c) else NULL)


cdef bint lie_end_to_end(const Job* job, Py_ssize_t width) noexcept nogil:
    """Whether consecutive outer rows, of that many columns, are one run in every array."""
    cdef const Strided* residual = &job.epilogue.residual
    return (
        meets(&job.x, job.inner, width) and meets(&job.dy, job.inner, width) and meets(&job.y, job.inner, width)
        and (residual.data is NULL or meets(residual, job.inner, width))
    )


cdef inline bint meets(const Strided* w, Py_ssize_t inner, Py_ssize_t width) noexcept nogil:
    return w.outer == width * column_step(w, inner)


cdef void staged_columns(
    const Job* job, const real* tag, Py_ssize_t o0, Py_ssize_t o1, Py_ssize_t n, Py_ssize_t c0, Py_ssize_t c1,
    const real* a, Py_ssize_t plane, Py_ssize_t together
) noexcept nogil:
    """The pass over the rows o0 to o1 of the columns of channels c0 to c1, n each, none of them wide.

    `together` rows at a time, for which a holds coefficients.
    """
    cdef Py_ssize_t o = o0, rows
    cdef Run run
    while o < o1:
        rows = min(together, o1 - o)
        run = run_at(
            job, o, c0, 0, column_step(&job.x, n), column_step(&job.dy, n), column_step(&job.epilogue.residual, n),
            column_step(&job.y, n)
        )
        staged_run(job, tag, run, rows * (c1 - c0) * n, a, plane, NULL)
        o += rows
