# Per-channel vectors: their algebra by vectors, and the way from and to NumPy.

cdef enum:
    SLICE = 256  # channels taken together, into local arrays: the compiler makes vectors only of what cannot overlap


cdef void affine_vectors(
    const real* tag, Py_ssize_t n, const double* mean, const double* low, const double* m2, double count,
    const double* weight, const double* bias, double eps, double* a, Py_ssize_t plane
) noexcept nogil:
    """a (3, n), whose rows lie a plane apart, <- centre, scale, shift; the variance is m2 / count."""
    cdef double centre[SLICE]
    cdef double scale[SLICE]
    cdef double shift[SLICE]
    cdef Affine f
    cdef Py_ssize_t first = 0, width, c
    while first < n:
        width = min(n - first, <Py_ssize_t>SLICE)
        for c in range(width):
            centre[c] = <double><real>mean[c]
            f = affine_of(mean[c], low[c], m2[c] / count, weight[c], bias[c], eps, centre[c])
            scale[c] = f.scale
            shift[c] = f.shift
        memcpy(a + first, centre, width * sizeof(double))
        memcpy(a + plane + first, scale, width * sizeof(double))
        memcpy(a + 2 * plane + first, shift, width * sizeof(double))
        mean, low, m2, weight, bias = mean + width, low + width, m2 + width, weight + width, bias + width
        first += width


cdef void gradient_vectors(
    const real* tag, Py_ssize_t n, double count, const double* mean, const double* var, const double* weight,
    double eps, const double* s0, const double* s1, double* a, Py_ssize_t plane
) noexcept nogil:
    """a (5, n), whose rows lie a plane apart, <- centre, r, s, k, scale."""
    cdef double centre[SLICE]
    cdef double r[SLICE]
    cdef double s[SLICE]
    cdef double k[SLICE]
    cdef double scale[SLICE]
    cdef Gradient g
    cdef Py_ssize_t first = 0, width, c
    while first < n:
        width = min(n - first, <Py_ssize_t>SLICE)
        for c in range(width):
            centre[c] = <double><real>mean[c]
            g = gradient_of(count, mean[c], var[c], weight[c], eps, centre[c], s0[c], s1[c])
            r[c] = g.r
            s[c] = g.s
            k[c] = g.k
            scale[c] = g.scale
        memcpy(a + first, centre, width * sizeof(double))
        memcpy(a + plane + first, r, width * sizeof(double))
        memcpy(a + 2 * plane + first, s, width * sizeof(double))
        memcpy(a + 3 * plane + first, k, width * sizeof(double))
        memcpy(a + 4 * plane + first, scale, width * sizeof(double))
        mean, var, weight, s0, s1 = mean + width, var + width, weight + width, s0 + width, s1 + width
        first += width


cdef cnp.ndarray new_vectors(int count, Py_ssize_t n):
    cdef cnp.npy_intp[2] shape
    shape[0], shape[1] = count, n
    return cnp.PyArray_EMPTY(2, shape, cnp.NPY_FLOAT64, 0)


cdef bint read_vector(v, Py_ssize_t n, double* into) noexcept:
    """into (n,) <- v; whether v is a plain vector of n."""
    cdef Py_ssize_t c
    if not is_plain(v) or cnp.PyArray_NDIM(<cnp.ndarray>v) != 1 or cnp.PyArray_SIZE(v) != n:
        return False
    if is_single(v):
        for c in range(n):
            into[c] = (<float*>cnp.PyArray_DATA(<cnp.ndarray>v))[c]
    else:
        for c in range(n):
            into[c] = (<double*>cnp.PyArray_DATA(<cnp.ndarray>v))[c]
    return True


cdef bint read_optional(v, Py_ssize_t n, double default, double* into) noexcept:
    cdef Py_ssize_t c
    if v is not None:
        return read_vector(v, n, into)
    for c in range(n):
        into[c] = default
    return True


cdef void write_vector(v, Py_ssize_t n, const double* values) noexcept:
    cdef Py_ssize_t c
    if is_single(v):
        for c in range(n):
            (<float*>cnp.PyArray_DATA(<cnp.ndarray>v))[c] = <float>values[c]
    else:
        for c in range(n):
            (<double*>cnp.PyArray_DATA(<cnp.ndarray>v))[c] = values[c]
