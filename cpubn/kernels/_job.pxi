# A job: what is to be computed of which arrays, and in which order.

cdef struct Strided:
    void* data
    Py_ssize_t outer  # strides in elements
    Py_ssize_t channel
    Py_ssize_t inner
    Type type
    Py_ssize_t size  # bytes of an element

cdef struct Epilogue:
    int activation  # the code of _activations.pxi
    double low  # its parameters
    double high
    Strided residual  # no data: none
    bint gradient
    bint bare  # x is z already, or y: there is no affine map
    bint quantized  # y = round(min(max(y * inverse + zero, lowest), highest))
    double inverse
    double zero
    double lowest
    double highest

cdef struct Job:
    bint backward
    bint sums  # otherwise the coefficients are given
    bint apply  # otherwise only the sums are wanted
    Py_ssize_t outer
    Py_ssize_t channels
    Py_ssize_t inner
    bint columns  # the order of summation: see _order.py
    Py_ssize_t rows
    Py_ssize_t piece
    Py_ssize_t pieces
    Py_ssize_t chunks
    Py_ssize_t span
    Py_ssize_t spans
    Py_ssize_t group  # channels summed together
    Py_ssize_t groups
    Py_ssize_t block  # outer rows taken together where the coefficients are known
    Py_ssize_t band  # and channels of them
    Py_ssize_t bands
    bint stream
    bint down  # y runs along the outer rows of x: it is of another layout
    bint colours  # the same of 3 channels side by side
    bint loaded  # x and dy are not of the type that is computed in
    bint halves  # all are of one type of 16 bits, and there is nothing but the affine map: see _halves.pxi
    bint staged  # the elementwise pass is more than the affine map of samples of one type: see _staged.pxi
    Strided x
    Strided dy
    Strided y
    Epilogue epilogue
    const double* mean
    const double* var
    const double* weight
    const double* bias
    double eps
    double* result  # (3, C) moments or (2, C) gradient sums
    double* coefficients  # (3 or COEFFICIENTS, C), as _apply.pxi numbers them
    void* narrow  # the same in the data's type, where a band is of more than WIDEST columns
    double* parts  # (spans, 3, C)


# Where one run of each array starts, and how many elements apart its samples lie.
cdef struct Run:
    const char* x
    const char* dy
    const char* residual
    char* y
    Py_ssize_t x_step
    Py_ssize_t dy_step
    Py_ssize_t residual_step
    Py_ssize_t y_step


cdef inline const real* at(const real* tag, const Strided* w, Py_ssize_t o, Py_ssize_t c, Py_ssize_t i) noexcept nogil:
    return <const real*>w.data + (o * w.outer + c * w.channel + i * w.inner)


cdef inline const void* spot(const Strided* w, Py_ssize_t o, Py_ssize_t c, Py_ssize_t i) noexcept nogil:
    """`at`, for samples of any type."""
    return <const char*>w.data + (o * w.outer + c * w.channel + i * w.inner) * w.size


cdef inline double sample(const Job* job, const real* tag, Py_ssize_t o, Py_ssize_t c, Py_ssize_t i) noexcept nogil:
    """One value of x."""
    cdef real value = 0
    if not job.loaded:
        return <double>at(tag, &job.x, o, c, i)[0]
    load(job.x.type, spot(&job.x, o, c, i), 1, &value, 1)
    return <double>value


cdef inline bint packed(const Strided* w, Py_ssize_t inner) noexcept nogil:
    """Whether the inner runs of all channels lie one step apart from one another."""
    return inner == 1 or w.channel == inner * w.inner


cdef inline Py_ssize_t column_step(const Strided* w, Py_ssize_t inner) noexcept nogil:
    return w.channel if inner == 1 else w.inner
