"""Activations y = f(z) and their derivatives f'(z): one pair of functions for each name.

All have the same arguments: z, and low and high in the type of z, of which leaky_relu takes its slope from low, clip
its bounds from both, and the others nothing. Like those of elementary.py they work on arrays and, compiled by Numba, on
scalars, in the type of z. NaN gives NaN; at a kink, and of NaN, a piecewise derivative is what torch has there.
The Cython twin, backends/compiled/maths.hpp, gives the same bits.
"""

from cpubn.maths import elementary
from cpubn.maths.elementary import Value, clipped, exp, like, minus_abs, select

# An activation's code in the kernels is its place here, from 1 on; 0 is none.
NAMES = ("relu", "relu6", "leaky_relu", "hardswish", "silu", "gelu", "sigmoid", "tanh", "clip")
# The codes of derivatives as functions of the output.
OF_OUTPUT = {"sigmoid": 10, "tanh": 11}


def relu(z: Value, low: Value, high: Value) -> Value:
    """max(z, 0)."""
    zero = like(z, 0.0)
    return select(z < zero, zero, z)


def relu_gradient(z: Value, low: Value, high: Value) -> Value:
    zero = like(z, 0.0)
    return select(z <= zero, zero, like(z, 1.0))


def relu6(z: Value, low: Value, high: Value) -> Value:
    """min(max(z, 0), 6): Howard et al. (2017), MobileNets."""
    return clip(z, like(z, 0.0), like(z, 6.0))


def relu6_gradient(z: Value, low: Value, high: Value) -> Value:
    return clip_gradient(z, like(z, 0.0), like(z, 6.0))


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


def clip(z: Value, low: Value, high: Value) -> Value:
    """min(max(z, low), high)."""
    return clipped(z, low, high)


def clip_gradient(z: Value, low: Value, high: Value) -> Value:
    return select((z <= low) | (z >= high), like(z, 0.0), like(z, 1.0))


def sigmoid_of_output_gradient(y: Value, low: Value, high: Value) -> Value:
    return y * (like(y, 1.0) - y)


def tanh_of_output_gradient(y: Value, low: Value, high: Value) -> Value:
    return like(y, 1.0) - y * y


# By their codes, from 1 on.
FUNCTIONS = relu, relu6, leaky_relu, hardswish, silu, gelu, sigmoid, tanh, clip
GRADIENTS = (
    *(relu_gradient, relu6_gradient, leaky_relu_gradient, hardswish_gradient, silu_gradient, gelu_gradient),
    *(sigmoid_gradient, tanh_gradient, clip_gradient, sigmoid_of_output_gradient, tanh_of_output_gradient),
)
