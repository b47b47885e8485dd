"""Forward of arrays on a GPU: within the contract's bound of long double, in training and in inference."""

import cases
import gpu
import numpy as np
import oracle
import pytest
from gpu import get, put

import cpubn
from cpubn.backends.gpu import tiles

pytestmark = gpu.SILENT
T = tiles.THREADS
CHUNK = T * tiles.SAMPLES
MANY = 2 * tiles.MERGERS * CHUNK  # samples of more chunks than a block merges at once
# (shape, layout): every rank, one channel, two values, more channels than a block has, chunks' edges, many chunks.
SHAPES = [
    ((2, 1), "NCHW"), ((3, 2 * T + 3), "NHWC"), ((2, 3, 1), "NCHW"), ((5, 3, 7), "NHWC"), ((1, 2, T - 1), "NCHW"),
    ((2, 2, T + 1), "NCHW"), ((3, T + 1, 2), "NCHW"), ((3, 5, 2, 3), "NCHW"), ((2, 3, 3, 2), "NHWC"),
    ((2, 3, 2, 2, 3), "NCHW"), ((2, 2, 3, 1, 2), "NHWC"), ((CHUNK - 1, 1), "NCHW"), ((1, 1, CHUNK), "NCHW"),
    ((1, 2, CHUNK + 1), "NCHW"), ((CHUNK + 1, 2), "NHWC"), ((2 * CHUNK + 1, 1), "NCHW"), ((MANY + 1, 1), "NCHW"),
]  # fmt: skip
FAMILIES = [(family, np.float32) for family in cases.FLOAT32_FAMILIES] + [
    (family, np.float64) for family in ("offset 1e+06", "first far", "mixed scales", "largest")
]


def check_training(x, layout):
    weight, bias = cases.vectors(x.shape[oracle.channel_axis(x, layout)])
    expected = oracle.batch_norm(x, weight=weight, bias=bias, layout=layout)
    y, batch = cpubn.batch_norm(
        put(x), None, None, put(weight), put(bias), training=True, layout=layout, return_moments=True
    )
    got, batch = get(y), gpu.moments_on_host(batch)
    assert got.dtype == x.dtype
    assert oracle.worst(got, expected.y, expected.bound) <= 1
    mean_bound, var_bound = oracle.moments_bounds(expected.mean, expected.var, x.dtype)
    assert oracle.worst(batch.mean, expected.mean, mean_bound) <= 1
    assert oracle.worst(batch.var(), expected.var, var_bound) <= 1


@pytest.mark.parametrize(("family", "dtype"), FAMILIES)
def test_training_of_every_family(family, dtype):
    layout, shape = ("NCHW", (3, 3, CHUNK // 2)) if len(family) % 2 else ("NHWC", (CHUNK + 9, 3))
    check_training(cases.make(family, shape, layout, dtype), layout)


@pytest.mark.parametrize(("shape", "layout"), SHAPES, ids=str)
def test_training_of_every_shape(shape, layout):
    check_training(cases.make("offset 10000", shape, layout), layout)


def test_the_merge_has_more_chunks_than_threads():
    assert gpu.chunks_of((MANY + 1, 1)) > tiles.MERGERS
    assert gpu.chunks_of((CHUNK, 1)) == 1 < gpu.chunks_of((CHUNK + 1, 1))


@pytest.mark.parametrize("dtype", ["float16", gpu.BFLOAT16])
def test_training_of_half_types(dtype):
    check_training(cases.make("offset 1", (3, 5, 9)).astype(dtype), "NCHW")


@pytest.mark.parametrize(("shape", "layout"), SHAPES[::2], ids=str)
def test_inference_of_every_shape(shape, layout):
    x = cases.make("offset 100", shape, layout)
    mean, var = cases.running(x, layout)
    weight, bias = cases.vectors(shape[1], np.float32)
    expected = oracle.batch_norm(x, mean, var, weight, bias, layout=layout)
    got = get(cpubn.batch_norm(put(x), *put((mean, var, weight, bias)), layout=layout))
    assert oracle.worst(got, expected.y, expected.bound) <= 1


@pytest.mark.parametrize(
    ("dtype", "to"),
    [
        *[(dtype, dtype) for dtype in ("float64", "float16", gpu.BFLOAT16)],
        *[("uint8", "float32"), ("int8", "float16"), ("uint16", "bfloat16"), ("int16", "float64")],
        *[("float32", "float64"), ("float64", "float16"), (gpu.BFLOAT16, "float32")],
    ],
    ids=str,
)
def test_inference_of_every_type(dtype, to):
    x = cases.make("pixels", (3, 5, 2, 4)).astype(dtype)
    mean, var = cases.running(x.astype(float), dtype=np.float32)
    weight, bias = cases.vectors(5)
    expected = oracle.batch_norm(x, mean, var, weight, bias, dtype=gpu.BFLOAT16 if to == "bfloat16" else to)
    got = get(cpubn.batch_norm(put(x), *put((mean, var, weight, bias)), dtype=None if dtype == to else to))
    assert got.dtype.name == np.dtype(to).name
    precise = np.float64 if "float64" in (dtype, to) else np.float32
    slack = oracle.batch_norm(x, mean, var, weight, bias, dtype=precise).bound
    assert oracle.worst(got, expected.y, slack + oracle.rounding(expected.y, to)) <= 1


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_running_statistics_take_their_share_of_the_batch(dtype):
    x, count = cases.make("offset 100", (5, 9, 3)), 15
    mean, var = oracle.moments(x)
    running = np.linspace(-3, 3, 9).astype(dtype), np.linspace(1, 9, 9).astype(dtype)
    expected = 0.75 * running[0] + 0.25 * mean, 0.75 * running[1] + 0.25 * var * count / (count - 1)
    given = put(running)
    cpubn.batch_norm(put(x), *given, training=True, momentum=0.25)
    for got, wanted in zip(get(given), expected, strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, wanted.astype(float), rtol=1e-6)


def test_inference_leaves_running_statistics_alone_and_returns_moments():
    x = cases.make("offset 1", (5, 3, 9))
    running = put(cases.running(x))
    kept = get(running)
    _, got = cpubn.batch_norm(put(x), *running, return_moments=True)
    np.testing.assert_array_equal(get(running), kept)
    expected = cpubn.moments(put(x))
    np.testing.assert_array_equal(get(got.mean), get(expected.mean))
    np.testing.assert_array_equal(get(got.m2), get(expected.m2))


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_a_constant_channel_gives_variance_zero_and_its_bias(dtype):
    x = cases.make("constant", (3, 7, 5), dtype=dtype)
    weight, bias = cases.vectors(7, dtype)
    y, batch = cpubn.batch_norm(put(x), None, None, put(weight), put(bias), training=True, return_moments=True)
    np.testing.assert_array_equal(get(batch.var()), np.zeros(7))
    np.testing.assert_array_equal(get(batch.mean), x[0, :, 0])
    np.testing.assert_array_equal(get(y), np.broadcast_to(bias[:, None], x.shape))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_channel(value):
    x = cases.make("offset 1", (CHUNK + 3, 3))
    clean = get(cpubn.batch_norm(put(x), None, None, training=True))
    x[CHUNK - 2, 1] = value
    y, batch = cpubn.batch_norm(put(x), None, None, training=True, return_moments=True)
    got = get(y)
    np.testing.assert_array_equal(got[:, ::2], clean[:, ::2])
    assert not np.isfinite(got[:, 1]).any()
    assert not np.isfinite(get(batch.var())[1])
    assert np.isfinite(get(batch.var())[::2]).all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(0, 3), (2, 3, 0), (4, 0)], ids=str)
def test_an_empty_batch_and_zero_channels_give_an_empty_result(shape, training):
    channels = shape[1]
    running = put((np.full(channels, 2.0), np.full(channels, 3.0)))
    x = put(np.empty(shape, np.float32))
    got, batch = cpubn.batch_norm(x, *running, training=training, return_moments=True)
    assert get(got).shape == shape
    assert batch.mean.shape == (channels,)
    np.testing.assert_array_equal(get(running), [[2.0] * channels, [3.0] * channels])


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_the_same_bits_run_after_run(dtype):
    x = put(cases.make("offset 10000", (MANY // 4 + 1, 3, 2), dtype=dtype))
    expected, batch = cpubn.batch_norm(x, None, None, training=True, return_moments=True)
    for _ in range(2):
        got, again = cpubn.batch_norm(x, None, None, training=True, return_moments=True)
        np.testing.assert_array_equal(get(got), get(expected))
        np.testing.assert_array_equal(get(again.m2), get(batch.m2))


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "uint32", "float16", gpu.BFLOAT16], ids=str)
def test_vectors_of_integers_and_half_types(dtype):
    x = cases.make("offset 1", (4, 3, 5), dtype=np.float32)
    vectors = [np.array(v, float) for v in ([1, 0, 7], [4, 1, 100], [3, 2, 1], [0, 5, 11])]
    given = [put(v.astype(dtype)) for v in vectors]
    expected = get(cpubn.batch_norm(put(x), *map(put, vectors)))
    np.testing.assert_array_equal(get(cpubn.batch_norm(put(x), *given)), expected)
    np.testing.assert_array_equal(get(cpubn.FrozenBatchNorm(**cases.named(*given))(put(x))), expected)
    mean, var, weight, bias = given
    for training in (True, False):
        how = {"training": training, "activation": "silu"}
        got = get(cpubn.batch_norm_backward(put(x), put(x), mean, var, weight, bias=bias, **how))
        mean_, var_, weight_, bias_ = map(put, vectors)
        wanted = get(cpubn.batch_norm_backward(put(x), put(x), mean_, var_, weight_, bias=bias_, **how))
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(a, b)
