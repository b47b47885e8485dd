# The path of contiguous arrays: no plan, and no Python object but the results. It took 30 us off a call. Each function
# answers None, with nothing written, for whatever it does not take at once; the caller's plan then speaks.
#
# `threads` is a function of the bytes that a call reads.


# An elementwise pass over less is done before the interpreter's lock was released and threads were thought of: 0.2 us.
cdef Py_ssize_t TINY_BYTES = 32768


def train_directly(
    x, running_mean, running_var, weight, bias, momentum, eps, layout, activation, residual, out, threads
):
    """y and the batch's stats (3, C), by train_forward; running statistics, which may be None, are updated."""
    cdef Job job
    cdef cnp.ndarray vectors, stats
    cdef double* v
    cdef double* s
    cdef double count, share
    cdef Py_ssize_t n, c
    if not (
        is_sample(x) and describe(&job, x, channels_last(layout))
        and is_number(eps, 5e-324, 1e308) and is_number(momentum, 0.0, 1.0)
        and set_direct_epilogue(&job, x, activation, residual, out)
    ):
        return None
    n = job.channels
    count = <double>(job.outer * job.inner)
    vectors, stats = new_vectors(4, n), new_vectors(3, n)
    v, s = <double*>cnp.PyArray_DATA(vectors), <double*>cnp.PyArray_DATA(stats)
    if not (
        count > 1.0 and read_optional(weight, n, 1.0, v) and read_optional(bias, n, 0.0, v + n)
        and (running_mean is None) == (running_var is None)
        and (out is None or apart(out, (running_mean, running_var, weight, bias)))
    ):
        return None
    if running_mean is not None and not (
        read_vector(running_mean, n, v + 2 * n) and read_vector(running_var, n, v + 3 * n)
        and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>running_mean) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>running_var)
        and apart(running_mean, (x, residual, weight, bias, running_var))
        and apart(running_var, (x, residual, weight, bias))
    ):
        return None
    y = output_for(x, x, out)
    if y is None:
        return None
    job.sums = True
    job.weight, job.bias, job.eps, job.result = v, v + n, eps, s
    run_direct(&job, x, x, y, threads)
    if running_mean is not None:
        share = momentum
        for c in range(n):
            v[2 * n + c] = running_update(v[2 * n + c], s[c], share)
            v[3 * n + c] = running_update(v[3 * n + c], unbiased(s[2 * n + c], count), share)
        write_vector(running_mean, n, v + 2 * n)
        write_vector(running_var, n, v + 3 * n)
    return y, stats


def backward_directly(dy, x, mean, var, weight, eps, bint training, layout, out, threads):
    """dx, dweight and dbias, by train_backward or, in inference, by gradient_sums and normalize."""
    cdef Job job
    cdef Job applied
    cdef cnp.ndarray vectors, sums
    cdef double* v
    cdef double* s
    cdef double r
    cdef Py_ssize_t n, c
    if not (
        is_sample(x) and describe(&job, x, channels_last(layout))
        and is_number(eps, 5e-324 if training else 0.0, 1e308) and is_like(dy, x)
    ):
        return None
    n = job.channels
    vectors, sums = new_vectors(6, n), new_vectors(2, n)
    v, s = <double*>cnp.PyArray_DATA(vectors), <double*>cnp.PyArray_DATA(sums)
    if not (
        read_vector(mean, n, v) and read_vector(var, n, v + n) and read_optional(weight, n, 1.0, v + 2 * n)
        and (not training or job.outer * job.inner > 1) and (out is None or apart(out, (mean, var, weight)))
    ):
        return None
    dx = output_for(dy, x, out)
    if dx is None:
        return None
    applied = job
    job.backward = job.sums = True
    job.mean, job.var, job.weight, job.eps, job.result = v, v + n, v + 2 * n, eps, s
    if training:
        run_direct(&job, dy, x, dx, threads)
    else:
        job.apply = False
        run_direct(&job, dy, x, x, threads)
        for c in range(n):
            v[3 * n + c] = v[5 * n + c] = 0.0
            v[4 * n + c] = v[2 * n + c] * rstd(v[n + c], job.eps)
        applied.coefficients = v + 3 * n
        run_direct(&applied, dy, dy, dx, threads)
    for c in range(n):
        r = rstd(v[n + c], job.eps)
        s[n + c] *= r
    return dx, sums[1], sums[0]


def moments_directly(x, layout, threads):
    """stats (3, C), by moments."""
    cdef Job job
    cdef cnp.ndarray stats
    if not describe(&job, x, channels_last(layout)):
        return None
    stats = new_vectors(3, job.channels)
    job.sums, job.apply = True, False
    job.result = <double*>cnp.PyArray_DATA(stats)
    run_direct(&job, x, x, x, threads)
    return stats


cdef int channels_last(layout):
    """Whether a layout is NHWC; -1 for what is no layout."""
    if type(layout) is not str:
        return -1
    return 0 if layout == "NCHW" else 1 if layout == "NHWC" else -1


cdef bint describe(Job* job, x, int last) noexcept:
    """A job over a contiguous array, with but its shape and an elementwise pass; whether x is one of a type we know."""
    cdef cnp.npy_intp* shape
    cdef int rank, axis, i
    if last < 0 or not is_contiguous(x) or type_of(x) == OTHER:
        return False
    rank = cnp.PyArray_NDIM(<cnp.ndarray>x)
    axis = rank - 1 if last else 1
    if not 2 <= rank <= 5 or cnp.PyArray_SIZE(x) == 0:
        return False
    shape = cnp.PyArray_DIMS(<cnp.ndarray>x)
    memset(job, 0, sizeof(Job))
    job.apply = True
    job.x.type, job.x.size = type_of(x), cnp.PyArray_ITEMSIZE(x)
    job.outer = job.inner = 1
    for i in range(axis):
        job.outer *= shape[i]
    for i in range(axis + 1, rank):
        job.inner *= shape[i]
    job.channels = shape[axis]
    # One channel stands anywhere in memory, and the plan finds its longest runs.
    return job.channels > 1


cdef bint set_direct_epilogue(Job* job, x, activation, residual, out):
    """The epilogue of a pass over x; whether the residual, if there is one, is like x and `out` is it or apart from it."""
    if activation is not None:
        job.epilogue.activation, job.epilogue.low, job.epilogue.high = activation[:3]
    if residual is None:
        return True
    if not is_like(residual, x) or (out is not None and out is not residual and not apart(out, (residual,))):
        return False
    job.epilogue.residual = contiguous(job, residual)
    return True


cdef Strided contiguous(const Job* job, a) noexcept:
    return Strided(
        cnp.PyArray_DATA(<cnp.ndarray>a), job.channels * job.inner, job.inner, 1, job.x.type, job.x.size
    )


cdef object run_direct(Job* job, dy, x, y, threads):
    """A job over arrays that are all like x."""
    job.dy, job.y = contiguous(job, dy), contiguous(job, y)
    job.x = contiguous(job, x)
    run_described(job, threads(cnp.PyArray_NBYTES(<cnp.ndarray>x)))


cdef object run_described(Job* job, int threads):
    if job.sums:
        set_order(job)
    else:
        job.columns = job.inner < APART
        job.piece = min(job.inner, CHUNK)
        job.pieces = (job.inner + job.piece - 1) // job.piece
    if job.sums or job.outer * job.channels * job.inner * job.x.size > TINY_BYTES or is_transposed(job):
        start(job, threads)
        return
    set_stages(job)
    job.band = max(1, WIDEST // job.inner) if job.columns else 1
    job.bands = (job.channels + job.band - 1) // job.band
    job.block = job.outer if job.columns else 1
    if job.x.type == FLOAT64:
        run[double](job, NULL, 1)
    else:
        run[float](job, NULL, 1)


cdef object output_for(dy, x, out):
    """A new array like x, or `out` if it is dy, x or a contiguous array apart from both; else None."""
    if out is None:
        return cnp.PyArray_EMPTY(
            cnp.PyArray_NDIM(<cnp.ndarray>x), cnp.PyArray_DIMS(<cnp.ndarray>x), cnp.PyArray_TYPE(<cnp.ndarray>x), 0
        )
    if not is_like(out, x) or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out):
        return None
    if (out is not x and overlap(out, x)) or (out is not dy and dy is not x and overlap(out, dy)):
        return None
    return out


cdef inline bint is_single(x) noexcept:
    return cnp.PyArray_TYPE(<cnp.ndarray>x) == cnp.NPY_FLOAT32


cdef bint is_sample(a) noexcept:
    """Whether `a` is a contiguous, aligned, native array of a floating type that samples may have."""
    return is_contiguous(a) and FLOAT32 <= type_of(a) <= BFLOAT16


cdef bint is_contiguous(a) noexcept:
    return type(a) is cnp.ndarray and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>a)


cdef inline bint is_number(value, double low, double high) noexcept:
    if type(value) is int and 0 <= value <= 1:  # eps=0, as it is written for images
        value = float(value)
    return type(value) is float and low <= <double>value <= high


cdef bint is_plain(a) noexcept:
    """Whether `a` is a contiguous, aligned, native array of float32 or float64."""
    if type(a) is not cnp.ndarray or not cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>a):
        return False
    return cnp.PyArray_TYPE(<cnp.ndarray>a) == cnp.NPY_FLOAT64 or is_single(a)


cdef bint is_like(a, x) noexcept:
    """Whether `a` is a sample array of x's shape and dtype."""
    return (
        is_sample(a) and cnp.PyArray_TYPE(<cnp.ndarray>a) == cnp.PyArray_TYPE(<cnp.ndarray>x)
        and cnp.PyArray_SAMESHAPE(<cnp.ndarray>a, <cnp.ndarray>x)
    )


cdef bint apart(a, tuple others):
    """Whether `a` is a contiguous array, the others that are not None are too, and it shares no memory with them."""
    if not is_sample(a):
        return False
    for other in others:
        if other is not None and (not is_sample(other) or overlap(a, other)):
            return False
    return True


cdef bint overlap(a, b) noexcept:
    """Whether two contiguous arrays share memory."""
    cdef char* p = cnp.PyArray_BYTES(<cnp.ndarray>a)
    cdef char* r = cnp.PyArray_BYTES(<cnp.ndarray>b)
    return p < r + cnp.PyArray_NBYTES(<cnp.ndarray>b) and r < p + cnp.PyArray_NBYTES(<cnp.ndarray>a)
