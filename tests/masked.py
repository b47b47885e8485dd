"""Batches of which not all elements count, and what they must give: the truth of the elements that do, compacted."""

import cases
import numpy as np
import oracle
from oracle import long

KINDS = (
    "positions",
    "elements",
    "empty channel",
    "lengths",
    "weights",
    "float64 weights",
    "samples",
    "NaN",
    "all of them",
)
WITH_NAN = "NaN", "all of them"


def case(kind, shape, layout, dtype):
    """x and dy, which hold NaN and infinity where they do not count, arguments that say so, and the weights in full."""
    rng = cases.rng_of(kind, shape)
    x = cases.make("offset 100", shape, layout, dtype)
    dy = cases.make_gradient("independent", x, layout)
    how, weights = which(kind, x, layout, rng)
    return *spoilt(x, dy, how, weights, rng), how, weights


def which(kind, x, layout, rng):
    """Arguments that say which elements of x count, and the weights in full."""
    axis = oracle.channel_axis(x, layout)
    positions = tuple(1 if a == axis else n for a, n in enumerate(x.shape))
    mask = rng.random(positions) < 0.6
    how = {"mask": np.squeeze(mask, axis)}
    weights = mask
    if kind in ("elements", "empty channel"):
        weights = rng.random(x.shape) < 0.6
        if kind == "empty channel":
            np.moveaxis(weights, axis, 0)[0] = False
        how = {"mask": weights}
    elif kind == "lengths":
        along = 3 - axis
        lengths = rng.integers(0, x.shape[along] + 1, len(x))
        lengths[0] = x.shape[along]
        steps = np.arange(x.shape[along]).reshape([-1 if a == along else 1 for a in range(3)])
        weights, how = steps < lengths[:, None, None], {"lengths": lengths}
    elif kind in ("weights", "float64 weights"):
        weights = 3 * rng.random(positions if kind == "weights" else x.shape) * (rng.random(positions) < 0.8)
        weights = weights.astype(np.float32 if kind == "weights" else np.float64)
        how = {"weights": weights}
    elif kind == "samples":
        own = rng.integers(0, 4, len(x))
        own[:2] = 2
        weights, how = own.reshape(-1, *[1] * (x.ndim - 1)), {"weights": own}
    elif kind == "NaN":
        weights, how = rng.random(x.shape) < 0.7, {"nan": "omit"}
    elif kind == "all of them":
        own, omitted = 1 + rng.random(x.shape).astype(np.float32), rng.random(x.shape) < 0.9
        weights, how = mask * own * omitted, {"mask": mask, "weights": own, "nan": "omit"}
    return how, np.broadcast_to(weights, x.shape)


def spoilt(x, dy, how, weights, rng):
    """x and dy with NaN and infinity where they do not count."""
    garbage = np.full(x.shape, np.nan, x.dtype)
    if "nan" not in how:
        garbage[rng.random(x.shape) < 0.5] = np.inf
    return np.where(weights > 0, x, garbage), np.where(weights > 0, dy, np.nan).astype(x.dtype)


def channels(a, layout):
    return np.moveaxis(a, oracle.channel_axis(a, layout), 0).reshape(a.shape[oracle.channel_axis(a, layout)], -1)


def moments(x, weights, layout):
    """Mean, variance and sum of weights of each channel, in long double; 0 where nothing counts."""
    rows = []
    for values, own in zip(channels(x, layout), channels(weights, layout), strict=True):
        values, own = long(values[own > 0]), long(own[own > 0])
        count, first = own.sum(), values[:1].sum()
        mean = first + (own * (values - first)).sum() / (count or 1)  # of a constant, that
        rows.append((mean, (own * (values - mean) ** 2).sum() / (count or 1), count))
    return np.array(rows).T


def clean(x, weights, mean, layout):
    """x with means in place of what does not count."""
    return np.where(weights > 0, long(x), oracle.per_channel(mean, x, layout, 0.0))


def backward(dy, x, weights, mean, var, weight, eps, layout):
    """dx, dweight, dbias and their bounds: those of batch norm, each mean being one of what counts."""
    axes = oracle.sample_axes(x, layout)

    def full(v):
        return oracle.per_channel(v, x, layout, 1.0)

    count = np.maximum(channels(long(weights), layout).sum(axis=1), 0)
    share = long(weights) / np.where(full(count) > 0, full(count), 1)
    g = np.where(weights > 0, long(dy), 0)
    scale = full(weight) / np.sqrt(full(var) + eps)
    x_hat = (clean(x, weights, mean, layout) - full(mean)) / np.sqrt(full(var) + eps)
    size = (abs(g) * (1 + abs(x_hat))).sum(axis=axes)
    dx = scale * (g - share * (full(g.sum(axis=axes)) + x_hat * full((g * x_hat).sum(axis=axes))))
    sums = full(abs(g).sum(axis=axes)) + (1 + abs(x_hat)) * full(abs(g * x_hat).sum(axis=axes))
    relative = oracle.precision(x.dtype)
    return oracle.Backward(
        np.where(weights > 0, dx, 0),
        (g * x_hat).sum(axis=axes),
        g.sum(axis=axes),
        np.where(weights > 0, relative * abs(scale) * (abs(g) + share * sums) + oracle.rounding(dx, x.dtype), 0),
        relative * size,
        relative * abs(g).sum(axis=axes),
    )
