# cython: language_level=3, boundscheck=False, wraparound=False
"""Windows of a sensor's stream, normalized in a loop of Cython's own threads, without the interpreter."""

from cython.parallel cimport prange

from cpubn.c cimport CPUBN_FLOAT32, CPUBN_OK, CPUBN_RELU, cpubn_call, cpubn_import, cpubn_of_shape, cpubn_over, cpubn_table

cdef const cpubn_table* bn = cpubn_import()


cdef int each(float* x, Py_ssize_t channels, Py_ssize_t inner, const double* mean, const double* var) noexcept nogil:
    cdef cpubn_call call = cpubn_over(1, channels, inner)  # NCHW is (N, C, H * W), NHWC (N * H * W, C, 1)
    call.x = call.y = cpubn_of_shape(&call, x, CPUBN_FLOAT32)
    call.mean, call.var, call.eps, call.activation = mean, var, 1e-5, CPUBN_RELU
    return bn.normalize(&call)


def normalize(float[:, :, ::1] x, const double[::1] mean, const double[::1] var):
    """relu((x - mean) / sqrt(var + eps)) of windows (N, C, L), in place, each by one of two threads."""
    if not (mean.shape[0] == var.shape[0] == x.shape[1]):
        raise ValueError(f"mean and var must have a value for each of {x.shape[1]} channels")
    if x.size == 0:
        return
    cdef Py_ssize_t n
    cdef int status, wrong = CPUBN_OK
    for n in prange(x.shape[0], nogil=True, num_threads=2):
        status = each(&x[n, 0, 0], x.shape[1], x.shape[2], &mean[0], &var[0])
        if status != CPUBN_OK:
            wrong = status
    if wrong != CPUBN_OK:
        raise ValueError(bn.message(wrong).decode())
