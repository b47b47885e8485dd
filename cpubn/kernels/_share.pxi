# How the work of a job is shared out among threads, and begun.

from libc.stdlib cimport llabs

# Output is written past the last-level cache if input and output together exceed it and a thread finishes its channels
# while they are in cache: that took 0.7 to 0.9 of the time at 51 MB. By itself an elementwise pass of 51 MB took up to 1.4
# times as long so, one of 103 MB (float16) 0.65 to 1.3 times, and one of 205 MB 0.7 to 1.1 times: there from three times
# the cache on, unless it is of short runs.
cdef size_t CACHE = cpubn_cache_bytes()
cdef Py_ssize_t CHUNK = _order.CHUNK
# Bytes of a group of channels that one thread finishes on its own: about half of a second-level cache.
cdef Py_ssize_t GROUP_BYTES = 524288
# Of a block that is written in another layout than it is read in.
cdef Py_ssize_t TRANSPOSED_BYTES = 16384


cdef Strided strided(cnp.ndarray a):
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(a)
    cdef cnp.npy_intp* strides = cnp.PyArray_STRIDES(a)
    if cnp.PyArray_NDIM(a) != 3:
        raise ValueError("an array must have the shape (outer, channel, inner)")
    return Strided(
        cnp.PyArray_DATA(a), strides[0] // size, strides[1] // size, strides[2] // size, type_of(a), size
    )


cdef Job new_job(cnp.ndarray dy, cnp.ndarray x, cnp.ndarray y):
    """A job over x (O, C, I) and, of its shape, dy and y; its order of summation, and no task yet."""
    cdef Job job
    cdef cnp.npy_intp* shape = cnp.PyArray_DIMS(x)
    memset(&job, 0, sizeof(job))
    job.outer, job.channels, job.inner = shape[0], shape[1], shape[2]
    job.x, job.dy, job.y = strided(x), strided(dy), strided(y)
    set_order(&job)
    return job


cdef object set_order(Job* job):
    order = _order.order_of(job.outer, job.inner)
    job.columns, job.rows, job.piece, job.pieces, job.chunks, job.span, job.spans = order


cdef object set_epilogue(Job* job, epilogue):
    """What the pass does beside the affine map, of a cpubn._epilogue.Epilogue."""
    activation, residual, quantization = epilogue
    if activation is not None:
        job.epilogue.activation, job.epilogue.low, job.epilogue.high = activation[:3]
    if residual is not None:
        job.epilogue.residual = strided(residual)
    if quantization is not None:
        set_quantization(job, quantization)


cdef object set_quantization(Job* job, quantization):
    job.epilogue.quantized = True
    job.epilogue.inverse, job.epilogue.zero, job.epilogue.lowest, job.epilogue.highest = quantization


cdef void set_stages(Job* job) noexcept nogil:
    cdef Type own = FLOAT64 if job.x.type == FLOAT64 else FLOAT32
    cdef const Epilogue* e = &job.epilogue
    job.loaded = job.x.type != own or job.dy.type != own
    cdef bint more = e.activation != 0 or e.residual.data is not NULL or e.gradient or e.quantized
    job.staged = more or job.loaded or job.y.type != own
    job.halves = job.loaded and not more and job.x.size == 2 and job.x.type < UINT8
    job.halves = job.halves and job.dy.type == job.x.type and job.y.type == job.x.type


cdef object start(Job* job, int threads):
    """Choose how to share the work, and run it without the interpreter's lock."""
    cdef Py_ssize_t size = job.x.size * (2 if job.backward else 1)  # of what is read
    cdef size_t moved = job.channels * job.outer * job.inner * (size + job.y.size)
    cdef bint whole
    cdef cnp.ndarray parts, coefficients, narrow
    set_stages(job)
    if not job.sums:
        job.columns = job.inner < APART
    if not job.sums and is_transposed(job):
        whole = share_transposed(job)
    elif job.columns:
        whole = share_columns(job, size, moved, threads)
    else:
        whole = share_rows(job, threads)
    job.stream = job.apply and moved > CACHE
    if not (job.sums and whole):
        job.stream = job.stream and moved > 3 * CACHE and (job.columns or job.inner >= LONG)
    if job.sums and not whole:
        parts = new_vectors(3 * job.spans, job.channels)
        job.parts = <double*>cnp.PyArray_DATA(parts)
    if job.sums and job.apply:
        coefficients = new_vectors(COEFFICIENTS, job.channels)
        job.coefficients = <double*>cnp.PyArray_DATA(coefficients)
    if job.apply and job.columns and job.band > WIDEST and not job.epilogue.bare:
        narrow = new_vectors(COEFFICIENTS, job.channels)
        job.narrow = cnp.PyArray_DATA(narrow)
    with nogil:
        if job.x.type == FLOAT64:
            run[double](job, NULL, threads)
        else:
            run[float](job, NULL, threads)


cdef bint is_transposed(const Job* job) noexcept nogil:
    """Whether y runs in memory along other axes than x: it is of another layout."""
    if job.inner == 1:
        return job.channels > 1 and llabs(job.y.outer) < llabs(job.y.channel)
    return job.channels > 1 and llabs(job.y.inner) > llabs(job.y.channel)


cdef bint share_transposed(Job* job) noexcept nogil:
    """Blocks of which all channels' samples stay in the first-level cache, so that it gathers the lines of x or of y."""
    cdef Py_ssize_t samples = max(16, TRANSPOSED_BYTES // (job.channels * max(job.x.size, job.y.size)))
    job.columns = False
    job.down = job.inner == 1
    job.colours = job.down and job.channels == 3 and job.x.channel == 1 and job.x.outer == 3 and job.x.size <= 4
    job.group = job.groups = job.bands = job.block = 1
    job.band = job.channels
    if job.down:
        job.block = min(samples, job.outer)
    else:
        job.piece = min(samples, job.inner)
        job.pieces = (job.inner + job.piece - 1) // job.piece
    return False


cdef bint share_rows(Job* job, int threads) noexcept:
    """Channel by channel; whether each is to be finished by one thread, rather than its spans shared out."""
    job.group = job.band = job.block = 1
    job.groups = job.bands = job.channels
    return job.span == 1 and (job.spans == 1 or threads == 1 or job.channels >= 4 * threads)


cdef bint share_columns(Job* job, Py_ssize_t size, size_t moved, int threads) noexcept:
    """Groups of channels; whether each is to be finished by one thread, and not its sums first and then its rows.

    That saves a read of x from memory, or forks where all is small. Where all is in cache there is none to save, and a
    group's rows, lying apart by a power of two, throw each other out of the second level: (1024, 1024) took 421 us by
    groups and 160 by phases. And where two threads write the halves of many rows, each row has a cache line that both
    want: (1000, 128) took 170 us so, and 31 with one thread.
    """
    cdef Py_ssize_t widest = max(1, WIDEST // job.inner)
    cdef Py_ssize_t fitting = GROUP_BYTES // (job.outer * job.inner * size)
    cdef Py_ssize_t share = ((job.channels + threads - 1) // threads + LANES - 1) // LANES * LANES
    cdef Py_ssize_t units
    cdef bint uncontended = (job.outer <= 64 and job.channels * job.inner >= LANES * threads) or threads == 1
    cdef bint small = moved <= <size_t>(2 * GROUP_BYTES * threads) and uncontended
    cdef bint large = moved > CACHE // 2 and min(fitting, share) * job.inner >= 8 * LANES
    cdef bint whole = job.sums and job.span == 1 and (small or (job.apply and large))
    job.group = widest
    if whole:
        job.group = max(1, min(widest, min(fitting, share)))
    elif job.sums and job.spans < threads:
        job.group = min(widest, share)
    job.groups = (job.channels + job.group - 1) // job.group
    if job.groups > 1:  # of one size, and as many for each thread
        job.groups = (job.groups + threads - 1) // threads * threads
        job.group = (job.channels + job.groups - 1) // job.groups
        job.groups = (job.channels + job.group - 1) // job.group
    # Rows that come from memory are taken whole: by halves (32, 2048, 7, 7) took 1.4 times as long. As few blocks of
    # them as keep every thread busy: each looks at its channels' coefficients and spreads them once.
    job.band = widest
    if job.inner == 1 and job.outer >= 32 * threads and moved > <size_t>(4 * GROUP_BYTES) and not whole:
        job.band = job.channels
    job.bands = (job.channels + job.band - 1) // job.band
    units = 1 if job.bands % threads == 0 else 1 + (2 * threads - 1) // job.bands  # of each band
    job.block = max((job.outer + units - 1) // units, min(job.outer, 16))
    return whole
