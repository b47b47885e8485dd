"""A FrozenBatchNorm as an argument and as a global of a function that numba.njit compiles, in parallel loops, too."""

import sys

import numpy as np
import pytest
from conftest import need_backend
from inside import compiled, numba, same

import cpubn


@pytest.fixture(autouse=True)
def kernels():
    need_backend("cython")
    cpubn.njit.init()


def make(**how):
    mean, var, weight, bias = np.random.default_rng(0).uniform(0.5, 2.0, (4, 6))
    return cpubn.FrozenBatchNorm(running_mean=mean, running_var=var, weight=weight, bias=bias, **how)


def data(dtype="float32"):
    return np.random.default_rng(1).uniform(0.0, 100.0, (4, 6, 3, 6)).astype(dtype)


HOWS = {
    "plain": {},
    "an activation": {"activation": "silu"},
    "an activation with a number": {"activation": ("leaky_relu", 0.25)},
    "of float32": {"dtype": "float32"},
    "channels last": {"layout": "NHWC"},
    "turned": {"out_layout": "NHWC", "dtype": "float32"},
}


@pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_argument(how, dtype):
    frozen, x = make(**how), data(dtype)
    if dtype == "uint8" and "dtype" not in how:
        with pytest.raises(numba.TypingError, match="dtype must be given where x is of uint8, got None"):
            compiled("frozen(x)", "frozen, x")(frozen, x)
        return
    expected, inside = frozen(x), compiled("frozen(x, residual, out=out)", "frozen, x, residual, out")
    same(inside(frozen, x, None, None), expected)
    same(inside(frozen, x, expected, None), frozen(x, expected))
    out = np.empty_like(expected)
    inside(frozen, x, None, out)
    np.testing.assert_array_equal(out, expected)


def test_another_one_needs_no_other_code():
    inside, x = compiled("frozen(x)", "frozen, x"), data()
    for activation in (None, "relu", ("clip", 0.0, 1.0)):
        frozen = make(activation=activation)
        same(inside(frozen, x), frozen(x))
    assert len(inside.signatures) == 1


def test_global():
    frozen, x = make(activation="relu"), data()

    @numba.njit
    def inside(x):
        return frozen(x)

    same(inside(x), frozen(x))


@pytest.mark.parametrize("as_global", [False, True])
def test_a_loop_of_many_threads(as_global):
    made, xs = make(activation="relu"), np.stack([data() + k for k in range(9)])
    if as_global:

        @numba.njit(parallel=True)
        def inside(frozen, xs, out):
            for i in numba.prange(len(xs)):
                made(xs[i], out=out[i])
    else:

        @numba.njit(parallel=True)
        def inside(frozen, xs, out):
            for i in numba.prange(len(xs)):
                frozen(xs[i], out=out[i])

    out = np.empty_like(xs)
    inside(made, xs, out)
    np.testing.assert_array_equal(out, np.stack([made(x) for x in xs]))


def test_training_in_a_loop_of_many_threads():
    @numba.njit(parallel=True)
    def inside(xs, means, variances, out):
        for i in numba.prange(len(xs)):
            cpubn.batch_norm(xs[i], means[i], variances[i], training=True, out=out[i])

    xs, stats = np.stack([data() + k for k in range(9)]), np.ones((2, 9, 6))
    out, expected = np.empty_like(xs), stats.copy()
    inside(xs, *stats, out)
    for x, y, mean, var in zip(xs, out, *expected, strict=True):
        np.testing.assert_array_equal(y, cpubn.batch_norm(x, mean, var, training=True, backend="cython"))
    np.testing.assert_array_equal(stats, expected)


def test_it_stays_alive():
    """Calls count who holds the constants, and what is made is let go of."""
    frozen, x = make(), data()
    inside = compiled("frozen(x)", "frozen, x")
    held = [sys.getrefcount(a) for a in (frozen, *frozen._affine.values(), x)]
    for _ in range(100):
        inside(frozen, x)
    assert [sys.getrefcount(a) for a in (frozen, *frozen._affine.values(), x)] == held


@pytest.mark.parametrize(
    "bad",
    [
        lambda: make(activation=numba.njit(lambda z: z)),
        lambda: cpubn.FrozenBatchNorm.quantized(
            weight=None, bias=None, running_mean=[0.0] * 6, running_var=[1.0] * 6,
            scale=1.0, zero_point=0, out_scale=1.0, out_zero_point=0,
        ),
    ],
    ids=["own function", "quantized"],
)  # fmt: skip
def test_what_is_called_outside_alone(bad):
    inside = compiled("frozen(x)", "frozen, x")
    with pytest.raises(
        TypeError, match=r"a FrozenBatchNorm within numba\.njit must be on the host, of floating results"
    ):
        inside(bad(), data())


def test_errors():
    inside, x = compiled("frozen(x, out=out, threads=threads)", "frozen, x, out, threads"), data()
    with pytest.raises(
        ValueError, match=r"^x must have 6 channels on axis 1 \(layout 'NCHW'\), got 5; check the layout"
    ):
        inside(make(), x[:, :5].copy(), None, 1)
    with pytest.raises(ValueError, match=r"^out must have the result's shape \(4, 6, 3, 6\), got \(3, 6, 3, 6\); allo"):
        inside(make(), x, x[1:].copy(), 1)
    with pytest.raises(ValueError, match=r"^threads must be a whole number from 1 to 1024, got 0; pass"):
        inside(make(), x, None, 0)
