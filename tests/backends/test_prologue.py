"""The kernels' prologue: g on the way into a backward is g made beforehand, from z, from the output or from signs."""

import cases
import numpy as np
import oracle
import pytest
import views
from conftest import need_backend

import cpubn
from cpubn.ask import options
from cpubn.backends import choice
from cpubn.backends.epilogue import PLAIN, Activation, Epilogue
from cpubn.backends.prologue import NO_PROLOGUE, PADDING, Bits, Prologue, Statistics, bytes_of
from cpubn.backends.signs import Signs
from cpubn.maths.activations import CODES, TABLE

# (outer, channels, inner): long and short runs, columns, more than one block of numpy's.
SHAPES = [(2, 3, 700), (40, 5, 9), (333, 37, 1), (3, 2, 17000)]
WAYS = "z", "output", "signs"
# Of Numba, which compiles four loops for each of them, each way and each type: those that other tests ask for as well.
FEW = {"z": ("silu", "relu"), "output": ("sigmoid",), "signs": (("leaky_relu", 0.125),)}


@pytest.fixture
def kernels(backend):
    return choice.kernels(backend)


def activations(backend, way):
    return FEW[way] if backend == "numba" else cases.ACTIVATIONS


def case(shape, dtype, activation, added):
    """dy, 0 at kinks, x, a residual, statistics in both modes and a bias; z and its bound."""
    rng, channels = cases.rng_of("prologue", shape), shape[1]
    dy, x, residual = (rng.normal(1, 2, shape).astype(dtype) for _ in range(3))
    weight, bias = rng.normal(0, 2, (2, channels))
    mean, var = (v.astype(float) for v in oracle.moments(x))
    both = [Statistics(mean, 1e-17 * training * mean, var, weight, 1e-5, training) for training in (True, False)]
    plain = oracle.batch_norm(x, mean, var, weight, bias)
    z, bound = plain.y, plain.bound
    if added:
        z, bound = z + oracle.long(residual), bound + oracle.precision(dtype) * abs(z)
    for kink in oracle.activation_of(activation).kinks:
        dy[abs(z - kink) < 1e-4] = 0
    return dy, x, residual if added else None, both, bias, z, bound


def prologue_of(way, kernels, activation, x, residual, statistics, bias):
    """As the data path makes it; None where that is no way for the activation."""
    act = options.activation(activation)
    if way == "z":
        return Prologue(act, bias, residual)
    y = np.empty_like(x)
    batch = np.stack((statistics.mean, 0 * statistics.mean, statistics.var))
    scale = statistics.weight / np.sqrt(batch[2] + statistics.eps)
    centre = batch[0].astype(x.dtype).astype(float)
    shift = bias + (centre - batch[0]) * scale
    kernels.normalize(x, np.stack((centre, scale, shift)), Epilogue(act, residual), y, 1)
    if way == "output":
        of_output = act.of_output(x.dtype)
        return None if of_output is None else Prologue(of_output, kept=y)
    if act.sides is None:
        return None
    signs = Signs.of(y, act.sides, kernels)
    _, channels, inner = x.shape
    return Prologue(signs=Bits(signs.bits, (channels * inner, inner, 1), signs.slope))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_g_on_the_way_is_g_beforehand(shape, dtype, way, kernels, backend):
    """The same bits, whether g is written or not, dx being dy, x or neither; and g is what the oracle has."""
    for activation in activations(backend, way):
        added = way == "z" and activation != "relu"
        dy, x, residual, both, bias, z, bound = case(shape, dtype, activation, added)
        for statistics in both:
            prologue = prologue_of(way, kernels, activation, x, residual, statistics, bias)
            if prologue is None:
                continue
            g, sums, again, dx = np.empty_like(x), *np.empty((2, 2, shape[1])), np.empty_like(x)
            kernels.backward(dy, x, statistics, prologue._replace(g=g), sums, dx, 1)
            expected, off = oracle.activation_gradient(dy, z, bound, activation, dtype)
            assert oracle.worst(g, expected, off) <= 1
            expected_dx = np.empty_like(x)
            kernels.backward(g, x, statistics, NO_PROLOGUE, again, expected_dx, 1)
            np.testing.assert_array_equal(sums, again)
            np.testing.assert_array_equal(dx, expected_dx)
            kernels.gradient_sums(dy, x, statistics, prologue, again, 1)
            np.testing.assert_array_equal(sums, again)
            for place in range(3):
                given = [dy.copy(), x.copy(), np.empty_like(x)]
                kernels.backward(*given[:2], statistics, prologue, again, given[place], 1)
                np.testing.assert_array_equal(sums, again)
                np.testing.assert_array_equal(given[place], expected_dx)


@pytest.mark.parametrize("code", [0, len(TABLE) + 1, -1, CODES["silu"]])
def test_compiled_kernels_refuse_what_they_have_no_formula_for(code):
    need_backend("cython")
    kernels, act = choice.kernels("cython"), Activation(code)
    dy, x, _, (statistics, _), bias, _, _ = case((4, 3, 50), np.float32, None, False)
    y, sums = np.zeros_like(x), np.zeros((2, 3))
    with pytest.raises(ValueError, match="activation must be one that the compiled kernels have, of its output, got"):
        kernels.backward(dy, x, statistics, Prologue(act, kept=x), sums, y, 1)
    if code != CODES["silu"]:  # whose gradient its output does not tell
        with pytest.raises(ValueError, match="activation must be one that the compiled kernels have, got"):
            kernels.backward(dy, x, statistics, Prologue(act, bias), sums, y, 1)
        with pytest.raises(ValueError, match="activation must be one that the compiled kernels have, got"):
            kernels.normalize(x, np.ones((3, 3)), Epilogue(act), y, 1)
    np.testing.assert_array_equal(y, 0)


def test_without_a_prologue_g_is_dy(kernels):
    dy, x, _, both, _, _, _ = case((4, 3, 50), np.float32, None, False)
    sums, dx = np.empty((2, 3)), np.empty_like(x)
    for statistics in both:
        kernels.backward(dy, x, statistics, NO_PROLOGUE, sums, dx, 1)
        expected = oracle.batch_norm_backward(
            dy, x, statistics.mean, statistics.var, statistics.weight, 1e-5, statistics.training
        )
        assert oracle.worst(dx, expected.dx, expected.dx_bound) <= 1
        rstd = 1 / np.sqrt(statistics.var + 1e-5)
        assert oracle.worst(sums[1] * rstd, expected.dweight, expected.dweight_bound) <= 1
        assert oracle.worst(sums[0], expected.dbias, expected.dbias_bound) <= 1


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0), (1, 0, 2), (1, 2, 0)], ids=str)
@pytest.mark.parametrize("shape", [(5, 3, 30), (11, 37, 1), (2, 3, 40000)], ids=str)
@pytest.mark.parametrize("slope", [0.0, 0.25])
def test_signs_of_any_strides(slope, shape, order, kernels):
    """An output may lie in memory otherwise than x."""
    rng = cases.rng_of("signs", shape)
    dy, x = rng.standard_normal((2, *shape)).astype(np.float32)
    is_set = rng.random(shape) < 0.5
    packed = np.packbits(is_set.transpose(order).reshape(-1), bitorder="little")
    bits = np.full(bytes_of(x.size), 255, np.uint8)
    bits[: packed.size] = packed
    steps, step = [0] * 3, 1
    for axis in reversed(order):
        steps[axis], step = step, step * shape[axis]
    mean, var = (v.astype(float) for v in oracle.moments(x))
    dy[0, 0, 0] = np.nan if is_set[0, 0, 0] or slope == 0 else 1
    expected = np.where(is_set, dy, np.float32(slope) * dy if slope else np.float32(0))
    for training in (True, False):
        statistics = Statistics(mean, np.zeros_like(mean), var, np.ones_like(mean), 1e-5, training)
        g, dx, sums = np.empty_like(x), np.empty_like(x), np.empty((2, shape[1]))
        kernels.backward(dy, x, statistics, Prologue(signs=Bits(bits, tuple(steps), slope), g=g), sums, dx, 1)
        np.testing.assert_array_equal(g, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("size", [1, 7, 8, 9, 63, 64, 65, 1000, 32767, 32768, 32769, 100_003])
def test_signs_are_packed_and_their_padding_left_alone(size, dtype, kernels):
    y = cases.rng_of("packed", size).standard_normal(size).astype(dtype)
    y[::5], y[::7] = 0, np.nan
    for low, high, nan in ((0.0, np.nan, True), (0.0, np.nan, False), (-0.5, 0.75, True)):
        bits = np.full(bytes_of(size), 0xA5, np.uint8)
        kernels.pack_signs(y, low, high, nan, bits, 1)
        inside = np.where(np.isnan(y), nan, ~((y <= low) | (y >= high)))
        np.testing.assert_array_equal(bits[:-PADDING], np.packbits(inside, bitorder="little"))
        np.testing.assert_array_equal(bits[-PADDING:], 0xA5)


@pytest.mark.parametrize("activation", ["relu", ("clip", -0.5, 1.25), ("leaky_relu", 0.125)], ids=str)
@pytest.mark.parametrize("x_name", ["contiguous", "channels last", "steps on every axis"])
@pytest.mark.parametrize("name", views.WRITABLE)
def test_a_layer_whose_output_lies_otherwise_than_its_input(name, x_name, activation, backend):
    x, dy = views.make(x_name), views.make("contiguous")[::-1]
    bn = cpubn.BatchNorm2d(6, activation=activation, backend=backend)
    bn(x)
    expected = bn.backward(dy)
    assert bn(x, out=views.STRIDES[name](np.zeros(x.shape, np.float32))).shape == x.shape
    np.testing.assert_array_equal(bn.backward(dy), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_in_inference_a_bad_value_of_x_reaches_dweight_alone(dtype, bad, backend):
    dy, x, _, (_, statistics), _, _, _ = case((4, 3, 50), dtype, None, False)
    given = statistics.mean, statistics.var, statistics.weight
    how = {"training": False, "backend": backend}
    dx, dweight, dbias = cpubn.batch_norm_backward(dy, x, *given, **how)
    x[1, 1, 7] = bad
    got, got_weight, got_bias = cpubn.batch_norm_backward(dy, x, *given, **how)
    np.testing.assert_array_equal(got, dx)
    np.testing.assert_array_equal(got_bias, dbias)
    np.testing.assert_array_equal(got_weight[[0, 2]], dweight[[0, 2]])
    assert not np.isfinite(got_weight[1])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", [None, *cases.ACTIVATIONS], ids=str)
def test_nothing_is_raised_where_numpy_is_told_to_raise(activation, training):
    """Whatever the values: results say what was not finite."""
    rng = cases.rng_of("raise")
    with np.errstate(all="ignore"):
        values = np.array([0, 1e-45, 1e-30, -1e-3, 1, -7, 1e30, -3e38, np.inf, -np.inf, np.nan], np.float32)
        x, dy, residual = (rng.choice(values, (8, 12, 5)) for _ in range(3))
        x[:, :4] = rng.standard_normal((8, 4, 5))
        x[:, 4:6] *= np.float32(1e-30)
    for dtype in (np.float16, np.float32, np.float64):
        with np.errstate(all="ignore"):
            given = [a.astype(dtype) for a in (x, residual, dy)]
        with np.errstate(all="raise"):
            bn = cpubn.BatchNorm1d(12, activation=activation, backend="numpy").train(training)
            y = bn(*given[:2])
            for out in (None, given[2].copy()):
                bn.backward(given[2], out=out, retain=True)
            m = cpubn.moments(given[0], backend="numpy")
            cpubn.batch_norm_backward(
                *(given[2], given[0], m, m.var()),
                training=training,
                activation=activation,
                residual=given[1],
                y=y,
                backend="numpy",
            )


def test_in_inference_dx_is_dy_as_normalize_scales_it(kernels):
    dy, x, _, (_, statistics), _, _, _ = case((4, 3, 50), np.float32, None, False)
    scale = statistics.weight / np.sqrt(statistics.var + 1e-5)
    sums, dx, expected = np.empty((2, 3)), np.empty_like(x), np.empty_like(x)
    kernels.backward(dy, x, statistics, NO_PROLOGUE, sums, dx, 1)
    kernels.normalize(dy, np.stack((0 * scale, scale, 0 * scale)), PLAIN, expected, 1)
    np.testing.assert_array_equal(dx, expected)
