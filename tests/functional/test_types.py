"""Integer input, and output of another type or layout than the input: what is true of it, in one pass."""

import itertools

import cases
import numpy as np
import oracle
import pytest
import views

import cpubn

INTEGERS = [np.uint8, np.int8, np.uint16, np.int16]
LAYOUTS = ["NCHW", "NHWC"]
# Every rank, with batches of none, one and several.
SHAPES = [
    (1, 3),
    (7, 3),
    (1, 3, 5),
    (4, 5, 9),
    (1, 3, 37, 41),
    (3, 4, 6, 5),
    (1, 1, 1, 1),
    (5, 70, 3, 3),
    (2, 3, 2, 3, 4),
]


def moved(a, layout, other):
    """`a` in another layout."""
    return np.moveaxis(a, *{("NCHW", "NHWC"): (1, -1), ("NHWC", "NCHW"): (-1, 1)}.get((layout, other), (0, 0)))


def integers(shape, dtype):
    limits = np.iinfo(dtype)
    x = cases.rng_of("integers", shape).integers(limits.min, limits.max, shape, dtype, endpoint=True)
    x.flat[:2] = (limits.min, limits.max)[: x.size]
    return x


def statistics(channels):
    rng = cases.rng_of("types", channels)
    return rng.normal(100, 50, channels), rng.uniform(10, 5000, channels), *cases.vectors(channels)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_integers(shape, layout, dtype, backend):
    x = integers(shape, dtype)
    channels = shape[1 if layout == "NCHW" else -1]
    vectors = statistics(channels)
    before = x.copy()
    for out_layout in LAYOUTS:
        how = {"layout": layout, "out_layout": out_layout, "dtype": "float32", "backend": backend}
        expected = oracle.batch_norm(x, *vectors, layout=layout, dtype=np.float32)
        got = cpubn.batch_norm(x, *vectors, **how)
        assert got.dtype == np.float32
        assert got.shape == moved(x, layout, out_layout).shape
        assert oracle.worst(moved(got, out_layout, layout), expected.y, expected.bound) <= 1
        frozen = cpubn.FrozenBatchNorm(**cases.named(*vectors), **how)
        np.testing.assert_array_equal(frozen(x), got)
        out = np.empty_like(got)
        assert frozen(x, out=out) is cpubn.batch_norm(x, *vectors, **how, out=out) is out
        np.testing.assert_array_equal(out, got)
    np.testing.assert_array_equal(x, before)


def test_an_image(backend):
    image = integers((48, 65, 3), np.uint8)
    mean, std = np.array([123.7, 116.3, 103.5]), np.array([58.4, 57.1, 57.4])
    got = cpubn.batch_norm(
        image[None], mean, std**2, layout="NHWC", dtype="float32", out_layout="NCHW", eps=0, backend=backend
    )
    assert got.shape == (1, 3, 48, 65)
    assert got.flags.c_contiguous
    np.testing.assert_allclose(got[0], ((image - mean) / std).transpose(2, 0, 1), rtol=1e-6, atol=1e-6)


def test_a_trained_first_layer_takes_bytes_once_frozen(backend):
    images = integers((4, 9, 11, 3), np.uint8)
    bn = cpubn.BatchNorm2d(3, layout="NHWC", backend=backend)
    bn.weight[...], bn.bias[...] = [1, -2, 0.5], [0, 1, -1]
    bn(images.astype(np.float32))
    frozen = bn.freeze(dtype="float32", out_layout="NCHW")
    assert (frozen.dtype, frozen.layout, frozen.out_layout) == (np.float32, "NHWC", "NCHW")
    got = frozen(images)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    vectors = bn.running_mean, bn.running_var, bn.weight, bn.bias
    expected = oracle.batch_norm(images, *vectors, layout="NHWC", dtype=np.float32)
    assert oracle.worst(moved(got, "NCHW", "NHWC"), expected.y, expected.bound) <= 1


@pytest.mark.parametrize("dtype", INTEGERS)
def test_every_integer(dtype, backend):
    limits = np.iinfo(dtype)
    x = np.arange(limits.min, limits.max + 1).astype(dtype).reshape(-1, 1)
    for kind in ("float32", "float64"):
        got = cpubn.batch_norm(x, np.zeros(1), np.ones(1), eps=0, dtype=kind, backend=backend)
        np.testing.assert_array_equal(got, x)
        assert got.dtype == kind


@pytest.mark.parametrize("dtype", INTEGERS)
def test_moments_of_integers(dtype, backend):
    x = integers((300, 5, 7), dtype)
    got = cpubn.moments(x, backend=backend)
    np.testing.assert_allclose(got.mean, x.mean((0, 2)), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(got.var(), x.astype(float).var((0, 2)), rtol=1e-12)
    _, besides = cpubn.batch_norm(x, got.mean, got.var(), dtype="float32", return_moments=True, backend=backend)
    for name in ("mean", "low", "m2"):
        np.testing.assert_array_equal(getattr(besides, name), getattr(got, name))


@pytest.mark.parametrize("given_as", ["float16", "float32", "float64"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_floats_of_another_type_and_layout(layout, dtype, given_as, backend):
    for shape in SHAPES:
        x = (cases.rng_of(shape).standard_normal(shape) * 3).astype(given_as)
        vectors = statistics(shape[1 if layout == "NCHW" else -1])
        for out_layout in LAYOUTS:
            how = {"layout": layout, "out_layout": out_layout, "dtype": dtype, "backend": backend}
            got = cpubn.batch_norm(x, *vectors, **how)
            assert got.dtype == dtype
            expected = oracle.batch_norm(x.astype(max(given_as, dtype)), *vectors, layout=layout)
            with np.errstate(over="ignore"):
                bound = expected.bound + oracle.rounding(expected.y, dtype) + 2.0**-24 * abs(expected.y)
            assert oracle.worst(moved(got, out_layout, layout), expected.y, bound) <= 1
            frozen = cpubn.FrozenBatchNorm(**cases.named(*vectors), **how)
            np.testing.assert_array_equal(frozen(x), got)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_activation_and_residual_beside_them(layout, dtype, backend):
    """The residual has y's layout and type."""
    activation = "gelu" if backend == "numba" else "silu"
    for shape, out_layout in itertools.product(SHAPES, LAYOUTS):
        x = integers(shape, dtype)
        vectors = statistics(shape[1 if layout == "NCHW" else -1])
        residual = cases.rng_of("residual").standard_normal(moved(x, layout, out_layout).shape).astype(np.float32)
        got = cpubn.batch_norm(
            *(x, *vectors),
            layout=layout,
            out_layout=out_layout,
            dtype="float32",
            backend=backend,
            activation=activation,
            residual=residual,
        )
        plain = oracle.batch_norm(x, *vectors, layout=layout, dtype=np.float32)
        expected = oracle.fused(plain, activation, moved(residual, out_layout, layout))
        assert oracle.worst(moved(got, out_layout, layout), expected.y, expected.bound) <= 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_training_writes_another_type_and_layout_too(layout, backend):
    for shape, out_layout in itertools.product([(7, 3), (4, 5, 9), (3, 4, 6, 5), (2, 3, 2, 3, 4)], LAYOUTS):
        x = cases.make("offset 1", shape, layout)
        running = np.zeros(shape[1]), np.ones(shape[1])
        expected = cpubn.batch_norm(x, *(v.copy() for v in running), training=True, layout=layout, backend=backend)
        got = cpubn.batch_norm(
            x, *running, training=True, layout=layout, out_layout=out_layout, dtype="float64", backend=backend
        )
        assert got.dtype == np.float64
        assert running[0].any()
        np.testing.assert_allclose(moved(got, out_layout, layout), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (0, 3), (2, 3, 0, 4), (2, 0, 3)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_gives_nothing(layout, shape, backend):
    x = np.empty(shape, np.uint8)
    channels = shape[1 if layout == "NCHW" else -1]
    for out_layout in LAYOUTS:
        got = cpubn.batch_norm(
            *(x, np.zeros(channels), np.ones(channels)),
            layout=layout,
            out_layout=out_layout,
            dtype="float16",
            backend=backend,
        )
        assert got.shape == moved(x, layout, out_layout).shape
        assert got.dtype == np.float16


@pytest.mark.parametrize("out_layout", LAYOUTS)
@pytest.mark.parametrize("name", [*views.STRIDES, *views.BROADCAST])
def test_any_strides(name, out_layout, backend):
    """Of x and, where it can be written, of out."""
    x = views.make(name, np.dtype(np.int16))
    vectors = statistics(6)
    how = {"dtype": "float32", "out_layout": out_layout, "backend": backend}
    expected = cpubn.batch_norm(x.astype(np.int16), *vectors, **how)
    np.testing.assert_array_equal(cpubn.batch_norm(x, *vectors, **how), expected)
    if name in views.WRITABLE:
        out = views.STRIDES[name](np.zeros(expected.shape, np.float32))
        assert cpubn.batch_norm(x, *vectors, **how, out=out) is out
        np.testing.assert_array_equal(out, expected)
