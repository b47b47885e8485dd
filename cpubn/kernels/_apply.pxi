# Elementwise passes, computed in the data's own type or, where that would lose digits or overflow, in float64:
#
#     forward:    y  = (x - centre) * scale + shift                      a = centre, scale, shift
#     backward:   dx = scale * ((dy - k) - ((x - centre) * r) * s)       a = centre, r, s, k, scale
#
# y may be x, and dx may be dy or x: each element is read before it is written. Moves: every sample once each way.

cdef enum:
    COEFFICIENTS = 5
    BUFFER = 2048  # elements computed in the first-level cache before they are streamed past it
    PIECE = 512  # of a row, which needs no more: 0.9 to 0.97 of the time of 2048
    APART = 128  # longer runs, their coefficients known, are taken one by one: 0.5 of the time at (32, 1024, 196)
    LONG = 1024  # shorter runs, streamed one by one, took 1.4 to 3.4 times as long at 102 to 205 MB
    FEW_ROWS = 4  # fewer do not pay for spreading a channel's coefficients and accumulators over its columns


cdef inline void apply_run(
    bint backward, const real* dy, Py_ssize_t dy_step, const real* x, Py_ssize_t step, real* y, Py_ssize_t y_step,
    Py_ssize_t n, const work* a
) noexcept nogil:
    """A run of one channel."""
    cdef work centre = a[0], b = a[1], c = a[2], k = a[3] if backward else 0, scale = a[4] if backward else 0
    cdef Py_ssize_t i
    if backward:
        for i in range(n):
            y[i * y_step] = <real>(
                scale * ((<work>dy[i * dy_step] - k) - ((<work>x[i * step] - centre) * b) * c)
            )
    else:
        for i in range(n):
            y[i * y_step] = <real>((<work>x[i * step] - centre) * b + c)


cdef inline Py_ssize_t beyond_line(const real* p) noexcept nogil:
    """Elements between p and the cache line's start; a line streamed in two parts is read from memory first."""
    return <Py_ssize_t>(<size_t>p % LINE // sizeof(real))


cdef inline void apply_row(
    bint backward, const real* dy, Py_ssize_t dy_step, const real* x, Py_ssize_t step, real* y, Py_ssize_t y_step,
    Py_ssize_t n, const double* a, bint wide, bint stream
) noexcept nogil:
    """A run of one channel, in float64 if `wide`, else in its own type and past the cache if `stream`."""
    cdef real buffer[PIECE]
    cdef real b[COEFFICIENTS]
    cdef Py_ssize_t i, part
    if wide:
        apply_run(backward, dy, dy_step, x, step, y, y_step, n, a)
        return
    for i in range(COEFFICIENTS if backward else 3):
        b[i] = <real>a[i]
    if step != 1 or y_step != 1 or dy_step != 1:
        apply_run(backward, dy, dy_step, x, step, y, y_step, n, b)
    elif not stream:
        apply_run(backward, dy, 1, x, 1, y, 1, n, b)
    else:
        i = 0
        while i < n:
            part = min(n - i, PIECE - beyond_line(y + i))
            apply_run(backward, dy + i, 1, x + i, 1, buffer, 1, part, b)
            cpubn_stream(y + i, buffer, part * sizeof(real))
            i += part


cdef inline void apply_columns_run(
    bint backward, const real* dy, Py_ssize_t dy_step, const real* x, Py_ssize_t step, real* y, Py_ssize_t y_step,
    Py_ssize_t width, const real* a, Py_ssize_t plane
) noexcept nogil:
    """One row of `width` columns; a holds the columns' coefficients, each kind a plane apart."""
    cdef const real* b = a + plane
    cdef const real* c = a + 2 * plane
    cdef const real* k = a + 3 * plane
    cdef const real* scale = a + 4 * plane
    cdef Py_ssize_t j
    if backward:
        for j in range(width):
            y[j * y_step] = scale[j] * ((dy[j * dy_step] - k[j]) - ((x[j * step] - a[j]) * b[j]) * c[j])
    else:
        for j in range(width):
            y[j * y_step] = (x[j * step] - a[j]) * b[j] + c[j]


cdef inline void apply_columns(
    bint backward, const real* dy, Py_ssize_t dy_stride, Py_ssize_t dy_step,
    const real* x, Py_ssize_t stride, Py_ssize_t step, real* y, Py_ssize_t y_stride, Py_ssize_t y_step,
    Py_ssize_t rows, Py_ssize_t width, const real* a, Py_ssize_t plane, bint stream
) noexcept nogil:
    """`rows` rows of `width` narrow columns; what follows one another in memory is streamed together."""
    cdef real buffer[BUFFER]
    cdef Py_ssize_t row = 0, filled = 0, j, part
    if step != 1 or y_step != 1 or dy_step != 1:
        for row in range(rows):
            apply_columns_run(
                backward, dy + row * dy_stride, dy_step, x + row * stride, step, y + row * y_stride, y_step,
                width, a, plane
            )
    elif not stream:
        for row in range(rows):
            apply_columns_run(
                backward, dy + row * dy_stride, 1, x + row * stride, 1, y + row * y_stride, 1, width, a, plane
            )
    else:
        for row in range(rows):
            j = 0
            while j < width:
                part = min(width - j, <Py_ssize_t>WIDEST)
                apply_columns_run(
                    backward, dy + row * dy_stride + j, 1, x + row * stride + j, 1, buffer + filled, 1,
                    part, a + j, plane
                )
                j += part
                filled += part
                if filled + WIDEST > BUFFER or (j == width and (y_stride != width or row == rows - 1)):
                    cpubn_stream(y + row * y_stride + j - filled, buffer, filled * sizeof(real))
                    filled = 0
