# The direct path of inference: y may be of another type and layout than x.


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
