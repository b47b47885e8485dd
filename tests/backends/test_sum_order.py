"""The compiled kernels against plain Python, bit by bit: sums in the order of order.py, the formulas of algebra.py.

Every function sums one channel, x and g of (outer, inner) values in the type that it is computed in, about a pivot.
"""

from functools import lru_cache

import cases
import numpy as np
import pytest

from cpubn.backends import choice
from cpubn.backends.epilogue import PLAIN
from cpubn.backends.prologue import NO_PROLOGUE, Statistics
from cpubn.maths import algebra
from cpubn.maths.order import order_of

FAR, LOST = 1.25, 2.0**-110


def fold(lanes):
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = lanes[:half] + lanes[half:]
    return lanes[0]


class Lanes:
    """s = sum(g) and q = sum(g * d), in pairs of steps: after at most four additions they go into float64 sums."""

    def __init__(self, count, real):
        self.sums, self.few, self.additions = np.zeros((2, count)), np.zeros((2, count), real), 0

    def flush(self):
        self.sums = self.sums + self.few
        self.few, self.additions = np.zeros_like(self.few), 0

    def add(self, steps):
        """Up to eight steps (d, g)."""
        if self.additions + (len(steps) + 1) // 2 > 4:
            self.flush()
        for first in range(0, len(steps), 2):
            (d, g), *second = steps[first : first + 2]
            s, q = g, g * d
            if second:
                ((e, h),) = second
                s, q = g + h, q + h * e
            self.few = np.stack((self.few[0] + s, q + self.few[1]))
            self.additions += 1


def sum_of_rows(d, g):
    """Inner runs by lanes; what is no whole step stands in the last lanes."""
    count = 128 // d.itemsize
    lanes = Lanes(count, d.dtype)
    for run_d, run_g in zip(d, g, strict=True):
        whole = len(run_d) // count * count
        steps = [(run_d[i : i + count], run_g[i : i + count]) for i in range(0, whole, count)]
        for first in range(0, len(steps), 8):
            lanes.add(steps[first : first + 8])
        rest = len(run_d) - whole
        if rest:
            padded = np.zeros((2, count), d.dtype)
            padded[:, count - rest :] = run_d[whole:], run_g[whole:]
            lanes.add([tuple(padded)])
    lanes.flush()
    return [fold(sums) for sums in lanes.sums]


def sum_of_columns(d, g):
    """A sum for each column, eight rows at a time."""
    lanes = Lanes(d.shape[1], d.dtype)
    for first in range(0, len(d), 8):
        lanes.add(list(zip(d[first : first + 8], g[first : first + 8], strict=True)))
        lanes.flush()
    return lanes.sums


def bounds(n, parts, k):
    return n * k // parts, n * (k + 1) // parts


def sums_of(d, g, order):
    """s and q of a channel: chunks are added up into spans, and those into the channel."""
    total = None
    for first in range(0, order.chunks, order.span):
        span = [0.0, 0.0]
        for k in range(first, min(first + order.span, order.chunks)):
            if not order.columns:
                rows, inner = (
                    bounds(len(d), order.levels, k // order.pieces),
                    bounds(d.shape[1], order.pieces, k % order.pieces),
                )
                chunk = slice(*rows), slice(*inner)
                span = [a + b for a, b in zip(span, sum_of_rows(d[chunk], g[chunk]), strict=True)]
                continue
            for few in zip(*(runs_of(columns, d.shape[1]) for columns in columns_of(d, g, order, k)), strict=True):
                span = [a + b for a, b in zip(span, few, strict=True)]
        total = span if total is None else [a + b for a, b in zip(total, span, strict=True)]
    return total


def columns_of(d, g, order, k):
    """The sums of a chunk's columns: `together` outer rows lie end to end, and the last may be shorter."""
    whole, inner = len(d) // order.together, d.shape[1]
    v0, v1 = bounds(-(-len(d) // order.together), order.levels, k)
    laid = [a[: whole * order.together].reshape(whole, -1)[v0 : min(v1, whole)] for a in (d, g)]
    sums = sum_of_columns(*laid)
    if v1 > whole:
        rest = [a[whole * order.together :].reshape(1, -1) for a in (d, g)]
        sums[:, : rest[0].shape[1]] += sum_of_columns(*rest)
    assert sums.shape[1] == order.together * inner
    return sums


def runs_of(columns, inner):
    """The sum of each `inner` columns: in 16 lanes, which are folded."""
    for run in columns.reshape(-1, inner):
        lanes = np.zeros(16)
        for first in range(0, inner, 16):
            few = run[first : first + 16]
            lanes = lanes + np.pad(few, (0, 16 - len(few)))
        yield fold(lanes)


def pivot_of(x, order):
    """The mean of samples spread over the channel."""
    outer, inner = x.shape
    if order.columns:
        rows = outer // order.together
        wanted = max(8, 64 // (order.together * inner))
        places = -(-wanted * rows // (rows + wanted))
        spread = x[: rows * order.together].reshape(rows, -1)[[k * rows // places for k in range(places)]]
        sums, total = np.zeros(spread.shape[1]), 0.0
        for first in range(0, places, 8):
            few = np.zeros(spread.shape[1], x.dtype)
            for row in spread[first : min(first + 8, places)]:
                few = few + row
            sums += few
        for few in runs_of(sums, inner):
            total += few
        return float(x.dtype.type(total / (places * order.together * inner)))
    count = 128 // x.itemsize
    steps = inner // count
    places = min(outer * steps, 16, max(2, outer * steps // 8))
    sums = np.zeros(count)
    for k in range(places):
        step = outer * steps * k // places
        sums += x[step // steps, step % steps * count :][:count]
    return float(x.dtype.type(fold(sums) / (places * count)))


def moments(x, order):
    """mean, its low word and m2; summed once more about the mean if the pivot was far, or in float64."""
    count, real = float(x.size), x.dtype.type
    pivot, double, again = pivot_of(x, order), real is np.float64, False
    while True:
        work = np.float64 if double else real
        d = x.astype(work) - work(pivot)
        s, q = sums_of(d, d, order)
        offset = s / count
        m2 = q - s * offset
        m2 = 0.0 if m2 < 0.0 else m2
        mean, low = algebra.two_sum(pivot, offset)
        far = not q <= FAR * m2
        lost = real is not np.float64 and (not q < np.inf or q < count * LOST)
        if not double and (lost or (far and again)):
            double, again = True, False
            pivot = pivot if np.isfinite(pivot) else 0.0
        elif far and not again and np.isfinite(mean):
            pivot, again = mean if double else float(real(mean)), True
        else:
            return mean, low, m2 + 0.0 * m2


def gradient_sums(dy, x, mean, low, order):
    """s0 and s1, in float64 where products may have been lost."""
    real, count = x.dtype.type, x.size
    centre = algebra.centre(mean, real)
    s, q = sums_of(x - real(centre), dy, order)
    if real is not np.float64 and not (abs(s) < np.inf and count * LOST <= abs(q) < np.inf):
        first, (s, q) = s, sums_of(x.astype(float) - centre, dy.astype(float), order)
        s = first if np.isfinite(first) else s
    return s, q + ((centre - mean) - low) * s


def channels(x):
    return (x[:, c] for c in range(x.shape[1]))


def forward(x, moments, weight, bias, eps):
    mean, low, m2 = moments
    real = x.dtype.type
    centre = algebra.centre(mean, real)
    scale, shift = algebra.affine(mean, low, m2 / x.size, weight, bias, eps, centre)
    work = np.float64 if algebra.forward_is_wide(centre, scale, shift) else real
    return ((x - work(centre)) * work(scale) + work(shift)).astype(real)


def backward(dy, x, moments, weight, eps, sums):
    mean, low, m2 = moments
    real = x.dtype.type
    centre = algebra.centre(mean, real)
    r, s, k, scale = algebra.gradient(x.size, mean, low, m2 / x.size, weight, eps, centre, *sums)
    work = np.float64 if algebra.backward_is_wide(centre, r, s, k, scale) else real
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
SHAPES += [(3, 33, 319), (2000, 2, 3), (9, 3, 49), (20, 2, 196), (30, 70, 1), (1000, 5, 1), (64, 300, 1), (9, 40, 31)]
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
    return choice.kernels(backend)


@lru_cache(maxsize=2)
def case(shape, family, dtype):
    """x, dy, a weight and a bias; what plain Python makes of them: statistics, y, sums and dx."""
    x = cases.make(family, shape, dtype=dtype)
    dy = cases.make_gradient("correlated", x)
    weight, bias = cases.vectors(shape[1])
    order, y, dx = order_of(*shape), np.empty_like(x), np.empty_like(x)
    with np.errstate(all="ignore"):  # a channel is summed in float64 where differences overflow
        stats = np.array([moments(part, order) for part in channels(x)]).T
        sums = [gradient_sums(dy[:, c], x[:, c], *stats[:2, c], order) for c in range(shape[1])]
    sums = np.transpose(sums)
    for c in range(shape[1]):
        y[:, c] = forward(x[:, c], stats[:, c], weight[c], bias[c], 1e-5)
        dx[:, c] = backward(dy[:, c], x[:, c], stats[:, c], weight[c], 1e-5, sums[:, c])
    return (x, dy, weight, bias), (stats, y, sums, dx)


# The scope has pytest run the backends of one case in turn, so that they share the answer.
@pytest.mark.parametrize(("family", "dtype"), CASES, scope="module")
@pytest.mark.parametrize("shape", SHAPES, ids=str, scope="module")
def test_kernels_give_the_bits_of_plain_python(shape, family, dtype, kernels):
    (x, dy, weight, bias), expected = case(shape, family, dtype)
    stats, y, sums, dx = (np.empty(a.shape, a.dtype) for a in expected)

    kernels.moments(x, stats, 1)
    np.testing.assert_array_equal(stats, expected[0])
    kernels.train_forward(x, weight, bias, 1e-5, stats, PLAIN, y, 1)
    np.testing.assert_array_equal(stats, expected[0])
    np.testing.assert_array_equal(y, expected[1])

    mean, low = stats[0].copy(), stats[1].copy()
    statistics = Statistics(mean, low, stats[2] / (shape[0] * shape[2]), weight, 1e-5, training=True)
    kernels.gradient_sums(dy, x, statistics, NO_PROLOGUE, sums, 1)
    np.testing.assert_array_equal(sums, expected[2])
    kernels.backward(dy, x, statistics, NO_PROLOGUE, sums, dx, 1)
    np.testing.assert_array_equal(sums, expected[2])
    np.testing.assert_array_equal(dx, expected[3])
