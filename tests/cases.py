"""The inputs that batch norm is tested on: families of values, gradients, shapes at the edges of the sum order.

A family is a function of a Generator that gives (channels, samples) float64 values, in the order in which a channel is
walked; `place` puts them into the shape and layout of an array.
"""

import numpy as np
import oracle


def rng_of(*key):
    """A Generator that is the same for the same key on every run."""
    return np.random.default_rng(list("/".join(map(str, key)).encode()))


def place(rows, shape, layout, dtype):
    """(channels, samples) values as an array of `shape`, which is given with its channels on axis 1."""
    n, channels, *inner = shape
    x = np.moveaxis(rows.reshape(channels, n, *inner), 0, 1 if layout == "NCHW" else -1)
    return np.ascontiguousarray(x, dtype=dtype)


def offset(ratio):
    """Normal values with |mean| = ratio * std, of stds from 0.01 to 1000."""

    def family(rng, channels, samples):
        std = 10 ** rng.uniform(-2, 3, (channels, 1))
        sign = rng.choice([-1, 1], (channels, 1))
        return std * (rng.standard_normal((channels, samples)) + sign * ratio)

    return family


def first_far(rng, channels, samples):
    """The sample that would be the natural pivot lies a million standard deviations away."""
    rows = rng.standard_normal((channels, samples))
    rows[:, 0] = 1e6
    return rows


def last_far(rng, channels, samples):
    return np.ascontiguousarray(first_far(rng, channels, samples)[:, ::-1])


def zero_corner(rng, channels, samples):
    """A third of the samples, the first ones, are exactly zero, as in a padded image; the rest is far from it."""
    rows = rng.standard_normal((channels, samples)) + 1000
    rows[:, : samples // 3] = 0
    return rows


def ramp(rng, channels, samples):
    """Every chunk has a mean of its own. Scales are rounded: in their last bits systems differ."""
    scales = (10 ** rng.uniform(-3, 4, (channels, 1))).astype(np.float32)
    return np.linspace(-1, 1, samples) * scales + rng.uniform(-5, 5, (channels, 1))


def step(rng, channels, samples):
    """Two levels, a thousand apart, each with little noise: the variance stands between the chunks."""
    return np.where(np.arange(samples) < samples // 2, 0, 1000) + 0.01 * rng.standard_normal((channels, samples))


def pixels(rng, channels, samples):
    return rng.integers(0, 256, (channels, samples)).astype(float)


def largest(rng, channels, samples):
    """Both signs near the largest float32: any difference or square in float32 overflows."""
    return rng.choice([-3.4e38, -3e38, 3e38, 3.4e38], (channels, samples))


def largest_of_one_sign(rng, channels, samples):
    return rng.uniform(1e38, 3.4e38, (channels, samples))


def largest_but_one(rng, channels, samples):
    """Near the largest float32 but for one sample, from which, or from the mean, the difference overflows."""
    rows = np.full((channels, samples), 3.2e38)
    rows[::2, 0] = 0
    rows[::2, 1:2] *= -1
    rows[1::2, 0] *= -1
    return rows


def tiny(rng, channels, samples):
    """Denormal in float32."""
    return 1e-40 * rng.standard_normal((channels, samples))


def mixed_scales(rng, channels, samples):
    """Channels from 1e-30 to 1e30 beside each other."""
    return 10.0 ** np.linspace(-30, 30, channels)[:, None] * rng.standard_normal((channels, samples))


def constant(rng, channels, samples):
    """Values that sums in any format would round."""
    values = np.array([0.1, -3.3, 0.0, 1e-40, 1e7 + 1, -2e38, 1 / 3])
    return np.resize(values, channels)[:, None] * np.ones(samples)


def mostly_constant(rng, channels, samples):
    """One sample in the middle differs, by little beside the mean."""
    rows = np.full((channels, samples), 1e4)
    rows[:, samples // 2] += 1
    return rows


def spread_far(count):
    """So many samples, evenly spread over the channel, lie far away: what a pivot might be taken from."""

    def family(rng, channels, samples):
        rows = rng.standard_normal((channels, samples))
        rows[:, np.arange(count) * samples // count] = 1e4
        return rows

    return family


def half_zeros(rng, channels, samples):
    """As an activation leaves them."""
    return np.maximum(rng.standard_normal((channels, samples)), 0)


def ascending(rng, channels, samples):
    return np.sort(rng.standard_normal((channels, samples)), axis=1)


def smooth(rng, channels, samples):
    """Slow waves: neighbours are nearly the same, so that rounding errors are, too."""
    phase, length = rng.uniform(0, 6, (channels, 1)), rng.uniform(50, 5000, (channels, 1))
    return 5 + np.sin(np.arange(samples) / length + phase) + 0.01 * rng.standard_normal((channels, samples))


def sparse(rng, channels, samples):
    return rng.standard_normal((channels, samples)) * (rng.random((channels, samples)) < 0.01)


def lognormal(rng, channels, samples):
    return rng.lognormal(0, 3, (channels, samples))


def cauchy(rng, channels, samples):
    return rng.standard_cauchy((channels, samples))


def two_values(rng, channels, samples):
    """Neither of them exact in binary, the one nine times as frequent."""
    return np.where(rng.random((channels, samples)) < 0.1, 100.3, 0.1)


def equal_distances(rng, channels, samples):
    """As far from the mean each, on both sides: a square that is rounded is rounded alike every time."""
    return 10.0 + rng.choice([-1, 1], (channels, samples)) * 10 ** rng.uniform(-3, 1, (channels, 1))


FAMILIES = {f"offset {ratio:g}": offset(ratio) for ratio in (0, 1, 1e2, 1e4, 1e5, 1e6)} | {
    "first far": first_far,
    "last far": last_far,
    "zero corner": zero_corner,
    "ramp": ramp,
    "step": step,
    "pixels": pixels,
    "largest": largest,
    "largest of one sign": largest_of_one_sign,
    "largest but one": largest_but_one,
    "tiny": tiny,
    "mixed scales": mixed_scales,
    "constant": constant,
    "mostly constant": mostly_constant,
    "half zeros": half_zeros,
    "ascending": ascending,
    "smooth": smooth,
    "sparse": sparse,
    "lognormal": lognormal,
    "cauchy": cauchy,
    "two values": two_values,
    "equal distances": equal_distances,
    **{f"every 1/{count} far": spread_far(count) for count in (16, 64)},
}
# float64 is promised up to mean/std = 1e6.
FLOAT32_FAMILIES = FAMILIES | {"offset 1e+07": offset(1e7)}


def families(dtype):
    return FLOAT32_FAMILIES if dtype == np.float32 else FAMILIES


def gradient_independent(rng, rows):
    return rng.standard_normal(rows.shape)


def gradient_of_x_hat(rng, rows):
    """Parallel to x_hat, so that the true gradient almost vanishes."""
    std = rows.std(axis=1, keepdims=True)
    return (rows - rows.mean(axis=1, keepdims=True)) / np.where(std > 0, std, 1)


def gradient_correlated(rng, rows):
    return 3 * gradient_of_x_hat(rng, rows) + 0.01 * rng.standard_normal(rows.shape) + 1


def gradient_constant(rng, rows):
    return np.full(rows.shape, 0.7)


def gradient_sparse(rng, rows):
    return rng.standard_normal(rows.shape) * (rng.random(rows.shape) < 0.1)


GRADIENTS = {
    "independent": gradient_independent,
    "of x_hat": gradient_of_x_hat,
    "correlated": gradient_correlated,
    "constant": gradient_constant,
    "sparse": gradient_sparse,
}

DTYPES = (np.float32, np.float64)
# Every activation, with parameters that any floating type holds.
ACTIVATIONS = tuple(
    (name, *parameters) if parameters else name
    for name in oracle.ACTIVATIONS
    for parameters in oracle.PARAMETERS.get(name, [()])
)
FAMILY_OF_DTYPE = [(family, dtype) for dtype in DTYPES for family in families(dtype)]
# Where each family is tried, in several chunks: long rows, short rows summed as columns, columns past a block of 32.
WALKS = {
    "long rows": ("NCHW", (2, 3, 33000)),
    "short rows": ("NCHW", (1100, 3, 7, 3)),
    "columns": ("NHWC", (1500, 33, 2)),
}
SHORT_WALKS = {
    "long rows": ("NCHW", (2, 3, 3000)),
    "short rows": ("NCHW", (90, 5, 7, 3)),
    "columns": ("NHWC", (250, 33, 2)),
}

# (outer, channels, inner) at the edges of the sum order: runs and rows around 1, 8, 32 and 320, chunks of 65536 samples
# or 1024 rows, more than 64 chunks.
SHAPES = [
    (2, 1, 1), (1, 1, 2), (1, 3, 2), (33, 3, 1), (7, 31, 1), (1023, 32, 1), (1024, 33, 1), (1025, 100, 1),
    (9, 3, 7), (3, 31, 8), (3, 32, 9), (2, 33, 49), (1, 100, 49), (1030, 3, 2), (5, 3, 319), (260, 2, 319),
    (4, 33, 320), (257, 2, 320), (3, 31, 321), (1, 100, 1000), (70, 1, 1000), (1, 2, 65535), (1, 3, 65536),
    (2, 2, 65537), (1, 1, 200001),
    (70001, 3, 1), (67000, 2, 2), (65, 2, 32769),
]  # fmt: skip


def make(family, shape, layout="NCHW", dtype=np.float32):
    """x of the family's values; the same on every run."""
    n, channels, *inner = shape
    rows = families(dtype)[family](rng_of(family, shape), channels, n * int(np.prod(inner)))
    return place(rows, shape, layout, dtype)


def make_gradient(gradient, x, layout="NCHW"):
    """dy for x, with x's layout and dtype."""
    axis = 1 if layout == "NCHW" else x.ndim - 1
    rows = np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1).astype(float)
    shape = np.moveaxis(x, axis, 1).shape
    return place(GRADIENTS[gradient](rng_of(gradient, shape), rows), shape, layout, x.dtype)


def vectors(channels, dtype=np.float64, key="vectors"):
    """A weight with negative, zero and large entries, and a bias, (channels,) each."""
    rng = rng_of(key, channels)
    weight = rng.standard_normal(channels) * 3
    weight[1::5] = 0
    weight[2::7] *= 100
    return weight.astype(dtype), (rng.standard_normal(channels) * 10).astype(dtype)


def named(running_mean, running_var, weight=None, bias=None):
    """Vectors in batch_norm's order, as FrozenBatchNorm takes them."""
    return {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var}


def running(x, layout="NCHW", dtype=np.float64):
    """Running statistics near those of x, as training would have left them."""
    axis = 1 if layout == "NCHW" else x.ndim - 1
    axes = tuple(a for a in range(x.ndim) if a != axis)
    mean, var = x.mean(axis=axes, dtype=float), x.astype(float).var(axis=axes)
    return (mean + 0.1 * np.sqrt(var)).astype(dtype), (1.1 * var).astype(dtype)
