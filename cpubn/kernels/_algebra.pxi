# The Cython twin of cpubn/_algebra.py: the same operations in the same order, so the same bits.

from libc.math cimport fabs, sqrt

cdef double LARGE = 2.0**100
cdef double TINY = 2.0**-126

cdef struct Pair:
    double high
    double low

cdef struct Moments:
    double mean
    double low
    double m2

cdef struct Affine:
    double scale
    double shift

cdef struct Gradient:
    double r
    double s
    double k
    double scale


cdef inline Pair two_sum(double a, double b) noexcept nogil:
    cdef double s = a + b
    cdef double t = s - a
    return Pair(s, (a - (s - t)) + (b - t))


cdef inline Moments merge(
    double count_a, double mean_a, double low_a, double m2_a, double count_b, double mean_b, double low_b, double m2_b
) noexcept nogil:
    cdef double share = count_b / (count_a + count_b)
    cdef double delta = (mean_b - mean_a) + (low_b - low_a)
    cdef Pair mean = two_sum(mean_a, delta * share)
    mean = two_sum(mean.high, mean.low + low_a)
    cdef double m2 = m2_a + m2_b + delta * delta * (count_a * share)
    return Moments(mean.high, mean.low, m2 + 0.0 * m2)


cdef inline bint pivot_is_far(double s, double offset, double m2) noexcept nogil:
    return not s * offset <= 16.0 * m2


cdef inline double next_pivot(const real* tag, double pivot, double offset, double m2, bint first) noexcept nogil:
    if m2 != m2:
        return 0.0
    return <double><real>(pivot + offset) if first else pivot


cdef inline Moments close(double count, double pivot, double s, double q) noexcept nogil:
    cdef double offset = s / count
    cdef double m2 = q - s * offset
    if m2 < 0.0:
        m2 = 0.0
    cdef Pair mean = two_sum(pivot, offset)
    return Moments(mean.high, mean.low, m2 + 0.0 * m2)


cdef inline double rstd(double var, double eps) noexcept nogil:
    return 1.0 / sqrt(var + eps)


cdef inline Affine affine_of(
    double mean, double low, double var, double weight, double bias, double eps, double centre
) noexcept nogil:
    cdef double scale = weight * rstd(var, eps)
    return Affine(scale, bias + ((centre - mean) - low) * scale)


cdef inline Gradient gradient_of(
    double count, double mean, double var, double weight, double eps, double centre, double s0, double s1
) noexcept nogil:
    cdef double r = rstd(var, eps)
    cdef double s = s1 * r / count
    return Gradient(r, s, s0 / count + (centre - mean) * r * s, weight * r)


cdef inline double running_update(double running, double batch, double momentum) noexcept nogil:
    return (1.0 - momentum) * running + momentum * batch


cdef inline double unbiased(double m2, double count) noexcept nogil:
    return m2 / (count - 1.0)


# In bitwise terms: the compiler makes vectors of no branches.
cdef inline bint forward_is_wide(double centre, double scale, double shift) noexcept nogil:
    return (fabs(centre) >= LARGE) | (fabs(shift) >= LARGE) | outside(scale, TINY, LARGE)


cdef inline bint backward_is_wide(double centre, double r, double s, double k, double scale) noexcept nogil:
    return (
        (fabs(centre) >= LARGE) | outside(r, TINY, LARGE) | outside(scale, TINY, LARGE)
        | outside(s, 2.0**-100, 2.0**64) | outside(k, 2.0**-100, LARGE)
    )


cdef inline bint outside(double value, double low, double high) noexcept nogil:
    return (value != 0.0) & ((fabs(value) < low) | (fabs(value) >= high))
