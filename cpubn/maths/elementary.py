"""exp, log1p, tanh and erf in plain arithmetic: the same bits from NumPy, Numba and Cython on every instruction set.

Libraries of C round these functions differently from one another and from release to release, so here they are made of
+ - * / , comparisons and bits of integers alone. Both sides of a choice are computed and one is selected: there is no
branch, and loops over them become vectors.

Every function takes float32 or float64, an array or, compiled by Numba, a scalar, and computes in the type of its
argument. NaN goes through with its bits: -z would flip its sign, so z is negated only where z > 0 or z < 0 holds.
The methods and most coefficients are Moshier's (Cephes: expf.c, tanhf.c, tanh.c, ndtr.c). In float64 exp and the near
erf are Taylor polynomials, which cost less than a division; in float32 erf is a minimax fit, to 1e-9 near and 1e-8 far.
log1p is a minimax fit in both, to 8e-10 and 2e-18.
The Cython twin, backends/compiled/maths.hpp, gives the same bits.
"""

import math
from typing import Any, TypeAlias

import numpy as np

Value: TypeAlias = Any  # a float32 or float64 array, or a scalar where Numba compiles


def singles(*values: float) -> tuple[np.float32, ...]:
    return tuple(np.float32(value) for value in values)


# exp(z) = 2**k * exp(r): arguments beyond the bounds give 0 and infinity as the bounds do.
EXP_BOUNDS = singles(-110.0, 100.0), (-760.0, 720.0)
# Added to |k| < 2**22 (2**51), it leaves no room for a fraction: what is left is rounded to an integer, ties to even.
ROUNDER = np.float32(1.5 * 2.0**23), 1.5 * 2.0**52
EXPONENT_BIAS = np.float32(127.0), 1023.0
LOG2_E = 1.4426950408889634
LN2_HIGH = 0.693145751953125  # of 15 bits: k * LN2_HIGH is exact, and so is z - k * LN2_HIGH
LN2_LOW = 1.42860682030941723212e-6
EXP_P = (
    singles(1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1),
    tuple(1.0 / math.factorial(n) for n in range(13, 1, -1)),
)
EXPM1_LOWEST = -40.0  # below, e**z - 1 is -1

# R in log(1 + f) = f - (h - s * (h + s**2 * R(s**2))), s = f / (2 + f), h = f**2 / 2, of 1 + f from 0.7 to sqrt(2).
LOG1P_R = (
    singles(2.9871812e-1, 3.9977540e-1, 6.6666776e-1),
    (
        *(1.4796025345457742e-1, 1.5314044418196507e-1, 1.8183564502621133e-1, 2.2222198571214585e-1),
        *(2.857142874238973e-1, 3.999999999941477e-1, 6.666666666666734e-1),
    ),
)

TANH_P = (
    singles(-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1),
    (-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3),
)
TANH_Q = singles(1.0), (1.0, 1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3)

ERF_P = (
    singles(
        *(7.85385358e-5, -8.01019125e-4, 5.18832741e-3, -2.68538118e-2, 1.12835851e-1, -3.76126258e-1),
        1.28379166e-1,
    ),
    (
        *((-1) ** n * 1.1283791670955126 / (math.factorial(n) * (2 * n + 1)) for n in range(18, 0, -1)),
        1.28379167095512573896e-1,
    ),
)
ERFC_P = (
    singles(
        *(-3.88892045e-4, 6.00522523e-3, -4.09986887e-2, 1.64135122e-1, -4.31682068e-1, 7.92597198e-1),
        *(-1.04821191e0, 9.86127553e-1),
    ),
    (
        *(2.46196981473530512524e-10, 5.64189564831068821977e-1, 7.46321056442269912687e0, 4.86371970985681366614e1),
        *(1.96520832956077098242e2, 5.26445194995477358631e2, 9.34528527171957607540e2, 1.02755188689515710272e3),
        5.57535335369399327526e2,
    ),
)
ERFC_Q = (
    singles(1.0),
    (
        *(1.0, 1.32281951154744992508e1, 8.67072140885989742329e1, 3.54937778887819891062e2),
        *(9.75708501743205489753e2, 1.82390916687909736289e3, 2.24633760818710981792e3, 1.65666309194161350182e3),
        5.57535340817727675546e2,
    ),
)


def by_type(z: Value, pair: Any) -> Any:
    """Of (single, double), what belongs to the type of z."""
    return pair[0] if z.dtype == np.float32 else pair[1]


def like(z: Value, value: float) -> Value:
    """A number in the type of z."""
    return z.dtype.type(value)


def select(condition: Value, yes: Value, no: Value) -> Value:
    return np.where(condition, yes, no)


def polynomial(x: Value, coefficients: tuple[Value, ...]) -> Value:
    """Horner's rule, the highest power first."""
    p = coefficients[0]
    for c in coefficients[1:]:
        p = p * x + c
    return p


def power_of_two(biased: Value) -> Value:
    """2**k from k + EXPONENT_BIAS + ROUNDER, whose lowest bits are those of the exponent."""
    if biased.dtype == np.float32:
        return (biased.view(np.uint32) << 23).view(np.float32)
    return (biased.view(np.uint64) << 52).view(np.float64)


def clipped(z: Value, low: Value, high: Value) -> Value:
    """min(max(z, low), high), and NaN stays."""
    z = select(z < low, low, z)
    return select(z > high, high, z)


def minus_abs(z: Value) -> Value:
    """-|z|, and NaN stays as it is."""
    return select(z > like(z, 0.0), -z, z)


def reduced(z: Value) -> tuple[Value, Value]:
    """k and e**r - 1 = r + r**2 * P(r), where z = k * ln 2 + r and |r| <= ln(2) / 2."""
    rounder = by_type(z, ROUNDER)
    k = (z * like(z, LOG2_E) + rounder) - rounder
    r = (z - k * like(z, LN2_HIGH)) - k * like(z, LN2_LOW)
    return k, (r * r) * polynomial(r, by_type(z, EXP_P)) + r


def exp(z: Value) -> Value:
    """e**z = 2**k * e**r."""
    low, high = by_type(z, EXP_BOUNDS)
    k, p = reduced(clipped(z, low, high))
    p, rounder = p + like(z, 1.0), by_type(z, ROUNDER)
    # In two steps, since 2**k itself need be no normal number: the first is exact, the second rounds once.
    half = (k * like(z, 0.5) + rounder) - rounder
    biased = rounder + by_type(z, EXPONENT_BIAS)
    return (p * power_of_two(half + biased)) * power_of_two((k - half) + biased)


def expm1(z: Value) -> Value:
    """e**z - 1 = 2**k * (e**r - 1) + (2**k - 1) of z up to 0, for which 2**k is a normal number."""
    k, p = reduced(clipped(z, like(z, EXPM1_LOWEST), like(z, 0.0)))
    scale = power_of_two(k + (by_type(z, ROUNDER) + by_type(z, EXPONENT_BIAS)))
    return scale * p + (scale - like(z, 1.0))


def log1p(z: Value) -> Value:
    """log(1 + z) of z from 0 to 1, beyond sqrt(2) - 1 as log(2) + log(1 + f) with f = (z - 1) / 2."""
    zero, half = like(z, 0.0), like(z, 0.5)
    is_far = z > like(z, 0.41421356237309515)
    f = select(is_far, (z - like(z, 1.0)) * half, z)
    s, h = f / (like(z, 2.0) + f), (f * f) * half
    square = s * s
    rest = s * (h + square * polynomial(square, by_type(z, LOG1P_R)))
    low, high = select(is_far, like(z, LN2_LOW), zero), select(is_far, like(z, LN2_HIGH), zero)
    return (f - (h - (rest + low))) + high


def tanh(z: Value) -> Value:
    """z + z**3 * P(z**2) / Q(z**2) where |z| < 0.625; beyond, 1 - 2 / (exp(2 * |z|) + 1) with the sign of z."""
    one = like(z, 1.0)
    square = z * z
    near = (z * square) * (polynomial(square, by_type(z, TANH_P)) / polynomial(square, by_type(z, TANH_Q))) + z
    near = select(square == like(z, 0.0), z, near)  # -0.0 + 0.0 would be 0.0
    magnitude = -minus_abs(z)
    far = one - like(z, 2.0) / (exp(magnitude + magnitude) + one)
    far = select(z < like(z, 0.0), -far, far)
    return select(magnitude >= like(z, 0.625), far, near)


def erf(z: Value) -> Value:
    """z + z * P(z**2) where |z| < 1; beyond, 1 - exp(-z**2) * R(|z|) / S(|z|) with the sign of z.

    erf(z) = 2 / sqrt(pi) * integral of exp(-t**2) for t from 0 to z.
    """
    zero, one = like(z, 0.0), like(z, 1.0)
    square = z * z
    near = z * polynomial(square, by_type(z, ERF_P)) + z
    x = clipped(-minus_abs(z), one, like(z, 8.0))  # 1 - erf(8) < 2**-90
    far = one - exp(-(x * x)) * (polynomial(x, by_type(z, ERFC_P)) / polynomial(x, by_type(z, ERFC_Q)))
    far = select(z < zero, -far, far)
    return select(square >= one, far, near)


# Made of the others, each of which NumPy, Numba and a GPU have in their own way.
COMPOSED = reduced, exp, expm1, log1p, tanh, erf
