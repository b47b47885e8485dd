"""The functions for C give what the functions of Python give, bit for bit, and refuse what those refuse."""

import threading
from concurrent.futures import ThreadPoolExecutor

import ctable
import numpy as np
import pytest
from conftest import need_backend
from ctable import do

import cpubn
from cpubn.maths.activations import TABLE

SHAPE = 5, 6, 40
NAMES = {
    entry.name: (code, *(1.5 if p.name != "low" else -0.5 for p in entry.parameters))
    for code, entry in enumerate(TABLE, 1)
}


@pytest.fixture(autouse=True)
def compiled():
    need_backend("cython")


def given(dtype="float32", shape=SHAPE, seed=0):
    rng = np.random.default_rng(seed)
    samples = [rng.normal(2.0, 3.0, shape).astype(dtype) for _ in range(3)]
    vectors = [rng.uniform(0.5, 2.0, shape[1]) for _ in range(4)]
    return samples, vectors


def numbers(activation):
    code, *low_high = (0,) if activation is None else NAMES[activation]
    return {"activation": code, **dict(zip(("low", "high"), low_high, strict=False))}


def as_python_has_it(activation):
    return None if activation is None else (activation, *NAMES[activation][1:]) if NAMES[activation][1:] else activation


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("activation", [None, *NAMES])
@pytest.mark.parametrize("added", [False, True])
def test_forward(added, activation, dtype):
    (x, residual, _), (mean, var, weight, bias) = given(dtype)
    residual, how = residual if added else None, {"eps": 1e-3, **numbers(activation)}
    kwargs = {"eps": 1e-3, "activation": as_python_has_it(activation), "residual": residual, "backend": "cython"}
    y = np.full_like(x, np.nan)
    vectors = {"mean": mean, "var": var, "weight": weight, "bias": bias}
    assert do("normalize", SHAPE, x=x, y=y, residual=residual, **vectors, **how) == "OK"
    np.testing.assert_array_equal(y, cpubn.batch_norm(x, mean, var, weight, bias, **kwargs))

    affine = np.full((3, 6), np.nan)
    assert do("freeze", SHAPE, x=x, affine=affine, **vectors, eps=1e-3) == "OK"
    again = np.full_like(x, np.nan)
    assert do("frozen", SHAPE, x=x, y=again, residual=residual, affine=affine, **how) == "OK"
    np.testing.assert_array_equal(again, y)

    running, expected = [mean.copy(), var.copy()], [mean.copy(), var.copy()]
    stats = np.full((3, 6), np.nan)
    how |= {"running_mean": running[0], "running_var": running[1], "momentum": 0.25, "stats": stats}
    assert do("train_forward", SHAPE, x=x, y=y, residual=residual, weight=weight, bias=bias, **how) == "OK"
    kwargs |= {"training": True, "momentum": 0.25, "return_moments": True}
    expected_y, moments = cpubn.batch_norm(x, *expected, weight, bias, **kwargs)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(stats, (moments.mean, moments.low, moments.m2))
    np.testing.assert_array_equal(running, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("activation", [None, *NAMES])
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("added", [False, True])
def test_backward(added, inference, activation, dtype):
    (x, residual, dy), (mean, var, weight, bias) = given(dtype)
    residual = residual if added else None
    m = cpubn.moments(x, backend="cython")
    if not inference:
        mean, var = m.mean, m.var()
    statistics = {"mean": mean, "var": var, "mean_low": m.low, "weight": weight, "bias": bias}
    how = {"eps": 1e-3, "inference": inference, **statistics, **numbers(activation)}
    dx, g = np.full_like(x, np.nan), np.full_like(x, np.nan) if added else None
    dweight, dbias, sums = np.zeros(6), np.zeros(6), np.zeros((2, 6))
    kwargs = {"eps": 1e-3, "training": not inference, "backend": "cython", "bias": bias, "residual": residual}
    act = as_python_has_it(activation)
    expected = cpubn.batch_norm_backward(dy, x, mean if inference else m, var, weight, activation=act, **kwargs)
    arrays = {"x": x, "dy": dy, "residual": residual}
    assert do("train_backward", SHAPE, **arrays, dx=dx, g=g, dweight=dweight, dbias=dbias, **how) == "OK"
    for got, wanted in zip((dx, dweight, dbias, g), expected, strict=False):
        np.testing.assert_array_equal(got, wanted)
    assert do("gradient_sums", SHAPE, **arrays, sums=sums, **how) == "OK"
    np.testing.assert_array_equal(sums[0], dbias)

    y = cpubn.batch_norm(x, mean, var, weight, bias, eps=1e-3, activation=act, residual=residual)
    kwargs["y"] = y
    if not inference:
        y = kwargs["y"] = cpubn.batch_norm(
            x, None, None, weight, bias, True, eps=1e-3, activation=act, residual=residual
        )
    expected = cpubn.batch_norm_backward(dy, x, mean if inference else m, var, weight, activation=act, **kwargs)
    assert do("train_backward", SHAPE, **arrays, dx=dx, output=y, **how) == "OK"
    if dtype != "float16":
        np.testing.assert_array_equal(dx, expected[0])


VIEWS = {
    "channels last": ((40, 6, 1), lambda x: np.ascontiguousarray(x.transpose(0, 2, 1)).transpose(0, 2, 1)),
    "every other one": (SHAPE, lambda x: np.repeat(x, 2, axis=2)[..., ::2]),
    "backwards": (SHAPE, lambda x: np.ascontiguousarray(x[::-1, :, ::-1])[::-1, :, ::-1]),
    "misaligned": (SHAPE, lambda x: misaligned(x)),
    "one channel": ((1, 1, 200), np.copy),
    "one value a run": ((5, 6, 1), np.copy),
}


def misaligned(x):
    memory = np.zeros(x.nbytes + 1, np.uint8)
    view = memory[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


@pytest.mark.parametrize(("shape", "make"), VIEWS.values(), ids=VIEWS)
def test_strides(shape, make):
    (x, _, dy), (mean, var, weight, bias) = given(shape=shape)
    x, dy, y, dx = make(x), make(dy), make(np.zeros(shape, np.float32)), make(np.zeros(shape, np.float32))
    vectors = {"mean": mean, "var": var, "weight": weight}
    assert do("normalize", shape, x=x, y=y, bias=bias, **vectors) == "OK"
    np.testing.assert_array_equal(y, cpubn.batch_norm(x.copy(), mean, var, weight, bias, eps=0.0))
    assert do("train_backward", shape, x=x, dy=dy, dx=dx, eps=1e-5, **vectors) == "OK"
    expected, *_ = cpubn.batch_norm_backward(dy, x, mean, var, weight, backend="cython")
    np.testing.assert_array_equal(dx, expected)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float16"])
def test_samples_of_other_types(dtype):
    x = np.random.default_rng(0).integers(0, 100, SHAPE).astype(dtype)
    _, (mean, var, weight, bias) = given()
    y, stats = np.zeros(SHAPE, np.float32), np.zeros((3, 6))
    assert do("normalize", SHAPE, x=x, y=y, mean=mean, var=var, weight=weight, bias=bias, eps=1e-5) == "OK"
    np.testing.assert_array_equal(y, cpubn.batch_norm(x, mean, var, weight, bias, dtype="float32"))
    assert do("moments", SHAPE, x=x, stats=stats) == "OK"
    m = cpubn.moments(x, backend="cython")
    np.testing.assert_array_equal(stats, (m.mean, m.low, m.m2))


def test_an_output_whose_sign_is_not_that_of_z():
    (x, _, dy), (mean, var, weight, bias) = given()
    how = {"mean": mean, "var": var, "weight": weight, "bias": bias, "inference": True, "eps": 1e-3}
    how |= {"activation": NAMES["leaky_relu"][0], "low": -0.5}
    act = "leaky_relu", -0.5
    expected = cpubn.batch_norm_backward(
        dy, x, mean, var, weight, bias=bias, eps=1e-3, training=False, activation=act, backend="cython"
    )
    y, dx = np.zeros_like(x), np.zeros_like(x)
    assert do("normalize", SHAPE, x=x, y=y, **how) == "OK"
    assert do("train_backward", SHAPE, x=x, dy=dy, dx=dx, output=y, **how) == "OK"
    np.testing.assert_array_equal(dx, expected[0])


def test_what_is_left_out_is_ones_and_zeros():
    (x, _, dy), (mean, var, *_) = given()
    y, dx = np.zeros_like(x), np.zeros_like(x)
    assert do("normalize", SHAPE, x=x, y=y, mean=mean, var=var, eps=1e-5) == "OK"
    np.testing.assert_array_equal(y, cpubn.batch_norm(x, mean, var))
    assert do("train_backward", SHAPE, x=x, dy=dy, dx=dx, mean=mean, var=var, eps=1e-5) == "OK"
    np.testing.assert_array_equal(dx, cpubn.batch_norm_backward(dy, x, mean, var)[0])


def test_in_place_and_on_any_number_of_threads():
    shape = 8, 16, 3136
    (x, _, dy), (mean, var, *_) = given(shape=shape)
    expected = cpubn.batch_norm(x, mean, var, backend="cython")
    for threads in (0, 1, 2, 3):
        y = x.copy()
        assert do("normalize", shape, x=y, y=y, mean=mean, var=var, eps=1e-5, threads=threads) == "OK"
        np.testing.assert_array_equal(y, expected)
        dx = dy.copy()
        assert do("train_backward", shape, x=x, dy=dx, dx=dx, mean=mean, var=var, eps=1e-5, threads=threads) == "OK"
        np.testing.assert_array_equal(dx, cpubn.batch_norm_backward(dy, x, mean, var, backend="cython")[0])


def test_threads_of_the_callers():
    (x, _, _), (mean, var, *_) = given()
    expected, start = cpubn.batch_norm(x, mean, var, backend="cython"), threading.Barrier(4)

    def many(_):
        start.wait()
        y = np.zeros_like(x)
        return all(
            do("normalize", SHAPE, x=x, y=y, mean=mean, var=var, eps=1e-5) == "OK" and np.array_equal(y, expected)
            for _ in range(200)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(many, range(4)))


@pytest.mark.parametrize("shape", [(0, 6, 40), (5, 0, 40), (5, 6, 0)])
def test_empty(shape):
    x, (mean, var, *_) = np.zeros(shape, np.float32), given(shape=(1, shape[1], 1))[1]
    stats, running = np.ones((3, shape[1])), np.ones(shape[1])
    assert do("normalize", shape, x=x, y=x, mean=mean, var=var) == "OK"
    how = {"running_mean": running, "running_var": running.copy(), "momentum": 0.5, "eps": 1e-5}
    assert do("train_forward", shape, x=x, y=x, stats=stats, **how) == "OK"
    assert not stats.any()
    assert (running == 1).all()
    dweight = np.ones(shape[1])
    assert do("train_backward", shape, x=x, dy=x, dx=x, mean=mean, var=var, eps=1e-5, dweight=dweight) == "OK"
    assert not dweight.any()


X, V = np.ones(SHAPE, np.float32), np.ones(6)
WIDE, ZERO_STRIDES = X.astype(np.float64), np.lib.stride_tricks.as_strided(X, SHAPE, (0, 4, 24))
BYTES = X.astype(np.uint8)
GOOD = {
    "moments": {"x": X, "stats": np.ones((3, 6))},
    "normalize": {"x": X, "y": X.copy(), "mean": V, "var": V, "eps": 1e-5},
    "train_forward": {"x": X, "y": X.copy(), "eps": 1e-5, "stats": np.ones((3, 6))},
    "gradient_sums": {"x": X, "dy": X, "mean": V, "var": V, "eps": 1e-5, "sums": np.ones((2, 6))},
    "train_backward": {"x": X, "dy": X, "dx": X.copy(), "mean": V, "var": V, "eps": 1e-5},
    "freeze": {"x": X, "mean": V, "var": V, "eps": 1e-5, "affine": np.ones((3, 6))},
    "frozen": {"x": X, "y": X.copy(), "affine": np.ones((3, 6))},
}
BAD = [
    *((name, {"size": 8}, "BAD_SIZE") for name in GOOD),
    *((name, {"outer": -1}, "BAD_SIZE") for name in GOOD),
    *((name, {"channels": 1 << 62}, "BAD_SIZE") for name in GOOD),
    *((name, {"x": None}, "MISSING" if name != "freeze" else "BAD_TYPE") for name in GOOD),
    *(
        (name, {needed: None}, "MISSING")
        for name, need in GOOD.items()
        for needed in need
        if needed not in ("x", "eps")
    ),
    *((name, {"var": np.array([1.0, 1, -1, 1, 1, 1])}, "BAD_VARIANCE") for name, need in GOOD.items() if "var" in need),
    *((name, {"eps": np.nan}, "BAD_NUMBER") for name, need in GOOD.items() if "eps" in need),
    *((name, {"eps": 0.0}, "BAD_NUMBER") for name in ("train_forward", "train_backward")),
    *((name, {"activation": code}, "BAD_ACTIVATION") for name in ("normalize", "train_backward") for code in (-1, 99)),
    ("frozen", {"activation": 3, "low": 1.0, "high": 0.0}, "BAD_NUMBER"),
    ("frozen", {"activation": 4, "low": np.inf}, "BAD_NUMBER"),
    ("train_forward", {"running_mean": np.ones(6)}, "MISSING"),
    ("train_forward", {"running_mean": np.ones(6), "running_var": np.ones(6), "momentum": 2.0}, "BAD_NUMBER"),
    ("train_forward", {"outer": 1, "inner": 1}, "FEW_VALUES"),
    ("train_forward", {"x": BYTES}, "BAD_TYPE"),
    ("train_backward", {"outer": 1, "inner": 1}, "FEW_VALUES"),
    ("train_backward", {"dy": WIDE}, "BAD_TYPE"),
    ("normalize", {"y": WIDE.copy()}, "BAD_TYPE"),
    ("normalize", {"y": BYTES.copy()}, "BAD_TYPE"),
    ("normalize", {"residual": WIDE}, "BAD_TYPE"),
    ("normalize", {"y": ZERO_STRIDES}, "BAD_STRIDES"),
    ("train_backward", {"g": ZERO_STRIDES}, "BAD_STRIDES"),
]


def test_the_good_calls_are():
    assert {name: do(name, SHAPE, **how) for name, how in GOOD.items()} == dict.fromkeys(GOOD, "OK")


@pytest.mark.parametrize(("name", "bad", "status"), BAD, ids=lambda value: value if isinstance(value, str) else None)
def test_a_bad_call_writes_nothing(name, bad, status):
    how = GOOD[name] | bad
    written = [value for value in how.values() if isinstance(value, np.ndarray)]
    before = [value.copy() for value in written]
    assert do(name, SHAPE, **how) == status
    for now, then in zip(written, before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_every_status_has_words():
    words = [ctable.table().message(status).decode() for status in (*range(len(ctable.STATUSES)), -1, 99)]
    assert len(set(words)) == len(ctable.STATUSES) + 1
    assert all(words)
