# The path of a small inference: no plan, no threads, and no Python object but the result. Each function answers None for
# whatever it does not take at once, and the caller's plan then speaks.

cdef Py_ssize_t SHORT = _order.SHORT
cdef enum:
    SMALL_CHANNELS = 512


cdef class SmallAffine:
    """y = (x - centre) * scale + shift for small contiguous arrays.

    narrow, wide: (3, C) float64 centre, scale, shift for float32 and for float64 data.
    """

    cdef cnp.ndarray narrow, wide
    cdef bint last
    cdef Py_ssize_t most

    def __init__(self, cnp.ndarray narrow not None, cnp.ndarray wide not None, bint channels_last, Py_ssize_t most_bytes):
        self.narrow, self.wide = narrow, wide
        self.last, self.most = channels_last, most_bytes

    def __call__(self, x, out=None):
        cdef Job job
        cdef object y = small_job(&job, x, out, self.narrow.shape[1], self.last, self.most)
        if y is not None:
            job.coefficients = <double*>cnp.PyArray_DATA(self.narrow if is_single(x) else self.wide)
            run_small(&job, is_single(x))
        return y


def small_inference(
    x, running_mean, running_var, weight, bias, momentum, eps, layout, out, Py_ssize_t most_bytes
):
    """y = (x - running_mean) / sqrt(running_var + eps) * weight + bias for small contiguous arrays."""
    cdef Job job
    cdef double coefficients[3 * SMALL_CHANNELS]
    cdef double vectors[4 * SMALL_CHANNELS]
    cdef double mean, centre, e
    cdef Affine f
    cdef Py_ssize_t channels, c
    cdef bint single, last
    if type(eps) is not float or type(momentum) is not float or type(running_mean) is not cnp.ndarray:
        return None
    e = eps
    channels = cnp.PyArray_SIZE(running_mean)
    last = layout == "NHWC"
    if not last and layout != "NCHW":
        return None
    if not (0.0 <= e < 1e308 and 0.0 <= <double>momentum <= 1.0 and channels <= SMALL_CHANNELS):
        return None
    if not (
        read_vector(running_mean, out, channels, vectors)
        and read_vector(running_var, out, channels, vectors + SMALL_CHANNELS)
        and (weight is None or read_vector(weight, out, channels, vectors + 2 * SMALL_CHANNELS))
        and (bias is None or read_vector(bias, out, channels, vectors + 3 * SMALL_CHANNELS))
    ):
        return None
    y = small_job(&job, x, out, channels, last, most_bytes)
    if y is None:
        return None
    single = is_single(x)
    for c in range(channels):
        mean = vectors[c]
        centre = <double><float>mean if single else mean
        f = affine_of(
            mean, 0.0, vectors[SMALL_CHANNELS + c], 1.0 if weight is None else vectors[2 * SMALL_CHANNELS + c],
            0.0 if bias is None else vectors[3 * SMALL_CHANNELS + c], e, centre
        )
        coefficients[c] = centre
        coefficients[channels + c] = f.scale
        coefficients[2 * channels + c] = f.shift
    job.coefficients = coefficients
    run_small(&job, single)
    return y


cdef inline bint is_single(x) noexcept:
    return cnp.PyArray_TYPE(<cnp.ndarray>x) == cnp.NPY_FLOAT32


cdef inline void run_small(Job* job, bint single) noexcept:
    if single:
        run[float](job, NULL, 1)
    else:
        run[double](job, NULL, 1)


cdef bint read_vector(v, out, Py_ssize_t channels, double* into) noexcept:
    """Copy a contiguous vector of `channels` floats that shares no memory with `out`; whether it is one."""
    cdef Py_ssize_t c
    cdef cnp.ndarray a
    if type(v) is not cnp.ndarray:
        return False
    a = <cnp.ndarray>v
    if cnp.PyArray_NDIM(a) != 1 or cnp.PyArray_DIMS(a)[0] != channels or not cnp.PyArray_ISCARRAY_RO(a):
        return False
    if out is not None and (type(out) is not cnp.ndarray or overlap(a, <cnp.ndarray>out)):
        return False
    if cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT64:
        for c in range(channels):
            into[c] = (<double*>cnp.PyArray_DATA(a))[c]
    elif cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT32:
        for c in range(channels):
            into[c] = (<float*>cnp.PyArray_DATA(a))[c]
    else:
        return False
    return True


cdef object small_job(Job* job, x, out, Py_ssize_t channels, bint last, Py_ssize_t most):
    """Prepare to apply coefficients to x; the array that will hold the result, or None."""
    cdef cnp.ndarray source, y
    cdef cnp.npy_intp* shape
    cdef Py_ssize_t bytes
    cdef int rank, kind, axis, i
    if type(x) is not cnp.ndarray:
        return None
    source = <cnp.ndarray>x
    rank, kind, bytes = cnp.PyArray_NDIM(source), cnp.PyArray_TYPE(source), cnp.PyArray_NBYTES(source)
    axis = rank - 1 if last else 1
    shape = cnp.PyArray_DIMS(source)
    if (
        not 2 <= rank <= 5 or (kind != cnp.NPY_FLOAT32 and kind != cnp.NPY_FLOAT64)
        or not cnp.PyArray_ISCARRAY_RO(source) or not 0 < bytes <= most or shape[axis] != channels
    ):
        return None
    if out is None:
        y = <cnp.ndarray>cnp.PyArray_EMPTY(rank, shape, kind, 0)
    elif type(out) is not cnp.ndarray:
        return None
    else:
        y = <cnp.ndarray>out
        if (
            cnp.PyArray_TYPE(y) != kind or not cnp.PyArray_ISCARRAY(y) or not cnp.PyArray_SAMESHAPE(source, y)
            or (y is not source and overlap(source, y))
        ):
            return None
    memset(job, 0, sizeof(Job))
    job.apply = True
    job.outer = job.inner = 1
    for i in range(axis):
        job.outer *= shape[i]
    for i in range(axis + 1, rank):
        job.inner *= shape[i]
    job.channels = channels
    job.columns = job.inner < SHORT
    job.piece, job.pieces = job.inner, 1
    job.group = max(1, WIDEST // job.inner) if job.columns else 1
    job.groups = (channels + job.group - 1) // job.group
    job.block = job.outer
    job.x = job.dy = Strided(cnp.PyArray_DATA(source), channels * job.inner, job.inner, 1)
    job.y = job.x
    job.y.data = cnp.PyArray_DATA(y)
    return y


cdef inline bint overlap(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two contiguous arrays share memory."""
    cdef char* p = cnp.PyArray_BYTES(a)
    cdef char* r = cnp.PyArray_BYTES(b)
    return p < r + cnp.PyArray_NBYTES(b) and r < p + cnp.PyArray_NBYTES(a)
