"""The compiled kernels against plain Python, bit by bit: sums in _order's order, the formulas of _algebra."""

import cases
import numpy as np
import pytest

from cpubn import _algebra, _dispatch
from cpubn._epilogue import PLAIN
from cpubn._gradient import NO_PROLOGUE, Statistics
from cpubn.kernels import _order


def fold(lanes):
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = lanes[:half] + lanes[half:]
    return lanes[0]


def sum_of_rows(terms):
    """32 lanes; each run starts at the first."""
    lanes = np.zeros(32)
    for run in terms:
        for start in range(0, len(run), 32):
            block = run[start : start + 32]
            lanes[: len(block)] += block
    return fold(lanes)


def sum_of_columns(terms):
    """One accumulator for each inner position, then 8 lanes over those."""
    columns = np.zeros(terms.shape[1])
    for row in terms:
        columns += row
    if len(columns) == 1:
        return columns[0]
    lanes = np.zeros(8)
    for i, column in enumerate(columns):
        lanes[i % 8] += column
    return fold(lanes)


def in_order(shape, state_of_chunk, merge):
    """The states of all chunks of a channel of (outer, inner), merged into spans and those into one."""
    order = _order.order_of(*shape)
    add = sum_of_columns if order.columns else sum_of_rows
    channel = None
    for first in range(0, order.chunks, order.span):
        span = None
        for k in range(first, min(first + order.span, order.chunks)):
            row, column = k // order.pieces * order.rows, k % order.pieces * order.piece
            state = state_of_chunk((slice(row, row + order.rows), slice(column, column + order.piece)), add)
            span = state if span is None else merge(span, state)
        channel = span if channel is None else merge(channel, span)
    return channel


def moments(x):
    """mean, its low word and m2 of (outer, inner) values."""

    def state_of_chunk(chunk, add):
        part, count = x[chunk], float(x[chunk].size)
        pivot = float(part[0, 0])
        for attempt in range(3):
            d = (part - x.dtype.type(pivot)).astype(float)
            s, q = add(d), add(d * d)
            mean, low, m2 = _algebra.close(count, pivot, s, q)
            if not _algebra.pivot_is_far(s, s / count, m2):
                break
            last, pivot = pivot, _algebra.next_pivot(pivot, s / count, m2, attempt == 0, x.dtype.type)
            if pivot == last:
                break
        return count, mean, low, m2

    return in_order(x.shape, state_of_chunk, lambda a, b: (a[0] + b[0], *_algebra.merge(*a, *b)))[1:]


def gradient_sums(dy, x, mean, low):
    """s0 and s1 of (outer, inner) values."""

    def state_of_chunk(chunk, add):
        g = dy[chunk].astype(float)
        return np.array([add(g), add(g * ((x[chunk].astype(float) - mean) - low))])

    return in_order(x.shape, state_of_chunk, np.add)


def channels(x):
    return (x[:, c] for c in range(x.shape[1]))


def forward(x, moments, weight, bias, eps):
    mean, low, m2 = moments
    real = x.dtype.type
    centre = _algebra.centre(mean, real)
    scale, shift = _algebra.affine(mean, low, m2 / x.size, weight, bias, eps, centre)
    work = np.float64 if _algebra.forward_is_wide(centre, scale, shift) else real
    return ((x - work(centre)) * work(scale) + work(shift)).astype(real)


def backward(dy, x, moments, weight, eps, sums):
    mean, low, m2 = moments
    real = x.dtype.type
    centre = _algebra.centre(mean, real)
    r, s, k, scale = _algebra.gradient(x.size, mean, low, m2 / x.size, weight, eps, centre, *sums)
    work = np.float64 if _algebra.backward_is_wide(centre, r, s, k, scale) else real
    return (work(scale) * ((dy - work(k)) - ((x - work(centre)) * work(r)) * work(s))).astype(real)


SHAPES = [
    (3, 2, 40),
    (5, 3, 300),
    (2, 1, 70001),
    (1, 2, 321),
    (300, 2, 320),
    (1100, 3, 1),
    (66000, 1, 1),
    (40, 9, 7),
    (1, 9, 7),
    (1, 3, 8),
]
SHAPES += [(3, 33, 319), (2000, 2, 3)]
CASES = [("offset 10000", np.float32), ("first far", np.float32), ("ramp", np.float64)]
CASES += [
    (family, np.float32)
    for family in ("largest", "largest but one", "tiny", "mixed scales", "constant", "mostly constant")
]


@pytest.fixture
def kernels(backend):
    """Those of a backend that sums in this order; numpy has its own."""
    if backend == "numpy":
        pytest.skip("numpy's order of summation is its own")
    return _dispatch.kernels(backend)


@pytest.mark.parametrize(("family", "dtype"), CASES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_give_the_bits_of_plain_python(shape, family, dtype, kernels):
    x = cases.make(family, shape, dtype=dtype)
    dy = cases.make_gradient("correlated", x)
    weight, bias = cases.vectors(shape[1])
    stats, sums, y, dx = np.empty((3, shape[1])), np.empty((2, shape[1])), np.empty_like(x), np.empty_like(x)

    with np.errstate(over="ignore", invalid="ignore"):  # a pivot is moved where differences overflow
        expected = np.array([moments(part) for part in channels(x)]).T
    kernels.moments(x, stats, 1)
    np.testing.assert_array_equal(stats, expected)
    kernels.train_forward(x, weight, bias, 1e-5, stats, PLAIN, y, 1)
    np.testing.assert_array_equal(stats, expected)
    for c, (got, part) in enumerate(zip(channels(y), channels(x), strict=True)):
        np.testing.assert_array_equal(got, forward(part, stats[:, c], weight[c], bias[c], 1e-5))

    mean, low = stats[0].copy(), stats[1].copy()
    statistics = Statistics(mean, low, stats[2] / (shape[0] * shape[2]), weight, 1e-5, training=True)
    expected = np.array([gradient_sums(dy[:, c], x[:, c], mean[c], low[c]) for c in range(shape[1])]).T
    kernels.gradient_sums(dy, x, statistics, NO_PROLOGUE, sums, 1)
    np.testing.assert_array_equal(sums, expected)
    kernels.backward(dy, x, statistics, NO_PROLOGUE, sums, dx, 1)
    np.testing.assert_array_equal(sums, expected)
    for c, got in enumerate(channels(dx)):
        expected = backward(dy[:, c], x[:, c], stats[:, c], weight[c], 1e-5, sums[:, c])
        np.testing.assert_array_equal(got, expected)
