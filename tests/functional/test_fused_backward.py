"""Gradients through activations and residuals: the function and the layers against the oracle, on every backend."""

import cases
import numpy as np
import oracle
import pytest
import views

import cpubn

each_activation = pytest.mark.parametrize("activation", cases.ACTIVATIONS, ids=str)
FEW = ("silu",)  # of Numba, which compiles for each of them and each type
SHAPES = [(5, 33), (2, 3, 7), (3, 1, 1, 2), (4, 6, 5, 8), (2, 3, 2, 3, 4), (200, 37, 2)]


def arguments(shape, layout, dtype, activation=None, added=True):
    """dy, x, a residual and vectors, with dy 0 where an activation's derivative jumps."""
    rng, channels = cases.rng_of("fused backward", shape), shape[1]
    size = int(np.prod(shape)) // channels
    dy, x, residual = (cases.place(rng.normal(1, 2, (channels, size)), shape, layout, dtype) for _ in range(3))
    weight, bias = rng.normal(0, 2, (2, channels))
    mean, var = oracle.moments(x, layout)
    vectors = mean.astype(float), var.astype(float), weight, bias
    residual = residual if added else None
    z = oracle.batch_norm(x, *vectors, layout=layout).y + (residual if added else 0)
    for kink in oracle.activation_of(activation).kinks:
        dy[abs(z - kink) < 1e-4] = 0
    return dy, x, residual, vectors


def check(got, dy, x, vectors, activation, residual, training=True, layout="NCHW"):
    expected, g, g_bound = oracle.fused_backward(
        *(dy, x, *vectors, activation, residual), training=training, layout=layout
    )
    assert oracle.worst(got[0], expected.dx, expected.dx_bound) <= 1
    assert oracle.worst(got[1], expected.dweight, expected.dweight_bound) <= 1
    assert oracle.worst(got[2], expected.dbias, expected.dbias_bound) <= 1
    if residual is not None:
        assert oracle.worst(got[3], g, g_bound) <= 1


def activations_of(backend, dtype=np.float32):
    if backend == "numba":
        return FEW if dtype == np.float32 else ()
    return cases.ACTIVATIONS


def backward(dy, x, vectors, **how):
    mean, var, weight, bias = vectors
    return cpubn.batch_norm_backward(dy, x, mean, var, weight, bias=bias, **how)


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_function(shape, layout, dtype, backend):
    for activation in (None, *activations_of(backend, dtype)):
        for added in (True, False) if activation and backend != "numba" else (True,):
            dy, x, residual, vectors = arguments(shape, layout, dtype, activation, added)
            before = [a.copy() for a in (dy, x, *vectors)]
            for training in (True, False):
                got = backward(
                    *(dy, x, vectors),
                    training=training,
                    layout=layout,
                    activation=activation,
                    residual=residual,
                    backend=backend,
                )
                assert len(got) == 3 + added
                assert got[0].dtype == got[-1 if added else 0].dtype == dtype
                assert got[1].dtype == got[2].dtype == np.float64
                check(got, dy, x, vectors, activation, residual, training, layout)
            for a, expected in zip((dy, x, *vectors), before, strict=True):
                np.testing.assert_array_equal(a, expected)


@each_activation
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_the_output_may_be_given(dtype, activation, backend):
    if backend == "numba":
        activation, dtype = "sigmoid", np.float32
    dy, x, residual, vectors = arguments((4, 6, 5, 8), "NCHW", dtype, activation)
    y = cpubn.batch_norm(x, *vectors, activation=activation, residual=residual, backend=backend)
    got = backward(dy, x, vectors, activation=activation, residual=residual, y=y, backend=backend)
    check(got, dy, x, vectors, activation, residual)


@each_activation
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_layers(layout, dtype, activation, backend):
    if backend == "numba":
        activation, dtype = *FEW, np.float32
    for added in (True, False) if backend != "numba" else (True,):
        dy, x, residual, (_, _, weight, bias) = arguments((4, 6, 5, 8), layout, dtype, activation, added)
        bn = cpubn.BatchNorm2d(x.shape[1 if layout == "NCHW" else -1], layout=layout, activation=activation,
                               dtype="float64", backend=backend)  # fmt: skip
        bn.weight[...], bn.bias[...] = weight, bias
        bn(x, residual)
        dx = bn.backward(dy, retain=True)
        mean, var = oracle.moments(x, layout)
        vectors = mean.astype(float), var.astype(float), weight, bias
        got = dx, bn.weight_grad, bn.bias_grad, bn.residual_grad
        assert (bn.residual_grad is None) == (not added)
        check(got, dy, x, vectors, activation, residual, True, layout)
        once = bn.weight_grad.copy()
        np.testing.assert_array_equal(bn.backward(dy), dx)
        np.testing.assert_array_equal(bn.weight_grad, 2 * once)


@each_activation
def test_a_layer_in_eval_mode(activation):
    dy, x, residual, vectors = arguments((4, 6, 5, 8), "NCHW", np.float32, activation)
    bn = cpubn.BatchNorm2d(6, activation=activation, dtype="float64")
    bn.running_mean[...], bn.running_var[...], bn.weight[...], bn.bias[...] = vectors
    bn.eval()(x, residual)
    got = bn.backward(dy), bn.weight_grad, bn.bias_grad, bn.residual_grad
    check(got, dy, x, vectors, activation, residual, training=False)


@each_activation
def test_central_differences_of_a_whole_layer(activation):
    """In float64, of a sum of the outputs, with respect to everything that has a gradient."""
    rng = cases.rng_of("central differences")
    x, residual, dy = rng.standard_normal((3, 3, 2, 4))
    bn = cpubn.BatchNorm1d(2, activation=activation, dtype="float64")
    bn.weight[...], bn.bias[...] = (1.5, -0.7), (0.3, 0.8)
    bn(x, residual)
    dx = bn.backward(dy)
    h = 1e-6
    for array, gradient in [
        (x, dx),
        (residual, bn.residual_grad),
        (bn.weight, bn.weight_grad),
        (bn.bias, bn.bias_grad),
    ]:
        for index in np.ndindex(array.shape):
            kept, losses = array[index], []
            for step in (h, -h):
                array[index] = kept + step
                losses.append((dy * bn(x, residual)).sum())
            array[index] = kept
            assert abs(gradient[index] - (losses[0] - losses[1]) / (2 * h)) < 1e-7


def test_a_residual_alone_passes_the_gradient_on(backend):
    dy, x, residual, _ = arguments((4, 6, 5, 8), "NCHW", np.float32)
    bn = cpubn.BatchNorm2d(6, backend=backend)
    bn(x, residual)
    dx = bn.backward(dy)
    np.testing.assert_array_equal(bn.residual_grad, dy)
    assert not np.may_share_memory(bn.residual_grad, dy)
    bn(x)
    np.testing.assert_array_equal(bn.backward(dy), dx)
    assert bn.residual_grad is None


def test_a_broadcast_residual(backend):
    dy, x, residual, vectors = arguments((4, 6, 5, 8), "NCHW", np.float32)
    residual = np.broadcast_to(residual[:1, :, :1, :1], x.shape)
    got = backward(dy, x, vectors, activation="silu", residual=residual, backend=backend)
    assert got[3].shape == x.shape
    check(got, dy, x, vectors, "silu", residual)


@pytest.mark.parametrize("activation", ["relu", "silu", "sigmoid"])
@pytest.mark.parametrize("name", views.STRIDES)
def test_any_strides(name, activation):
    """Of dy, x and the residual one after the other, in the function and, with out, in a layer."""
    plain = arguments((4, 6, 5, 8), "NCHW", np.float32, activation)[:3]
    bn = cpubn.BatchNorm2d(6, activation=activation)
    bn(*plain[1:])
    expected = bn.backward(plain[0]), bn.residual_grad
    stride = views.STRIDES[name]
    for place in range(3):
        arrays = [stride(a) if i == place else a for i, a in enumerate(plain)]
        bn(*arrays[1:])
        got = bn.backward(arrays[0]), bn.residual_grad
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    if name in views.WRITABLE:
        out = stride(np.zeros_like(plain[0]))
        bn(*plain[1:])
        assert bn.backward(plain[0], out=out) is out
        np.testing.assert_array_equal(out, expected[0])


@pytest.mark.parametrize("activation", [None, *cases.ACTIVATIONS], ids=str)
@pytest.mark.parametrize("added", [True, False])
def test_in_place(added, activation, backend):
    """dx over dy, and over x in the function."""
    if activation not in (None, *activations_of(backend)):
        [activation] = FEW
        added = True
    dy, x, residual, vectors = arguments((4, 6, 5, 8), "NCHW", np.float32, activation, added)
    how = {"activation": activation, "residual": residual, "backend": backend}
    y = cpubn.batch_norm(x, *vectors, **how)
    for training, kept in ((True, None), (True, y), (False, None), (False, y)):
        how |= {"training": training, "y": kept}
        expected = backward(dy, x, vectors, **how)
        for which in range(2):
            given = [dy.copy(), x.copy()]
            got = backward(*given, vectors, **how, out=given[which])
            assert got[0] is given[which]
            for a, b in zip(got, expected, strict=True):
                np.testing.assert_array_equal(a, b)
    bn = cpubn.BatchNorm2d(6, activation=activation, backend=backend)
    bn(x, residual)
    expected_dx, expected_g = bn.backward(dy, retain=True), bn.residual_grad
    assert bn.backward(dy, out=dy) is dy
    np.testing.assert_array_equal(dy, expected_dx)
    if added:
        np.testing.assert_array_equal(bn.residual_grad, expected_g)


@each_activation
def test_where_the_output_is_nan_or_infinite_a_layer_is_the_function(activation):
    """In eval mode, where other samples do not notice: torch hands dy on through a ramp at NaN, and so does this."""
    dy, x, _, vectors = arguments((4, 6, 5, 8), "NCHW", np.float32, activation)
    x[0, 0, 0, :3] = np.nan, np.inf, -np.inf
    dy[0, 0, 0, :3] = 1
    bn = cpubn.BatchNorm2d(6, activation=activation, dtype="float64").eval()
    bn.running_mean[...], bn.running_var[...], bn.weight[...], bn.bias[...] = vectors
    y = bn(x)
    got = bn.backward(dy)
    expected, *_ = backward(dy, x, vectors, training=False, activation=activation)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    given, *_ = backward(dy, x, vectors, training=False, activation=activation, y=y)
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "silu", "sigmoid", None])
@pytest.mark.parametrize("shape", [(0, 3), (2, 3, 0)])
def test_nothing_gives_nothing(shape, activation):
    x = np.empty(shape, np.float32)
    bn = cpubn.BatchNorm1d(3, activation=activation)
    assert bn(x, x.copy()).shape == shape
    assert bn.backward(x).shape == bn.residual_grad.shape == shape
    np.testing.assert_array_equal((bn.weight_grad, bn.bias_grad), 0)
