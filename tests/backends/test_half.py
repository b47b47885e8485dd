"""float16 and bfloat16: every pattern through load and store, rounding to nearest even, float32 arithmetic between."""

import cases
import numpy as np
import oracle
import pytest
import views
from conftest import need_library
from test_fused_backward import arguments, backward, check as check_backward

import cpubn
from cpubn.backends.compiled import variants
from cpubn.backends.epilogue import Epilogue

FEW = ("silu",)  # of Numba, which compiles for each of them and each type


@pytest.fixture(params=["float16", "bfloat16"])
def half(request):
    """A half type."""
    if request.param == "float16":
        return np.dtype(np.float16)
    need_library("ml_dtypes", "half")
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def every_pattern(half):
    return np.arange(2**16, dtype=np.uint32).astype(np.uint16).view(half)


def singles(half):
    """float32 numbers on, between, and next to the numbers of a half type, and everywhere else."""
    with np.errstate(all="ignore"):
        numbers = every_pattern(half).astype(np.float32)
        numbers = np.sort(numbers[np.isfinite(numbers)])
        ties = (numbers[1:].astype(float) + numbers[:-1]) / 2
        ties = np.concatenate([ties, 2 * numbers[[0, -1]].astype(float) - numbers[[1, -2]]]).astype(np.float32)
        beside = [np.nextafter(ties, np.float32(to)) for to in (-np.inf, np.inf)]
        # Half a step beyond the largest number, from where on there is infinity.
        edge = numbers[-1].astype(float) + (numbers[-1].astype(float) - numbers[-2]) / 2
        edges = np.array([edge, np.nextafter(np.float32(edge), np.float32(0)), 3.4028235e38], np.float32)
    everywhere = cases.rng_of("singles").integers(0, 2**32, 100_000, dtype=np.uint64).astype(np.uint32)
    special = np.array([np.inf, -np.inf, np.nan, -np.nan, 0.0, -0.0, 1e-45, -1e-45], np.float32)
    payloads = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0x7FC00000, 0x7F80FFFF], np.uint32).view(np.float32)
    return np.concatenate([numbers, ties, *beside, edges, -edges, special, payloads, everywhere.view(np.float32)])


def cast(x, dtype):
    with np.errstate(all="ignore"):
        return x.astype(dtype)


def identity(x, dtype, backend):
    """x, as one channel, by a batch norm that changes nothing."""
    return cpubn.batch_norm(x.reshape(-1, 1), np.zeros(1), np.ones(1), eps=0, dtype=dtype, backend=backend).ravel()


def same(got, expected):
    """Of floats: NaN where NaN is expected, and otherwise the same number."""
    np.testing.assert_array_equal(cast(got, np.float32), cast(expected, np.float32))


def test_every_pattern_goes_through(half, backend):
    x = every_pattern(half)
    got = identity(x, None, backend)
    assert got.dtype == half
    same(got, x)
    same(identity(x, "float32", backend), x)


def test_rounding_is_to_nearest_even(half, backend):
    x = singles(half)
    got = identity(x, half.name, backend)
    assert got.dtype == half
    same(got, cast(x, half))


@pytest.mark.parametrize(
    "shape", [(-1, 1, 1), (1, 1, -1), (1, -1, 1)], ids=["columns of one", "a row", "a long column"]
)
def test_every_instruction_set_loads_and_rounds(shape, half, isa):
    """Whole vectors, what is left beside them, and a CPU without the conversions."""
    normalize = variants.load(isa).normalize
    for x in (every_pattern(half), singles(half)):
        for cut in (0, 1, 5):
            part = x[cut:].reshape(shape)
            affine = np.repeat([[0.0], [1.0], [0.0]], part.shape[1], axis=1)
            got = np.empty(part.shape, half)
            normalize(part, affine, Epilogue(), got, 1)
            same(got, cast(part, half))
            if x.dtype == half:
                wide = np.empty(part.shape, np.float32)
                normalize(part, affine, Epilogue(), wide, 1)
                same(wide, part)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("shape", [(1, 3), (5, 33), (4, 6, 5, 8), (3, 32, 14, 14)], ids=str)
def test_inference_is_that_of_float32_rounded_once(shape, layout, half, backend):
    _, x, residual, vectors = arguments(shape, layout, half)
    for activation in (None, *(FEW if backend == "numba" else cases.ACTIVATIONS)):
        for added in (None, residual) if activation else (None,):
            how = {"layout": layout, "activation": activation, "backend": backend}
            got = cpubn.batch_norm(x, *vectors, residual=added, **how)
            assert got.dtype == half
            wide = None if added is None else added.astype(np.float32)
            expected = cpubn.batch_norm(x.astype(np.float32), *vectors, residual=wide, **how)
            same(got, cast(expected, half))
            out = np.empty_like(x)
            assert cpubn.FrozenBatchNorm(**cases.named(*vectors), **how)(x, added, out) is out
            same(out, got)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("shape", [(2, 3), (5, 33), (4, 6, 5, 8), (200, 37, 2)], ids=str)
def test_training(shape, layout, half, backend):
    """The statistics are float64 sums of the samples as they are."""
    _, x, residual, (_, _, weight, bias) = arguments(shape, layout, half)
    channels = x.shape[1 if layout == "NCHW" else -1]
    for activation in (None, *(FEW if backend == "numba" else ("relu", "gelu"))):
        plain = oracle.batch_norm(x, None, None, weight, bias, layout=layout, dtype=np.float32)
        expected = oracle.fused(plain, activation, residual if activation else None, half)
        running = np.zeros(channels), np.zeros(channels)
        got, moments = cpubn.batch_norm(
            *(x, *running, weight, bias, True, 1.0),
            layout=layout,
            activation=activation,
            residual=residual if activation else None,
            return_moments=True,
            backend=backend,
        )
        assert got.dtype == half
        assert oracle.worst(got.astype(np.float32), expected.y, expected.bound) <= 1
        mean_bound, var_bound = oracle.moments_bounds(plain.mean, plain.var, np.float32)
        for a in (moments, cpubn.moments(x, layout=layout, backend=backend)):
            assert oracle.worst(a.mean, plain.mean, mean_bound) <= 1
            assert oracle.worst(a.var(), plain.var, var_bound) <= 1
        np.testing.assert_array_equal(running[0], moments.mean)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_backward(layout, half, backend):
    for activation in (None, *(FEW if backend == "numba" else cases.ACTIVATIONS)):
        for added in (False,) if activation is None else (True,) if backend == "numba" else (True, False):
            dy, x, residual, vectors = arguments((4, 6, 5, 8), layout, half, activation, added)
            for training in (True, False):
                how = {"training": training, "layout": layout, "activation": activation, "residual": residual}
                got = backward(dy, x, vectors, **how, backend=backend)
                assert got[0].dtype == got[-1 if added else 0].dtype == half
                assert got[1].dtype == got[2].dtype == np.float64
                check_backward(got, dy, x, vectors, activation, residual, training, layout)


@pytest.mark.parametrize("activation", [None, "relu", ("clip", -0.5, 1.25), "sigmoid", "tanh", "gelu"], ids=str)
def test_layers(activation, half):
    dy, x, residual, (_, _, weight, bias) = arguments((4, 6, 5, 8), "NCHW", half, activation)
    residual = residual if activation else None
    if activation:  # where the output was rounded to a kink, its derivative is that of the kink
        wide = cpubn.batch_norm(x, None, None, weight, bias, True, residual=residual).astype(np.float32)
        for kink in oracle.activation_of(activation).kinks:
            dy[abs(wide - kink) <= 0.01 * abs(kink)] = 0
    bn = cpubn.BatchNorm2d(6, activation=activation, dtype="float64")
    bn.weight[...], bn.bias[...] = weight, bias
    y = bn(x, residual)
    assert y.dtype == half
    dx = bn.backward(dy)
    assert dx.dtype == half
    assert bn.running_mean.dtype == bn.weight_grad.dtype == np.float64
    mean, var = oracle.moments(x)
    expected = cpubn.batch_norm_backward(
        dy.astype("f4"), x.astype("f4"), mean.astype(float), var.astype(float), weight, bias=bias,
        activation=activation, residual=None if residual is None else residual.astype("f4"),
    )  # fmt: skip
    # Of an output y that was rounded, the derivative is y * (1 - y) or 1 - y * y.
    step = 4 * oracle.HALF_A_BIT[half.name][0]
    np.testing.assert_allclose(dx.astype("f4"), expected[0], rtol=step, atol=20 * step)
    if residual is not None:
        np.testing.assert_allclose(bn.residual_grad.astype("f4"), expected[3], rtol=step, atol=abs(dy).max() * step)
    bn.eval()
    assert bn(x, residual).dtype == bn.freeze()(x, residual).dtype == half
    same(bn.freeze()(x, residual), bn(x, residual))


@pytest.mark.parametrize("name", [*views.STRIDES, *views.BROADCAST])
def test_any_strides(name, half, backend):
    if half.name == "bfloat16" and name.startswith("byte-swapped"):
        half = np.dtype(np.float16)  # ml_dtypes has no other byte order
    x = views.make(name, half)
    for training in (True, False):
        running = np.full(6, 10.0), np.ones(6)
        expected = cpubn.batch_norm(x.astype(np.float32), *running, training=training, backend=backend)
        running = np.full(6, 10.0), np.ones(6)
        got = cpubn.batch_norm(x, *running, training=training, backend=backend)
        assert got.dtype == half
        assert views.keeps_order(got, x)
        np.testing.assert_allclose(got.astype("f4"), expected, rtol=3 * oracle.HALF_A_BIT[half.name][0], atol=1e-5)
        if name in views.WRITABLE and not training:
            out = views.make(name, half)
            assert cpubn.batch_norm(out, *running, out=out, backend=backend) is out


def test_float16_overflows_to_infinity_without_a_warning(backend):
    x = np.array([[60000.0], [-60000.0], [1.0]], np.float16)
    got = cpubn.batch_norm(x, np.zeros(1), np.ones(1), np.full(1, 2.0), eps=0, backend=backend)
    np.testing.assert_array_equal(got, [[np.inf], [-np.inf], [2]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("activation", [("clip", -1e300, 1e300), ("leaky_relu", 1e300)], ids=str)
def test_a_parameter_beyond_the_type_is_infinite(activation, dtype):
    """In a layer, in the function, and there with the output given."""
    x = np.array([[1.0], [2.0]], dtype)
    bn = cpubn.BatchNorm1d(1, activation=activation).eval()
    y = bn(x)
    expected = cpubn.BatchNorm1d(1).eval()(x)
    np.testing.assert_array_equal(y, expected)
    dx = bn.backward(x)
    for given in (None, y):
        got, *_ = cpubn.batch_norm_backward(
            x, x, np.zeros(1), np.ones(1), activation=activation, training=False, y=given
        )
        np.testing.assert_array_equal(got, dx)
    np.testing.assert_allclose(dx, expected, rtol=1e-3)


def test_a_bound_of_clip_is_rounded_once_in_forward_and_backward():
    """1 + 2**-11 + 2**-40 is above a tie of float16, and on it in float32."""
    high = 1 + 2.0**-11 + 2.0**-40
    x, dy = np.array([[3.0], [0.5]], np.float16), np.ones((2, 1), np.float16)
    bn = cpubn.BatchNorm1d(1, eps=1e-30, activation=("clip", 0, high)).eval()
    y = bn(x)
    np.testing.assert_array_equal(bn.backward(dy), [[0], [1]])
    statistics = np.zeros(1), np.ones(1)
    for given in (None, y):
        got, *_ = cpubn.batch_norm_backward(dy, x, *statistics, activation=bn.activation, training=False, y=given)
        np.testing.assert_allclose(got, [[0], [1]], rtol=1e-3)


def test_the_largest_numbers_of_float16_have_finite_statistics(backend):
    x = np.array([[65504.0], [-65504.0]] * 50, np.float16)
    got = cpubn.batch_norm(x, None, None, training=True, backend=backend)
    np.testing.assert_array_equal(got, np.sign(x))
