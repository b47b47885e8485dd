# Elementwise passes of more than one stage, piece by piece in the first-level cache:
#
#     forward:    z = (x - centre) * scale + shift;  y = quantize(activate(z + residual))
#     backward:   dx = scale * ((dy - k) - ((x - centre) * r) * s)
#     gradient:   g = dy * activate'(z + residual)
#
# x, dy, residual and y may each be of any type: a stage reads float32 and writes float32, so that types, activations and
# layouts need no loops for each combination. Against one fused loop that costs a load and a store of the first-level
# cache a stage. Moves: every sample once each way.

cdef inline const real* samples(
    const Strided* w, const char* source, Py_ssize_t step, real* buffer, Py_ssize_t n
) noexcept nogil:
    """n samples side by side, in the type computed in: themselves where they are that, else read into the buffer."""
    if step == 1 and is_own(buffer, w.type):
        return <const real*>source
    load(w.type, source, step, buffer, n)
    return buffer


cdef inline void affine_of_integers(
    const integer* x, float* z, Py_ssize_t n, const float* a, Py_ssize_t plane
) noexcept nogil:
    """Loading and the affine map in one loop, which for bytes is most of the work."""
    cdef float centre, scale, shift
    cdef Py_ssize_t i
    if plane:
        for i in range(n):
            z[i] = (<float>x[i] - a[i]) * a[plane + i] + a[2 * plane + i]
    else:
        centre, scale, shift = a[0], a[1], a[2]
        for i in range(n):
            z[i] = (<float>x[i] - centre) * scale + shift


cdef inline void affine_map(
    const Job* job, const Run* run, real* buffer, real* z, Py_ssize_t n,
    const real* a, Py_ssize_t plane, const double* wide
) noexcept nogil:
    """z (n,) <- (x - centre) * scale + shift, by way of a buffer where x is not of the type computed in."""
    cdef const real* x
    if real is float:
        if run.x_step == 1 and wide is NULL and job.x.type >= UINT8:
            if job.x.type == UINT8:
                affine_of_integers(<const uint8_t*>run.x, z, n, a, plane)
            elif job.x.type == INT8:
                affine_of_integers(<const int8_t*>run.x, z, n, a, plane)
            elif job.x.type == UINT16:
                affine_of_integers(<const uint16_t*>run.x, z, n, a, plane)
            else:
                affine_of_integers(<const int16_t*>run.x, z, n, a, plane)
            return
    x = samples(&job.x, run.x, run.x_step, buffer, n)
    if wide is not NULL:
        apply_run(False, x, 1, x, 1, z, 1, n, wide)
    elif plane:
        apply_columns_run(False, x, 1, x, 1, z, 1, n, a, plane)
    else:
        apply_run(False, x, 1, x, 1, z, 1, n, a)


cdef inline void quantize(const Job* job, const real* values, uint8_t* y, Py_ssize_t step, Py_ssize_t n) noexcept nogil:
    """y, int8 or uint8 <- round(min(max(values * inverse + zero, lowest), highest)); NaN becomes the lowest."""
    cdef float inverse = job.epilogue.inverse, zero = job.epilogue.zero
    cdef float low = job.epilogue.lowest, high = job.epilogue.highest
    cdef float rounder = 12582912.0  # 1.5 * 2**23: the last bits of a sum with it are a whole number, rounded to even
    cdef float value
    cdef Py_ssize_t i
    for i in range(n):
        value = <float>values[i] * inverse + zero
        value = value if value > low else low
        value = value if value < high else high
        y[i * step] = <uint8_t>cpubn_bits_of_float(value + rounder)


cdef inline void write(const Job* job, const real* values, char* y, Py_ssize_t step, Py_ssize_t n) noexcept nogil:
    if not job.epilogue.quantized:
        store(values, job.y.type, y, step, n)
    elif step == 1:
        quantize(job, values, <uint8_t*>y, 1, n)
    else:
        quantize(job, values, <uint8_t*>y, step, n)


cdef inline void put(const Job* job, const real* values, char* y, Py_ssize_t step, Py_ssize_t n) noexcept nogil:
    """Write n samples of y, past the cache if the job says so."""
    cdef real converted[PIECE]
    if not job.stream or step != 1:
        write(job, values, y, step, n)
    elif is_own(values, job.y.type):
        cpubn_stream(y, values, n * job.y.size)
    else:
        write(job, values, <char*>converted, 1, n)
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
    cdef const real* x
    cdef const real* other
    cdef Py_ssize_t i
    # In place where y is like what is computed, but for the residual that may still stand there.
    if run.y_step == 1 and is_own(first, job.y.type) and not (job.stream or e.gradient or run.residual == run.y):
        result = <real*>run.y
    if job.backward:
        x = samples(&job.x, run.x, run.x_step, first, n)
        other = samples(&job.dy, run.dy, run.dy_step, second, n)
        if wide is not NULL:
            apply_run(True, other, 1, x, 1, result, 1, n, wide)
        elif plane:
            apply_columns_run(True, other, 1, x, 1, result, 1, n, a, plane)
        else:
            apply_run(True, other, 1, x, 1, result, 1, n, a)
    else:
        if e.bare:
            load(job.x.type, run.x, run.x_step, result, n)
        else:
            affine_map(job, run, first, result, n, a, plane, wide)
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
    if result != <real*>run.y:
        put(job, result, run.y, run.y_step, n)


cdef void staged_run(
    const Job* job, const real* tag, Run run, Py_ssize_t n, const real* a, Py_ssize_t plane, const double* wide
) noexcept nogil:
    """`staged_piece` of any number of samples, a streamed one ending where a cache line ends."""
    cdef Py_ssize_t part
    if real is float:
        if job.halves and wide is NULL and run.x_step == 1 and run.dy_step == 1 and run.y_step == 1:
            half_run(job, &run, n, a, plane)
            return
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
    if down:
        run_of_channel(
            job, tag, run_at(job, o, c, i, job.x.outer, job.dy.outer, residual.outer, job.y.outer), n, c
        )
    else:
        run_of_channel(
            job, tag, run_at(job, o, c, i, job.x.inner, job.dy.inner, residual.inner, job.y.inner), n, c
        )


cdef void run_of_channel(const Job* job, const real* tag, Run run, Py_ssize_t n, Py_ssize_t c) noexcept nogil:
    cdef double wide[COEFFICIENTS]
    cdef real a[COEFFICIENTS]
    cdef Py_ssize_t k
    if job.epilogue.bare:
        staged_run[real](job, tag, run, n, NULL, 0, NULL)
        return
    for k in range(COEFFICIENTS if job.backward else 3):
        wide[k] = job.coefficients[k * job.channels + c]
        a[k] = <real>wide[k]
    staged_run(job, tag, run, n, a, 0, wide if is_wide(job, tag, c) else NULL)


cdef inline void take_apart(const item* colours, item* planes, Py_ssize_t n) noexcept nogil:
    """planes (3, PIECE) <- colours (n, 3)."""
    cdef Py_ssize_t i
    for i in range(n):
        planes[i] = colours[3 * i]
        planes[PIECE + i] = colours[3 * i + 1]
        planes[2 * PIECE + i] = colours[3 * i + 2]


cdef void staged_colours(const Job* job, const real* tag, Py_ssize_t o0, Py_ssize_t o1) noexcept nogil:
    """The pass over the outer rows o0 to o1 of an image whose 3 channels lie side by side, into planes.

    Its colours are taken apart first: read 3 apart, each channel by itself, they took 3 times as long.
    """
    cdef uint32_t planes[3 * PIECE]
    cdef Py_ssize_t o = o0, n, c, dy_step = job.dy.outer if job.epilogue.gradient else 1
    cdef Run run
    while o < o1:
        n = min(o1 - o, <Py_ssize_t>PIECE)
        run = run_at(job, o, 0, 0, 1, dy_step, job.epilogue.residual.outer, job.y.outer)
        if job.x.size == 1:
            take_apart(<const uint8_t*>run.x, <uint8_t*>planes, n)
        elif job.x.size == 2:
            take_apart(<const uint16_t*>run.x, <uint16_t*>planes, n)
        else:
            take_apart(<const uint32_t*>run.x, planes, n)
        for c in range(3):
            run = run_at(job, o, c, 0, 1, dy_step, job.epilogue.residual.outer, job.y.outer)
            run.x = <const char*>planes + c * PIECE * job.x.size
            run_of_channel(job, tag, run, n, c)
        o += n


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
    """`staged_narrow` by the coefficients a, which hold for `together` rows."""
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


cdef void staged_narrow(
    const Job* job, const real* tag, Py_ssize_t o0, Py_ssize_t o1, Py_ssize_t n, Py_ssize_t c0, Py_ssize_t c1
) noexcept nogil:
    """The pass over the rows o0 to o1 of the columns of channels c0 to c1, n each, none of them wide.

    Rows that lie end to end are taken together: a stage's loop is not worth entering for a few columns.
    """
    cdef real a[COEFFICIENTS * WIDEST]
    cdef Py_ssize_t width = (c1 - c0) * n, together = 1, i, j
    cdef bint end_to_end = lie_end_to_end(job, width)
    if job.epilogue.bare:
        staged_columns[real](job, tag, o0, o1, n, c0, c1, NULL, 0, o1 - o0 if end_to_end else 1)
    elif job.narrow is not NULL:
        staged_columns(job, tag, o0, o1, n, c0, c1, <const real*>job.narrow + c0, job.channels, 1)
    else:
        spread(job, n, c0, c1, a)
        if end_to_end:
            together = min(WIDEST // width, o1 - o0)
        for i in range(COEFFICIENTS if job.backward else 3):
            for j in range(i * WIDEST + width, i * WIDEST + together * width):
                a[j] = a[j - width]
        staged_columns(job, tag, o0, o1, n, c0, c1, a, WIDEST, together)
