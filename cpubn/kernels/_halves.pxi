# Elementwise passes from float16 to float16, or from bfloat16 to bfloat16, with nothing but the affine map: by blocks that
# stay in registers from the first conversion to the last, which takes half the time of stages through buffers.

cdef enum:
    BLOCK = 32  # elements of one


cdef inline void load_block(bint brain, const uint16_t* source, float* to) noexcept nogil:
    cdef Py_ssize_t l
    if brain:
        for l in range(BLOCK):
            to[l] = cpubn_from_bfloat(source[l])
    else:
        cpubn_load_halves(source, to, BLOCK)


cdef inline void store_block(bint brain, const float* source, uint16_t* to) noexcept nogil:
    if brain:
        cpubn_store_bfloats(source, to, BLOCK)
    else:
        cpubn_store_halves(source, to, BLOCK)


cdef inline void apply_half_block(
    bint brain, bint backward, bint columns, const uint16_t* dy, const uint16_t* x, uint16_t* y,
    const float* a, Py_ssize_t plane
) noexcept nogil:
    """BLOCK samples with the coefficients a, as in `staged_piece`."""
    cdef float t[BLOCK]
    cdef float g[BLOCK]
    load_block(brain, x, t)
    if backward:
        load_block(brain, dy, g)
        if columns:
            apply_columns_run(True, g, 1, t, 1, t, 1, BLOCK, a, plane)
        else:
            apply_run(True, g, 1, t, 1, t, 1, BLOCK, a)
    elif columns:
        apply_columns_run(False, t, 1, t, 1, t, 1, BLOCK, a, plane)
    else:
        apply_run(False, t, 1, t, 1, t, 1, BLOCK, a)
    store_block(brain, t, y)


cdef inline void apply_halves(
    bint brain, bint backward, bint columns, const uint16_t* dy, const uint16_t* x, uint16_t* y, Py_ssize_t n,
    const float* a, Py_ssize_t plane
) noexcept nogil:
    """n samples; y may be dy or x."""
    cdef uint16_t rest[3 * BLOCK]
    cdef float b[COEFFICIENTS * BLOCK]
    cdef float one[COEFFICIENTS]  # a copy of one channel's, to which y cannot point
    cdef Py_ssize_t kinds = COEFFICIENTS if backward else 3, tail = n % BLOCK, block, k
    if not columns:
        for k in range(kinds):
            one[k] = a[k]
    for block in range(n // BLOCK):
        apply_half_block(brain, backward, columns, dy, x, y, a if columns else one, plane)
        dy, x, y = dy + BLOCK, x + BLOCK, y + BLOCK
        if columns:
            a = a + BLOCK
    if tail:
        memset(rest, 0, sizeof(rest))
        memcpy(rest, x, tail * sizeof(uint16_t))
        if backward:
            memcpy(rest + BLOCK, dy, tail * sizeof(uint16_t))
        if columns:
            memset(b, 0, sizeof(b))
            for k in range(kinds):
                memcpy(b + k * BLOCK, a + k * plane, tail * sizeof(float))
            apply_half_block(brain, backward, True, rest + BLOCK, rest, rest + 2 * BLOCK, b, BLOCK)
        else:
            apply_half_block(brain, backward, False, rest + BLOCK, rest, rest + 2 * BLOCK, one, 0)
        memcpy(y, rest + 2 * BLOCK, tail * sizeof(uint16_t))


cdef void apply_half_run(
    const Job* job, const uint16_t* dy, const uint16_t* x, uint16_t* y, Py_ssize_t n, const float* a, Py_ssize_t plane
) noexcept nogil:
    """`apply_halves` by a loop of its own for each kind."""
    if job.x.type == BFLOAT16:
        if job.backward:
            if plane:
                apply_halves(True, True, True, dy, x, y, n, a, plane)
            else:
                apply_halves(True, True, False, dy, x, y, n, a, 0)
        elif plane:
            apply_halves(True, False, True, dy, x, y, n, a, plane)
        else:
            apply_halves(True, False, False, dy, x, y, n, a, 0)
    elif job.backward:
        if plane:
            apply_halves(False, True, True, dy, x, y, n, a, plane)
        else:
            apply_halves(False, True, False, dy, x, y, n, a, 0)
    elif plane:
        apply_halves(False, False, True, dy, x, y, n, a, plane)
    else:
        apply_halves(False, False, False, dy, x, y, n, a, 0)


cdef void half_run(const Job* job, const Run* run, Py_ssize_t n, const float* a, Py_ssize_t plane) noexcept nogil:
    """A run of contiguous samples, past the cache if the job says so."""
    cdef uint16_t buffer[PIECE]
    cdef const uint16_t* x = <const uint16_t*>run.x
    cdef const uint16_t* dy = <const uint16_t*>run.dy
    cdef uint16_t* y = <uint16_t*>run.y
    cdef Py_ssize_t i = 0, part
    if not job.stream:
        apply_half_run(job, dy, x, y, n, a, plane)
        return
    while i < n:
        part = min(n - i, PIECE - <Py_ssize_t>(<size_t>(y + i) % LINE // sizeof(uint16_t)))
        apply_half_run(job, dy + i, x + i, buffer, part, a + i if plane else a, plane)
        cpubn_stream(y + i, buffer, part * sizeof(uint16_t))
        i += part
