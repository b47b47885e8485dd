"""The table of activations y = f(z): their formulas, their parameters, and what their gradients can be made from.

All formulas have the same arguments: z, or y where that is enough for the derivative; and low and high in the type of
z, which are an activation's parameters in their order, or what its entry has in their place. Like those of elementary
they work on arrays and, compiled by Numba, on scalars, in the type of z. NaN gives NaN; at a kink a derivative is what
torch has there.
The Cython twin, backends/compiled/activations.hpp, gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from cpubn.maths import elementary
from cpubn.maths.elementary import Value, clipped, exp, expm1, like, log1p, minus_abs, select

Formula: TypeAlias = Callable[[Value, Value, Value], Value]


def clip(z: Value, low: Value, high: Value) -> Value:
    """min(max(z, low), high): of relu (0, no bound), of relu6 (0, 6); Howard et al. (2017), MobileNets."""
    return clipped(z, low, high)


def clip_gradient(z: Value, low: Value, high: Value) -> Value:
    return select((z <= low) | (z >= high), like(z, 0.0), like(z, 1.0))


def leaky_relu(z: Value, low: Value, high: Value) -> Value:
    """z where z > 0, otherwise low * z: Maas, Hannun and Ng (2013)."""
    return select(z > like(z, 0.0), z, z * low)


def leaky_relu_gradient(z: Value, low: Value, high: Value) -> Value:
    return select(z > like(z, 0.0), like(z, 1.0), low)


def hardswish(z: Value, low: Value, high: Value) -> Value:
    """z * (min(max(z + 3, 0), 6) / 6): Howard et al. (2019), MobileNetV3. Divided first, it does not overflow."""
    six = like(z, 6.0)
    return z * (clipped(z + like(z, 3.0), like(z, 0.0), six) / six)


def hardswish_gradient(z: Value, low: Value, high: Value) -> Value:
    three = like(z, 3.0)
    inner = select(z < three, z / three + like(z, 0.5), like(z, 1.0))
    return select(z <= -three, like(z, 0.0), inner)


def silu(z: Value, low: Value, high: Value) -> Value:
    """z * sigmoid(z): Elfwing, Uchibe and Doya (2018)."""
    return z * sigmoid(z, low, high)


def silu_gradient(z: Value, low: Value, high: Value) -> Value:
    """s + z * s' with s = sigmoid(z); not s * (1 + z * (1 - s)), where 1 - s cancels and z multiplies what is left."""
    return sigmoid(z, low, high) + z * sigmoid_gradient(z, low, high)


def gelu(z: Value, low: Value, high: Value) -> Value:
    """z * Phi(z), Phi being the standard normal distribution: Hendrycks and Gimpel (2016)."""
    return z * normal_distribution(z)


def gelu_gradient(z: Value, low: Value, high: Value) -> Value:
    """Phi(z) + z * exp(-z**2 / 2) / sqrt(2 * pi)."""
    density = like(z, 0.3989422804014327) * exp(like(z, -0.5) * (z * z))
    return normal_distribution(z) + z * density


def normal_distribution(z: Value) -> Value:
    """Phi(z) = (1 + erf(z / sqrt(2))) / 2."""
    return like(z, 0.5) * (like(z, 1.0) + elementary.erf(z * like(z, 0.7071067811865476)))


def sigmoid(z: Value, low: Value, high: Value) -> Value:
    """1 / (1 + exp(-z)); so written that no exponential overflows."""
    one = like(z, 1.0)
    e = exp(minus_abs(z))
    return select(z < like(z, 0.0), e, one) / (one + e)


def sigmoid_gradient(z: Value, low: Value, high: Value) -> Value:
    """s * (1 - s), without the cancellation."""
    e = exp(minus_abs(z))
    denominator = like(z, 1.0) + e
    return e / (denominator * denominator)


def tanh(z: Value, low: Value, high: Value) -> Value:
    return elementary.tanh(z)


def tanh_gradient(z: Value, low: Value, high: Value) -> Value:
    """1 - tanh(z)**2 = 4 * s * (1 - s) with s = sigmoid(2 * z)."""
    return like(z, 4.0) * sigmoid_gradient(z + z, low, high)


def softplus(z: Value, low: Value, high: Value) -> Value:
    """log(1 + exp(z)) = max(z, 0) + log(1 + exp(-|z|)), beyond 20 z itself as torch has it: Dugas et al. (2000)."""
    zero = like(z, 0.0)
    return select(z > like(z, 20.0), z, select(z < zero, zero, z) + log1p(exp(minus_abs(z))))


def softplus_gradient(z: Value, low: Value, high: Value) -> Value:
    return select(z > like(z, 20.0), like(z, 1.0), sigmoid(z, low, high))


def mish(z: Value, low: Value, high: Value) -> Value:
    """z * tanh(softplus(z)): Misra (2019)."""
    top, bottom, _ = tanh_of_softplus(z)
    return z * (top / bottom)


def mish_gradient(z: Value, low: Value, high: Value) -> Value:
    top, bottom, part = tanh_of_softplus(z)
    return top / bottom + z * (like(z, 4.0) * part / (bottom * bottom))


def tanh_of_softplus(z: Value) -> tuple[Value, Value, Value]:
    """(u**2 - 1) / (u**2 + 1), u = 1 + exp(z), as top and bottom, and a quarter of its derivative times bottom**2.

    Where z > 0 in terms of exp(-z): what is divided was multiplied by its square.
    """
    one, two, is_below = like(z, 1.0), like(z, 2.0), z < like(z, 0.0)
    e = exp(minus_abs(z))
    top = select(is_below, e * (e + two), (e + e) + one)
    return top, top + select(is_below, two, (e + e) * e), select(is_below, e, e * e) * (e + one)


def elu(z: Value, low: Value, high: Value) -> Value:
    """z where z >= 0, otherwise low * (exp(z) - 1): Clevert, Unterthiner and Hochreiter (2015)."""
    return select(z < like(z, 0.0), low * expm1(z), z)


def elu_gradient(z: Value, low: Value, high: Value) -> Value:
    return select(z > like(z, 0.0), like(z, 1.0), low * exp(z))


def sigmoid_of_output(y: Value, low: Value, high: Value) -> Value:
    return y * (like(y, 1.0) - y)


def tanh_of_output(y: Value, low: Value, high: Value) -> Value:
    return like(y, 1.0) - y * y


class Parameter(NamedTuple):
    name: str
    default: float | None = None


class Rule(NamedTuple):
    """What must hold of the parameters."""

    holds: Callable[[float, float], bool]
    wanted: str
    remedy: str


class Sides(NamedTuple):
    """What one bit of an output tells: the derivative is 1 between the bounds, NaN being none, and else the slope."""

    low: float
    high: float
    slope: float = 0.0
    nan: bool = True  # whether it is 1 of NaN


class Entry(NamedTuple):
    name: str
    function: Formula
    gradient: Formula
    of_output: Formula | None = None  # the gradient once more, of y
    parameters: tuple[Parameter, ...] = ()
    rule: Rule | None = None
    numbers: tuple[float, float] = (0.0, 0.0)  # low and high where they are no parameters
    sides: Callable[[float, float], Sides | None] | None = None  # for these low and high; None: y does not tell

    @property
    def is_clip(self) -> bool:
        """Whether low and high are what the output stays between."""
        return self.function is clip

    @property
    def form(self) -> str:
        """How it is asked for."""
        alone, full = repr(self.name), f"({', '.join([repr(self.name), *(p.name for p in self.parameters)])})"
        if not self.parameters:
            return alone
        return full if self.parameters[0].default is None else f"{alone} or {full}"


def by_sign(low: float, high: float) -> Sides | None:
    return Sides(0.0, math.nan, low, nan=False) if low >= 0.0 else None


def finite(name: str, usual: float) -> Rule:
    return Rule(lambda low, high: math.isfinite(low), f"a finite {name}", f"it is usually {usual:g}")


BOUNDS, SLOPE = (Parameter("low"), Parameter("high")), (Parameter("slope"),)
ORDERED = Rule(lambda low, high: low <= high, "low <= high", "swap them")
# An activation's code in the kernels is its place here, from 1 on; 0 is none.
TABLE = (
    Entry("relu", clip, clip_gradient, clip_gradient, numbers=(0.0, math.nan), sides=Sides),
    Entry("relu6", clip, clip_gradient, clip_gradient, numbers=(0.0, 6.0), sides=Sides),
    Entry("clip", clip, clip_gradient, clip_gradient, BOUNDS, ORDERED, sides=Sides),
    Entry(
        "leaky_relu", leaky_relu, leaky_relu_gradient, leaky_relu_gradient, SLOPE, finite("slope", 0.01), sides=by_sign
    ),
    Entry("hardswish", hardswish, hardswish_gradient),
    Entry("silu", silu, silu_gradient),
    Entry("gelu", gelu, gelu_gradient),
    Entry("sigmoid", sigmoid, sigmoid_gradient, sigmoid_of_output),
    Entry("tanh", tanh, tanh_gradient, tanh_of_output),
    Entry("softplus", softplus, softplus_gradient),
    Entry("mish", mish, mish_gradient),
    Entry("elu", elu, elu_gradient, parameters=(Parameter("alpha", 1.0),), rule=finite("alpha", 1.0)),
)
CODES = {entry.name: code for code, entry in enumerate(TABLE, 1)}
# Each once, and what they call of this module, which has other arguments.
FORMULAS = tuple(dict.fromkeys(f for entry in TABLE for f in entry[1:4] if f is not None))
CALLED = normal_distribution, tanh_of_softplus
