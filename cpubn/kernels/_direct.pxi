# The path of contiguous arrays: no plan, and no Python object but the results. It took 30 us off a call. Each function
# answers None, with nothing written, for whatever it does not take at once; the caller's plan then speaks.
#
# `threads` is a function of the bytes that a call reads.


# An elementwise pass over less is done before the interpreter's lock was released and threads were thought of: 0.2 us.
cdef Py_ssize_t TINY_BYTES = 32768


cdef class DirectAffine:
    """y = activation((x - centre) * scale + shift + residual), of a dtype and layout that may be others than x's.

    narrow, wide: (3, C) float64 centre, scale, shift for what is computed in float32 and for float64 data.
    """

    cdef cnp.ndarray narrow, wide
    cdef object activation, quantization, dtype, threads
    cdef int last, out_last

    def __cinit__(
        self, cnp.ndarray[double, ndim=2, mode="c"] narrow not None,
        cnp.ndarray[double, ndim=2, mode="c"] wide not None, activation, quantization, dtype, layout, out_layout, threads
    ):
        self.narrow, self.wide, self.activation, self.quantization = narrow, wide, activation, quantization
        self.dtype, self.last, self.out_last, self.threads = dtype, channels_last(layout), channels_last(out_layout), threads

    def __call__(self, x, residual=None, out=None):
        cdef Job job
        if not describe(&job, x, self.last) or job.channels != self.narrow.shape[1]:
            return None
        if self.quantization is not None:
            set_quantization(&job, self.quantization)
        job.coefficients = <double*>cnp.PyArray_DATA(self.wide if job.x.type == FLOAT64 else self.narrow)
        return infer(&job, x, self.last, self.activation, residual, self.dtype, self.out_last, out, self.threads)


def infer_directly(
    x, running_mean, running_var, weight, bias, momentum, eps, layout, activation, residual, dtype, out_layout, out,
    threads
):
    """y = activation((x - running_mean) / sqrt(running_var + eps) * weight + bias + residual)."""
    cdef Job job
    cdef cnp.ndarray vectors, coefficients
    cdef double* v
    cdef double* a
    cdef Py_ssize_t n
    cdef int last = channels_last(layout), out_last = last if out_layout is None else channels_last(out_layout)
    if not (
        describe(&job, x, last) and out_last >= 0 and is_number(eps, 0.0, 1e308) and is_number(momentum, 0.0, 1.0)
    ):
        return None
    n = job.channels
    vectors = new_vectors(5, n)
    v = <double*>cnp.PyArray_DATA(vectors)
    memset(v + 4 * n, 0, n * sizeof(double))
    if not (
        read_vector(running_mean, n, v) and read_vector(running_var, n, v + n)
        and read_optional(weight, n, 1.0, v + 2 * n) and read_optional(bias, n, 0.0, v + 3 * n)
        and (out is None or apart(out, (running_mean, running_var, weight, bias)))
    ):
        return None
    coefficients = new_vectors(3, n)
    a = <double*>cnp.PyArray_DATA(coefficients)
    if job.x.type == FLOAT64:
        affine_vectors[double](NULL, n, v, v + 4 * n, v + n, 1.0, v + 2 * n, v + 3 * n, eps, a, n)
    else:
        affine_vectors[float](NULL, n, v, v + 4 * n, v + n, 1.0, v + 2 * n, v + 3 * n, eps, a, n)
    job.coefficients = a
    return infer(&job, x, last, activation, residual, dtype, out_last, out, threads)


cdef object infer(Job* job, x, int last, activation, residual, dtype, int out_last, out, threads):
    """y by the coefficients of a job that describes x, or None."""
    cdef cnp.ndarray y
    if dtype is not None or (out_last != last and cnp.PyArray_NDIM(<cnp.ndarray>x) > 2):
        if residual is not None or not set_direct_epilogue(job, x, activation, None, out):
            return None
        return infer_in_another_form(job, x, dtype, last, out_last, out, threads)
    if job.x.type >= UINT8 or not set_direct_epilogue(job, x, activation, residual, out):
        return None
    made = output_for(x, x, out)
    if made is not None:
        run_direct(job, x, x, made, threads)
    return made


cdef object infer_in_another_form(Job* job, x, dtype, int last, int out_last, out, threads):
    """y of another type than x, or of another layout: image by image, each of which is one walk then."""
    cdef cnp.npy_intp[5] shape
    cdef int rank = cnp.PyArray_NDIM(<cnp.ndarray>x), number = cnp.PyArray_TYPE(<cnp.ndarray>x), i
    cdef cnp.ndarray y
    cdef Py_ssize_t image, count
    if dtype is not None:
        number = (<cnp.dtype>dtype).type_num
    if (number == cnp.NPY_FLOAT64) != (job.x.type == FLOAT64) or (job.x.type >= UINT8 and dtype is None):
        return None
    if job.epilogue.quantized and number != cnp.PyArray_TYPE(<cnp.ndarray>x):
        return None
    for i in range(rank):
        shape[i] = cnp.PyArray_DIMS(<cnp.ndarray>x)[i]
    if out_last and not last:
        for i in range(1, rank - 1):
            shape[i] = cnp.PyArray_DIMS(<cnp.ndarray>x)[i + 1]
        shape[rank - 1] = job.channels
    elif last and not out_last:
        for i in range(2, rank):
            shape[i] = cnp.PyArray_DIMS(<cnp.ndarray>x)[i - 1]
        shape[1] = job.channels
    if out is None:
        y = cnp.PyArray_EMPTY(rank, shape, number, 0)
    else:
        if not is_contiguous(out) or cnp.PyArray_TYPE(<cnp.ndarray>out) != number or overlap(out, x):
            return None
        if not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out) or cnp.PyArray_NDIM(<cnp.ndarray>out) != rank:
            return None
        for i in range(rank):
            if cnp.PyArray_DIMS(<cnp.ndarray>out)[i] != shape[i]:
                return None
        y = out
    job.x = job.dy = contiguous(job, x)
    job.y = contiguous(job, x)
    job.y.data, job.y.type, job.y.size = cnp.PyArray_DATA(y), type_of(y), cnp.PyArray_ITEMSIZE(y)
    if rank == 2 or out_last == last:
        run_described(job, threads(cnp.PyArray_NBYTES(<cnp.ndarray>x)))
        return y
    image = cnp.PyArray_SIZE(x) // shape[0]
    count = threads(cnp.PyArray_NBYTES(<cnp.ndarray>x) // shape[0])
    job.outer = job.outer // shape[0]
    if last:
        job.y.outer, job.y.channel = 1, job.outer
    else:
        job.y.inner, job.y.channel = job.channels, 1
    for i in range(shape[0]):
        run_described(job, count)
        job.x.data = job.dy.data = <char*>job.x.data + image * job.x.size
        job.y.data = <char*>job.y.data + image * job.y.size
    return y


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
