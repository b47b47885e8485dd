"""Cython kernels. Each instruction set compiles this one source; see _isa.py for the flags and _order.py for the sums."""

cimport numpy as cnp
from libc.string cimport memcpy, memset
from cython.parallel cimport prange

from cpubn.kernels import _order

cnp.import_array()

cdef extern from "_machine.h" nogil:
    int cpubn_openmp_max_threads()
    int cpubn_has_avx2()
    int cpubn_has_avx512()
    size_t cpubn_cache_bytes()
    double cpubn_add_exact(double a, double b, double c)
    float cpubn_power_of_two_float(float biased)
    double cpubn_power_of_two_double(double biased)
    void cpubn_prefetch(const void* p)
    void cpubn_stream(void* to, const void* source, size_t bytes)
    void cpubn_stream_end()

ctypedef fused real:
    float
    double

ctypedef fused work:
    float
    double

include "_types.pxi"
include "_algebra.pxi"
include "_elementary.pxi"
include "_activations.pxi"
include "_vectors.pxi"
include "_sums.pxi"
include "_apply.pxi"
include "_job.pxi"
include "_loaded.pxi"
include "_chunks.pxi"
include "_halves.pxi"
include "_staged.pxi"
include "_passes.pxi"
include "_share.pxi"
include "_direct_infer.pxi"
include "_direct.pxi"

# Samples may be of any type of _types.pxi, mixed with one another unless some are float64, and of different layouts.
ANY_TYPE = True


def moments(cnp.ndarray x not None, cnp.ndarray stats not None, int threads):
    """mean = sum(x) / n and m2 = sum((x - mean)**2) per channel.

    x (O, C, I) of any type of _types.pxi, as all samples here; stats (3, C) float64 <- mean, its low word, m2.
    Each chunk is summed about its own pivot and merged: one pass over memory, and no digit lost to a large mean.
    Moves x once.
    """
    cdef Job job = new_job(x, x, x)
    job.sums = True
    job.result = <double*>cnp.PyArray_DATA(stats)
    start(&job, threads)


def normalize(
    cnp.ndarray x not None, cnp.ndarray affine not None, epilogue, cnp.ndarray y not None, int threads
):
    """y = epilogue((x - centre) * scale + shift).

    x, y (O, C, I); affine (3, C) float64: centre, scale, shift; y may be x or the epilogue's residual.
    The centre is taken off first: `x * scale + (shift - centre * scale)` loses digits as the mean grows.
    Moves x, the residual and y once.
    """
    cdef Job job = new_job(x, x, y)
    job.apply = True
    job.coefficients = <double*>cnp.PyArray_DATA(affine)
    set_epilogue(&job, epilogue)
    start(&job, threads)


def train_forward(
    cnp.ndarray x not None, cnp.ndarray weight not None, cnp.ndarray bias not None, double eps,
    cnp.ndarray stats not None, epilogue, cnp.ndarray y not None, int threads
):
    """y = epilogue((x - mean) / sqrt(var + eps) * weight + bias) with the batch's own mean and biased variance.

    x, y (O, C, I); weight, bias (C,) float64; stats (3, C) float64 <- mean, its low word, m2; y may be x or the residual.
    A group of channels is finished while it is in cache: two sweeps over the whole tensor would read it twice.
    Moves x, the residual and y once where a group fits in cache, otherwise x twice.
    """
    cdef Job job = new_job(x, x, y)
    job.sums = job.apply = True
    job.weight = <const double*>cnp.PyArray_DATA(weight)
    job.bias = <const double*>cnp.PyArray_DATA(bias)
    job.eps = eps
    job.result = <double*>cnp.PyArray_DATA(stats)
    set_epilogue(&job, epilogue)
    start(&job, threads)


def gradient_sums(
    cnp.ndarray dy not None, cnp.ndarray x not None, cnp.ndarray mean not None, cnp.ndarray sums not None, int threads
):
    """s0 = sum(dy), s1 = sum(dy * (x - mean)) per channel.

    dy, x (O, C, I); mean (C,) float64; sums (2, C) float64 <- s0, s1.
    Differences are taken in float64: rounded to float32 at mean/std = 1e7 nothing would be left of them.
    Moves dy and x once.
    """
    cdef Job job = new_job(dy, x, x)
    job.backward = job.sums = True
    job.mean = <const double*>cnp.PyArray_DATA(mean)
    job.result = <double*>cnp.PyArray_DATA(sums)
    start(&job, threads)


def train_backward(
    cnp.ndarray dy not None, cnp.ndarray x not None, cnp.ndarray mean not None, cnp.ndarray var not None,
    cnp.ndarray weight not None, double eps, cnp.ndarray sums not None, cnp.ndarray dx not None, int threads
):
    """dx = scale * ((dy - k) - ((x - centre) * r) * s) with the coefficients of _algebra.gradient.

    dy, x, dx (O, C, I); mean, var, weight (C,) float64; sums (2, C) float64 <- s0, s1; dx may be dy or x.
    Not `a * dy + b * (x - centre) + k`: where dy follows x that loses half its digits at mean/std = 1e6.
    Moves dy, x and dx once where a group fits in cache, otherwise dy and x twice.
    """
    cdef Job job = new_job(dy, x, dx)
    job.backward = job.sums = job.apply = True
    job.mean = <const double*>cnp.PyArray_DATA(mean)
    job.var = <const double*>cnp.PyArray_DATA(var)
    job.weight = <const double*>cnp.PyArray_DATA(weight)
    job.eps = eps
    job.result = <double*>cnp.PyArray_DATA(sums)
    start(&job, threads)


def activation_gradient(
    cnp.ndarray dy not None, cnp.ndarray x not None, cnp.ndarray affine, epilogue, cnp.ndarray g not None, int threads
):
    """g = dy * activation'((x - centre) * scale + shift + residual); without affine, of x as it is.

    dy, x, g (O, C, I); affine (3, C) float64: centre, scale, shift; g may be dy.
    From x, and not from z: to keep that would be one more array of memory, and of traffic.
    Moves dy, x, the residual and g once.
    """
    cdef Job job = new_job(dy, x, g)
    job.apply = job.epilogue.gradient = True
    job.epilogue.bare = affine is None
    job.coefficients = NULL if affine is None else <double*>cnp.PyArray_DATA(affine)
    set_epilogue(&job, epilogue)
    start(&job, threads)


include "_signs.pxi"


def openmp_max_threads():
    """What OpenMP would use by itself; 0 where the extension was built without it."""
    return cpubn_openmp_max_threads()


def cpu_features():
    """The instruction sets of _isa.py, beyond the baseline, that this CPU and its operating system have."""
    return frozenset(name for name, has in (("avx2", cpubn_has_avx2()), ("avx512", cpubn_has_avx512())) if has)
