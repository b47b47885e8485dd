# The path of a small inference: no plan, no threads, no Python objects but the result.


cdef class SmallAffine:
    """y = (x - centre) * scale + shift for small contiguous arrays; None for whatever else it is called with.

    narrow, wide: (3, C) float64 centre, scale, shift for float32 and for float64 data.
    """

    cdef cnp.ndarray narrow, wide
    cdef bint last
    cdef Py_ssize_t channels, most

    def __init__(self, narrow, wide, bint channels_last, Py_ssize_t most_bytes):
        self.narrow, self.wide = narrow, wide
        self.channels = self.narrow.shape[1]
        self.last, self.most = channels_last, most_bytes

    def __call__(self, x, out=None):
        cdef Job job
        cdef cnp.ndarray source, y
        cdef int rank, kind, axis, i
        cdef cnp.npy_intp* shape
        cdef Py_ssize_t bytes, channel
        if type(x) is not cnp.ndarray:
            return None
        source = <cnp.ndarray>x
        rank, kind, bytes = cnp.PyArray_NDIM(source), cnp.PyArray_TYPE(source), cnp.PyArray_NBYTES(source)
        axis = rank - 1 if self.last else 1
        shape = cnp.PyArray_DIMS(source)
        if (
            not 2 <= rank <= 5 or (kind != cnp.NPY_FLOAT32 and kind != cnp.NPY_FLOAT64)
            or not cnp.PyArray_ISCARRAY_RO(source) or bytes > self.most or bytes == 0 or shape[axis] != self.channels
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
                or (y is not source and overlap(source, y, bytes))
            ):
                return None
        memset(&job, 0, sizeof(job))
        job.apply = True
        job.outer = job.inner = 1
        for i in range(axis):
            job.outer *= shape[i]
        for i in range(axis + 1, rank):
            job.inner *= shape[i]
        job.channels = self.channels
        job.columns = job.inner < _SHORT
        job.piece, job.pieces = job.inner, 1
        job.group = max(1, WIDEST // job.inner) if job.columns else 1
        job.groups = (job.channels + job.group - 1) // job.group
        job.block = job.outer
        job.x = job.dy = Walk(cnp.PyArray_DATA(source), job.channels * job.inner, job.inner, 1)
        job.y = job.x
        job.y.data = cnp.PyArray_DATA(y)
        if kind == cnp.NPY_FLOAT32:
            job.coefficients = <double*>cnp.PyArray_DATA(self.narrow)
            run[float](&job, NULL, 1)
        else:
            job.coefficients = <double*>cnp.PyArray_DATA(self.wide)
            run[double](&job, NULL, 1)
        return y


cdef Py_ssize_t _SHORT = _order.SHORT


cdef inline bint overlap(cnp.ndarray a, cnp.ndarray b, Py_ssize_t bytes) noexcept:
    cdef char* p = cnp.PyArray_BYTES(a)
    cdef char* r = cnp.PyArray_BYTES(b)
    return p < r + bytes and r < p + bytes
