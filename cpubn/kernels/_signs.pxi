# One bit an element: on which side of an activation's kinks it was. Eight flags of a byte each are packed, and unpacked,
# by a multiplication; the loops over flags have no branches, and the compiler makes vectors of them.

from libc.stdint cimport uint64_t

cdef enum:
    SIGNS = 65536  # elements of a unit of work, a multiple of 8


def pack_signs(
    cnp.ndarray y not None, double low, double high, bint nan, cnp.ndarray bits not None, int threads
):
    """bits[j] = not (y[j] <= low or y[j] >= high); of NaN, `nan`. A bound of NaN is none.

    y (n,) of any type; bits (ceil(n / 8),) uint8, the first element in the lowest bit.
    Moves y once.
    """
    cdef SignJob job = sign_job(y, y, bits)
    job.low, job.high, job.nan = low, high, nan
    with nogil:
        if job.x.type == FLOAT64:
            share_signs[double](&job, NULL, threads)
        else:
            share_signs[float](&job, NULL, threads)


def apply_signs(cnp.ndarray dy not None, cnp.ndarray bits not None, double slope, cnp.ndarray g not None, int threads):
    """g[j] = dy[j] where bits[j] is set, otherwise slope * dy[j], or 0 where the slope is 0.

    dy, g (n,) of one type; bits as `pack_signs` makes them; g may be dy.
    Moves dy and g once.
    """
    cdef SignJob job = sign_job(dy, g, bits)
    job.low, job.unpack = slope, True
    with nogil:
        if job.x.type == FLOAT64:
            share_signs[double](&job, NULL, threads)
        else:
            share_signs[float](&job, NULL, threads)


cdef struct SignJob:
    Strided x
    Strided y
    uint8_t* bits
    Py_ssize_t n
    bint unpack
    double low  # or the slope
    double high
    bint nan


cdef SignJob sign_job(cnp.ndarray x, cnp.ndarray y, cnp.ndarray bits):
    cdef SignJob job
    memset(&job, 0, sizeof(job))
    job.x.data, job.x.type, job.x.size = cnp.PyArray_DATA(x), type_of(x), cnp.PyArray_ITEMSIZE(x)
    job.y.data, job.y.type, job.y.size = cnp.PyArray_DATA(y), type_of(y), cnp.PyArray_ITEMSIZE(y)
    job.bits, job.n = <uint8_t*>cnp.PyArray_DATA(bits), cnp.PyArray_SIZE(x)
    return job


cdef inline uint8_t packed_byte(const uint8_t* flags) noexcept nogil:
    cdef uint64_t word = 0
    cdef int k
    for k in range(8):
        word |= <uint64_t>flags[k] << 8 * k
    return <uint8_t>(word * <uint64_t>0x0102040810204080 >> 56)


cdef inline void unpack_byte(uint8_t byte, uint8_t* flags) noexcept nogil:
    cdef uint64_t word = <uint64_t>byte * <uint64_t>0x0101010101010101 & <uint64_t>0x8040201008040201
    cdef int k
    word = word + <uint64_t>0x7F7F7F7F7F7F7F7F >> 7 & <uint64_t>0x0101010101010101
    for k in range(8):
        flags[k] = <uint8_t>(word >> 8 * k)


cdef void pack_piece(const SignJob* job, const real* tag, Py_ssize_t start, Py_ssize_t n) noexcept nogil:
    cdef real buffer[PIECE]
    cdef uint8_t flags[PIECE]
    cdef const real* y = samples(&job.x, <const char*>job.x.data + start * job.x.size, 1, buffer, n)
    cdef real low = <real>job.low, high = <real>job.high
    cdef uint8_t nan = job.nan
    cdef Py_ssize_t i
    for i in range(n):
        flags[i] = ((y[i] <= low) | (y[i] >= high)) ^ 1
        flags[i] &= (y[i] == y[i]) | nan
    for i in range(n, (n + 7) // 8 * 8):
        flags[i] = 0
    for i in range((n + 7) // 8):
        job.bits[start // 8 + i] = packed_byte(flags + 8 * i)


cdef void apply_piece(const SignJob* job, const real* tag, Py_ssize_t start, Py_ssize_t n) noexcept nogil:
    cdef real buffer[PIECE]
    cdef uint8_t flags[PIECE]
    cdef const real* dy = samples(&job.x, <const char*>job.x.data + start * job.x.size, 1, buffer, n)
    cdef real slope = <real>job.low
    cdef Py_ssize_t i
    for i in range((n + 7) // 8):
        unpack_byte(job.bits[start // 8 + i], flags + 8 * i)
    if slope == 0:
        for i in range(n):
            buffer[i] = dy[i] if flags[i] else 0
    else:
        for i in range(n):
            buffer[i] = dy[i] if flags[i] else dy[i] * slope
    store(buffer, job.y.type, <char*>job.y.data + start * job.y.size, 1, n)


cdef void signs_unit(const SignJob* job, const real* tag, Py_ssize_t unit) noexcept nogil:
    cdef Py_ssize_t start = unit * SIGNS, end = min(start + SIGNS, job.n)
    while start < end:
        if job.unpack:
            apply_piece(job, tag, start, min(end - start, <Py_ssize_t>PIECE))
        else:
            pack_piece(job, tag, start, min(end - start, <Py_ssize_t>PIECE))
        start += PIECE


cdef void share_signs(const SignJob* job, const real* tag, int threads) noexcept nogil:
    cdef Py_ssize_t units = (job.n + SIGNS - 1) // SIGNS, u
    if threads == 1 or units == 1:  # a forked child may not enter OpenMP
        for u in range(units):
            signs_unit(job, tag, u)
    else:
        for u in prange(units, num_threads=threads, schedule="static"):
            signs_unit(job, tag, u)
