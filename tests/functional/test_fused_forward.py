"""y = act(affine(x) + residual) against the oracle: every activation, type, layout, rank and mode, on every backend."""

from functools import lru_cache, partial

import cases
import drawn
import numpy as np
import oracle
import pytest
import views
from hypothesis import given, strategies as st

import cpubn
from cpubn.ask import options
from cpubn.backends import host
from cpubn.backends.compiled import variants
from cpubn.backends.epilogue import Epilogue

each_activation = pytest.mark.parametrize("activation", cases.ACTIVATIONS, ids=str)
# Of Numba, which compiles for each of them and each type.
FEW = ("gelu",)
# From less than a vector register holds to several threads' worth; every rank, as rows and as columns.
SHAPES = [(1, 1), (1, 3), (3, 1), (5, 33), (2, 3, 7), (1, 1, 1), (1, 64, 1, 1), (4, 6, 5, 8), (2, 3, 2, 3, 4)]
SHAPES += [(3, 32, 14, 14), (200, 65, 2)]


def arguments(shape, layout, dtype, key="fused"):
    """x, whose activated values lie on all sides of the kinks, with a residual and parameters for it."""
    rng, channels = cases.rng_of(key, shape), shape[1]
    size = int(np.prod(shape)) // channels
    x, residual = (cases.place(rng.normal(1, 3, (channels, size)), shape, layout, dtype) for _ in range(2))
    mean, var = rng.standard_normal(channels), rng.uniform(0.5, 9, channels)
    weight, bias = rng.normal(0, 2, (2, channels))
    return x, residual, (mean, var, weight, bias)


def check(got, plain, activation, residual):
    within(got, oracle.fused(plain, activation, residual, got.dtype, got.dtype if got.dtype == float else np.float32))


def within(got, expected):
    assert oracle.worst(got, expected.y, expected.bound) <= 1


@lru_cache(maxsize=2)
def plain_of(shape, layout, dtype, training):
    x, residual, (*statistics, weight, bias) = arguments(shape, layout, dtype)
    return oracle.batch_norm(x, *((None, None) if training else statistics), weight, bias, layout=layout), residual


@lru_cache(maxsize=64)
def expected_of(shape, layout, dtype, training, activation, added):
    """The oracle's answer for `arguments` of these, which the backends share."""
    plain, residual = plain_of(shape, layout, dtype, training)
    return oracle.fused(plain, activation, residual if added else None, dtype, dtype)


# The scope has pytest run the backends of one case in turn, for that.
each = partial(pytest.mark.parametrize, scope="module")


def activations_of(backend, dtype=np.float32):
    if backend == "numba":
        return FEW if dtype == np.float32 else ()
    return cases.ACTIVATIONS


@each("dtype", cases.DTYPES)
@each("layout", ["NCHW", "NHWC"])
@each("shape", SHAPES, ids=str)
def test_inference(shape, layout, dtype, backend):
    x, residual, vectors = arguments(shape, layout, dtype)
    before = x.copy(), residual.copy()
    for activation in activations_of(backend, dtype):
        frozen = cpubn.FrozenBatchNorm(**cases.named(*vectors), layout=layout, activation=activation, backend=backend)
        for added in (None, residual):
            got = cpubn.batch_norm(x, *vectors, layout=layout, activation=activation, residual=added, backend=backend)
            assert got.dtype == dtype
            within(got, expected_of(shape, layout, dtype, False, activation, added is not None))
            np.testing.assert_array_equal(frozen(x, added), got)
    got = cpubn.batch_norm(x, *vectors, layout=layout, residual=residual, backend=backend)
    within(got, expected_of(shape, layout, dtype, False, None, True))
    np.testing.assert_array_equal((x, residual), before)


@each("dtype", cases.DTYPES)
@each("layout", ["NCHW", "NHWC"])
@each("shape", [shape for shape in SHAPES if np.prod(shape) > shape[1]], ids=str)
def test_training(shape, layout, dtype, backend):
    x, residual, (_, _, weight, bias) = arguments(shape, layout, dtype)
    expected_running = np.zeros(shape[1]), np.ones(shape[1])
    cpubn.batch_norm(x, *expected_running, weight, bias, True, layout=layout, backend=backend)
    for activation in activations_of(backend, dtype):
        for added in (None, residual):
            running = np.zeros(shape[1]), np.ones(shape[1])
            got, moments = cpubn.batch_norm(
                *(x, *running, weight, bias, True),
                layout=layout,
                activation=activation,
                residual=added,
                backend=backend,
                return_moments=True,
            )
            within(got, expected_of(shape, layout, dtype, True, activation, added is not None))
            np.testing.assert_array_equal(running, expected_running)
            np.testing.assert_array_equal(moments.mean, cpubn.moments(x, layout=layout, backend=backend).mean)


@each_activation
def test_the_layers_are_the_function(activation):
    for make, shape in [(cpubn.BatchNorm1d, (9, 6)), (cpubn.BatchNorm1d, (9, 6, 4)), (cpubn.BatchNorm2d, (5, 6, 4, 7)),
                        (cpubn.BatchNorm3d, (2, 6, 3, 2, 2))]:  # fmt: skip
        x, residual, (_, _, weight, bias) = arguments(shape, "NCHW", np.float32)
        bn = make(6, activation=activation)
        bn.weight[...], bn.bias[...] = weight, bias
        how = {"activation": activation, "residual": residual}
        for mode in (True, False):
            bn.train(mode)
            running = bn.running_mean.copy(), bn.running_var.copy()
            expected = cpubn.batch_norm(x, *running, bn.weight, bn.bias, mode, **how)
            np.testing.assert_array_equal(bn(x, residual), expected)
        np.testing.assert_array_equal(bn.freeze()(x, residual), bn(x, residual))


@pytest.mark.parametrize("activation", [None, *cases.ACTIVATIONS], ids=str)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_every_instruction_set(dtype, activation, isa):
    """The bits of the default one, in vectors and in what is left of a row."""
    for shape in (2, 3, 77), (45, 70, 1):
        x, residual, vectors = arguments(shape, "NCHW", dtype)
        affine = host.affine(np.dtype(dtype), (vectors[0], None, vectors[1]), *vectors[2:], 1e-5)
        epilogue = Epilogue(options.activation(activation), residual)
        got = np.empty_like(x)
        variants.load(isa).normalize(x, affine, epilogue, got, 1)
        expected = cpubn.batch_norm(x, *vectors, activation=activation, residual=residual, backend="cython")
        np.testing.assert_array_equal(got, expected)


@each_activation
@pytest.mark.parametrize("training", [True, False])
def test_nan_and_infinity_stay_in_their_channels(activation, training, backend):
    if activation not in activations_of(backend):
        [activation] = FEW
    x, residual, (mean, var, weight, bias) = arguments((4, 6, 5, 8), "NCHW", np.float32)
    expected = cpubn.batch_norm(x, mean, var, weight, bias, training, activation=activation, backend=backend)
    x[1, 2, 3, 4], x[2, 4, 0, 0] = np.nan, np.inf
    got = cpubn.batch_norm(x, mean, var, weight, bias, training, activation=activation, backend=backend)
    others = [0, 1, 3, 5]
    np.testing.assert_array_equal(got[:, others], expected[:, others])
    assert np.isnan(got[1, 2, 3, 4])
    if training:
        assert np.isnan(got[:, 2]).all()
    residual[...] = 0
    residual[0, 0, 0, 0] = np.nan
    got = cpubn.batch_norm(x, mean, var, activation=activation, residual=residual, backend=backend)
    assert np.isnan(got[0, 0]).sum() == 1


@each_activation
def test_the_largest_floats(activation, backend):
    """Where the affine value itself is finite, so is what is promised of the activation of it."""
    if activation not in activations_of(backend):
        [activation] = FEW
    x = cases.make("largest", (3, 4, 50))
    for training in (True, False):
        mean, var = (None, None) if training else (np.zeros(4), np.ones(4))
        plain = oracle.batch_norm(x, mean, var)
        got = cpubn.batch_norm(x, mean, var, training=training, activation=activation, backend=backend)
        check(got, plain, activation, None)
    # The scale is not a normal float32 here, so that a channel is applied in float64.
    tiny = np.full(4, 1e-44), np.zeros(4)
    got = cpubn.batch_norm(x, np.zeros(4), np.ones(4), *tiny, eps=0, activation=activation, backend=backend)
    check(got, oracle.batch_norm(x, np.zeros(4), np.ones(4), *tiny, eps=0), activation, None)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4), (2, 3, 0, 4), (2, 0, 3), (0, 3, 1, 1, 1)])
def test_nothing_gives_nothing(shape, layout, backend):
    channels = shape[1 if layout == "NCHW" else -1]
    x = np.empty(shape, np.float32)
    running = np.full(channels, 2.0), np.full(channels, 3.0)
    for training in (True, False):
        got = cpubn.batch_norm(
            x, *running, training=training, layout=layout, activation="relu", residual=x.copy(), backend=backend
        )
        assert got.shape == shape
    np.testing.assert_array_equal(running[0], 2)
    bn = cpubn.FrozenBatchNorm(**cases.named(*running), layout=layout, activation="relu", backend=backend)
    assert bn(x, x.copy()).shape == shape


def test_a_list_and_a_tuple_name_the_same_activation():
    x = np.linspace(-3, 3, 12, dtype=np.float32).reshape(4, 3)
    running = np.zeros(3), np.ones(3)
    expected = cpubn.batch_norm(x, *running, activation=("leaky_relu", 0.2))
    np.testing.assert_array_equal(cpubn.batch_norm(x, *running, activation=["leaky_relu", 0.2]), expected)
    np.testing.assert_array_equal(
        cpubn.batch_norm(x, *running, activation=("relu",)), cpubn.batch_norm(x, *running, activation="relu")
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", [*views.STRIDES, *views.BROADCAST])
def test_any_strides_of_the_residual(name, training, backend):
    """And of x beside it: what counts are the values."""
    residual = views.make(name)
    for x in (views.make("contiguous"), views.make("channels last"), views.make(name)):
        how = {"training": training, "activation": "gelu", "backend": backend}
        running = np.full(6, 10.0), np.ones(6)
        expected = cpubn.batch_norm(x.astype("f4"), *running, residual=residual.astype("f4"), **how)
        running = np.full(6, 10.0), np.ones(6)
        got = cpubn.batch_norm(x, *running, residual=residual, **how)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@drawn.examples(60)
@given(data=st.data())
def test_random(backend, data):
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=2, max_size=5)))
    layout = data.draw(st.sampled_from(["NCHW", "NHWC"]))
    dtype = data.draw(st.sampled_from(cases.DTYPES[: 1 if backend == "numba" else 2]))
    activation = data.draw(st.sampled_from(activations_of(backend)))
    x, residual, vectors = arguments(shape, layout, dtype, data.draw(st.integers(0, 100)))
    orders = [tuple(data.draw(st.permutations(range(x.ndim)))) for _ in range(2)]
    steps = [data.draw(st.sampled_from([1, 1, 2, -1])) for _ in range(x.ndim)]
    x, residual = views.in_order(x, orders[0]), views.stepped(views.in_order(residual, orders[1]), *steps)
    got = cpubn.batch_norm(x, *vectors, layout=layout, activation=activation, residual=residual, backend=backend)
    assert views.keeps_order(got, x)
    check(got, oracle.batch_norm(x, *vectors, layout=layout), activation, residual)
