# Two sums a channel, in the order that _order.py fixes, in float64:
#
#     moments:    s = sum(d),   q = sum(d * d)      d = x - pivot, in x's own type
#     gradient:   s = sum(dy),  q = sum(dy * d)     d = x - mean, in float64
#
# A float32 difference moves a sample by 2**-24 of its distance from the pivot at most, and so the variance by less than
# 5e-7 of itself (_algebra.pivot_is_far); its square is exact in float64, so that a fused multiply-add changes no bit.
# Accumulators are local arrays of a constant length: behind a pointer, or with a length that the compiler cannot see,
# they leave the registers and the loop runs three times slower. `backward`, `width` and the steps are constants where
# that counts, so that each caller gets a loop of its own. Moves: every sample once.

cdef enum:
    LANES = 32  # of a row; the widest strip of columns
    FOLD = 8
    WIDEST = 1024  # columns taken together: their coefficients and accumulators stay in the first two cache levels
    LINE = 64  # bytes of a cache line
    AHEAD = 1024  # elements of a row fetched before they are needed: where rows are short, those of channels to come
    DEEP = 64  # rows taken together at most
    TILE = 65536  # bytes of columns taken together, so that memory is read nearly row by row


cdef inline void fetch_lanes(const real* p) noexcept nogil:
    """Ask for LANES elements that will be read soon."""
    cdef Py_ssize_t l
    for l in range(LANES * <Py_ssize_t>sizeof(real) // LINE):
        cpubn_prefetch(<const char*>p + l * LINE)


cdef inline double distance(bint backward, real x, real pivot, double mean) noexcept nogil:
    return <double>x - mean if backward else <double>(x - pivot)


cdef inline double add_product(bint backward, real x, double g, double d, double q) noexcept nogil:
    """q + g * d; x tells the type of the samples."""
    if real is float:
        if not backward:
            return cpubn_add_exact(g, d, q)
    return q + g * d


cdef inline void row_sums(
    bint backward, const real* dy, Py_ssize_t dy_step, const real* x, Py_ssize_t step, Py_ssize_t n,
    double centre, double* s, double* q
) noexcept nogil:
    """Add a run of n samples to s and q, sample j to lane j % LANES."""
    cdef double ls[LANES]
    cdef double lq[LANES]
    cdef double td[LANES]
    cdef double tg[LANES]
    cdef double d, g
    cdef real pivot = <real>centre
    cdef Py_ssize_t block, l, j, tail = n % LANES
    for l in range(LANES):
        ls[l] = s[l]
        lq[l] = q[l]
    for block in range(n // LANES):
        if step == 1 and dy_step == 1:
            fetch_lanes(x + block * LANES + AHEAD)
            if backward:
                fetch_lanes(dy + block * LANES + AHEAD)
        for l in range(LANES):
            j = block * LANES + l
            d = distance(backward, x[j * step], pivot, centre)
            g = <double>dy[j * dy_step] if backward else d
            ls[l] += g
            lq[l] = add_product(backward, x[j * step], g, d, lq[l])
    if tail:  # fill up with zeros, which change no bit: a tail lane by lane costs as much as ten blocks
        for l in range(LANES):
            td[l] = 0.0
            tg[l] = 0.0
        for l in range(tail):
            j = n - tail + l
            td[l] = distance(backward, x[j * step], pivot, centre)
            tg[l] = <double>dy[j * dy_step] if backward else td[l]
        for l in range(LANES):
            ls[l] += tg[l]
            lq[l] = add_product(backward, pivot, tg[l], td[l], lq[l])
    for l in range(LANES):
        s[l] = ls[l]
        q[l] = lq[l]


cdef inline void strip_sums(
    bint backward, const real* dy, Py_ssize_t dy_stride, Py_ssize_t dy_step,
    const real* x, Py_ssize_t stride, Py_ssize_t step, Py_ssize_t rows, Py_ssize_t width,
    Py_ssize_t dy_ahead, Py_ssize_t ahead, const double* centre, double* s, double* q
) noexcept nogil:
    """Add `rows` rows of `width` <= LANES columns to s and q, and fetch what stands `ahead` of them."""
    cdef double ls[LANES]
    cdef double lq[LANES]
    cdef double means[LANES]
    cdef real pivots[LANES]
    cdef double d, g
    cdef Py_ssize_t row, l
    for l in range(width):
        ls[l] = s[l]
        lq[l] = q[l]
        means[l] = centre[l]
        pivots[l] = <real>centre[l]
    for row in range(rows):
        if width == LANES:
            fetch_lanes(x + ahead)
            if backward:
                fetch_lanes(dy + dy_ahead)
        for l in range(width):
            d = distance(backward, x[l * step], pivots[l], means[l])
            g = <double>dy[l * dy_step] if backward else d
            ls[l] += g
            lq[l] = add_product(backward, x[l * step], g, d, lq[l])
        x += stride
        dy += dy_stride
    for l in range(width):
        s[l] = ls[l]
        q[l] = lq[l]


cdef inline void column_sums(
    bint backward, const real* dy, Py_ssize_t dy_stride, Py_ssize_t dy_step,
    const real* x, Py_ssize_t stride, Py_ssize_t step, Py_ssize_t rows, Py_ssize_t width,
    const double* centre, double* s, double* q
) noexcept nogil:
    """Add any number of columns to s and q, strip by strip; which strip a column is in leaves its bits alone."""
    cdef Py_ssize_t tile = min(<Py_ssize_t>DEEP, max(4, TILE // (width * <Py_ssize_t>sizeof(real))))
    cdef Py_ssize_t tiled = 0, dy_ahead, ahead, j
    cdef bint unit = step == 1 and dy_step == 1
    while rows > 0:
        tile = min(tile, rows)
        if rows > tile or stride == width:
            dy_ahead, ahead = tile * dy_stride, tile * stride
        else:  # the columns that come next
            dy_ahead, ahead = width - (tiled * dy_stride), width - (tiled * stride)
        j = 0
        if unit:
            while width - j >= LANES:
                strip_sums(
                    backward, dy + j, dy_stride, 1, x + j, stride, 1, tile, LANES,
                    dy_ahead, ahead, centre + j, s + j, q + j
                )
                j += LANES
            while width - j >= FOLD:
                strip_sums(
                    backward, dy + j, dy_stride, 1, x + j, stride, 1, tile, FOLD,
                    0, 0, centre + j, s + j, q + j
                )
                j += FOLD
        while j < width:
            strip_sums(
                backward, dy + j * dy_step, dy_stride, dy_step, x + j * step, stride, step, tile, 1,
                0, 0, centre + j, s + j, q + j
            )
            j += 1
        x += tile * stride
        dy += tile * dy_stride
        rows -= tile
        tiled += tile


cdef inline double fold(double* v) noexcept nogil:
    """Sum of FOLD lanes, the upper half onto the lower."""
    cdef Py_ssize_t l
    for l in range(FOLD // 2):
        v[l] += v[l + FOLD // 2]
    return (v[0] + v[2]) + (v[1] + v[3])


cdef inline double fold_lanes(double* v) noexcept nogil:
    """Sum of LANES lanes, the upper half onto the lower."""
    cdef Py_ssize_t l
    for l in range(LANES // 2):
        v[l] += v[l + LANES // 2]
    for l in range(LANES // 4):
        v[l] += v[l + LANES // 4]
    return fold(v)


cdef inline double fold_columns(const double* v, Py_ssize_t n) noexcept nogil:
    """Sum of the n columns of one channel, column i through lane i % FOLD."""
    cdef double lanes[FOLD]
    cdef Py_ssize_t block, l, tail = n % FOLD
    if n == 1:
        return v[0]
    for l in range(FOLD):
        lanes[l] = 0.0
    for block in range(n // FOLD):
        for l in range(FOLD):
            lanes[l] += v[block * FOLD + l]
    for l in range(tail):
        lanes[l] += v[n - tail + l]
    return fold(lanes)


cdef inline void run_sums(
    bint backward, const real* dy, Py_ssize_t dy_step, const real* x, Py_ssize_t step, Py_ssize_t n,
    double centre, double* s, double* q
) noexcept nogil:
    """s[0], q[0] <- sums of one row of the n columns of one channel, column i through lane i % FOLD.

    The bits of column_sums and fold_columns, without an accumulator for every column in between.
    """
    cdef double ls[FOLD]
    cdef double lq[FOLD]
    cdef double d, g
    cdef real pivot = <real>centre
    cdef Py_ssize_t block, l, j, tail = n % FOLD
    for l in range(FOLD):
        ls[l] = 0.0
        lq[l] = 0.0
    for block in range(n // FOLD):
        for l in range(FOLD):
            j = block * FOLD + l
            d = distance(backward, x[j * step], pivot, centre)
            g = <double>dy[j * dy_step] if backward else d
            ls[l] += g
            lq[l] = add_product(backward, x[j * step], g, d, lq[l])
    for l in range(tail):
        j = n - tail + l
        d = distance(backward, x[j * step], pivot, centre)
        g = <double>dy[j * dy_step] if backward else d
        ls[l] += g
        lq[l] = add_product(backward, x[j * step], g, d, lq[l])
    s[0] = fold(ls)
    q[0] = fold(lq)
