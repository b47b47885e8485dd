"""Within numba.njit every call gives what it gives outside, bit for bit, in the same order of memory."""

import cases
import numpy as np
import pytest
import views
from conftest import need_backend
from inside import compiled, same
from pairs import pairs

import cpubn
from cpubn.maths.activations import TABLE

HOW = {"backend": "cython"}
SHAPES = {
    "NCHW": [(9, 3), (5, 3, 4), (2, 3, 4, 5), (2, 3, 2, 3, 4)],
    "NHWC": [(9, 3), (5, 4, 3), (2, 4, 5, 3), (2, 2, 3, 4, 3)],
}
FORMS = [
    repr((entry.name, *(0.75, 1.5)[: len(entry.parameters)]) if entry.parameters else entry.name) for entry in TABLE
]


@pytest.fixture(autouse=True)
def kernels():
    need_backend("cython")


def given(shape=(4, 6, 5, 7), dtype="float32", layout="NCHW", seed=0):
    rng = np.random.default_rng(seed)
    samples = [rng.normal(2.0, 3.0, shape) for _ in range(3)]
    if np.dtype(dtype).kind in "iu":
        samples = [np.clip(10 * a, 0, 100) for a in samples]
    n = shape[1 if layout == "NCHW" else -1]
    return [a.astype(dtype) for a in samples], list(rng.uniform(0.5, 2.0, (4, n)))


@pytest.mark.parametrize(("rank", "layout", "dtype"), pairs([2, 3, 4, 5], [*SHAPES], ["float32", "float64"]))
def test_every_rank_and_layout(rank, layout, dtype):
    """Each of them takes two seconds to compile."""
    shape = SHAPES[layout][rank - 2]
    (x, _, dy), (mean, var, weight, bias) = given(shape, dtype, layout)
    how = f"layout={layout!r}"
    names = "x, mean, var, weight, bias"
    infer = compiled(f"cpubn.batch_norm({names}, {how})", names)
    same(infer(x, mean, var, weight, bias), cpubn.batch_norm(x, mean, var, weight, bias, layout=layout, **HOW))

    call = f"cpubn.batch_norm({names}, True, 0.25, {how}, return_moments=True)"
    inside, outside = [mean.copy(), var.copy()], [mean.copy(), var.copy()]
    y, m = cpubn.batch_norm(x, *outside, weight, bias, True, 0.25, layout=layout, return_moments=True, **HOW)
    same(compiled(call, names)(x, *inside, weight, bias), (y, m))
    same(tuple(inside), tuple(outside))

    call = f"cpubn.batch_norm_backward(dy, x, mean, var, weight, {how})"
    expected = cpubn.batch_norm_backward(dy, x, m.mean, m.var(), weight, layout=layout, **HOW)
    same(compiled(call, "dy, x, mean, var, weight")(dy, x, m.mean, m.var(), weight), expected)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32", "float64"])
def test_samples_of_every_type(dtype):
    (x, *_), (mean, var, *_) = given(dtype=dtype)
    same(compiled("cpubn.moments(x)", "x")(x), cpubn.moments(x, **HOW))
    call = "cpubn.batch_norm(x, mean, var, dtype=np.float32, return_moments=True)"
    expected = cpubn.batch_norm(x, mean, var, dtype="float32", return_moments=True, **HOW)
    same(compiled(call, "x, mean, var")(x, mean, var), expected)


@pytest.mark.parametrize(("form", "added"), [(form, k % 2) for k, form in enumerate(FORMS)])
def test_every_activation(form, added):
    (x, residual, dy), (mean, var, weight, bias) = given()
    residual = residual if added else None
    kwargs = {"activation": eval(form), "residual": residual, **HOW}
    names, how = "x, mean, var, weight, bias, residual", f"activation={form}, residual=residual"
    inside = compiled(f"cpubn.batch_norm(x, mean, var, weight, bias, {how})", names)
    y = cpubn.batch_norm(x, mean, var, weight, bias, **kwargs)
    same(inside(x, mean, var, weight, bias, residual), y)
    inside = compiled(f"cpubn.batch_norm_backward(dy, x, mean, var, weight, bias=bias, y=y, {how})", f"dy, {names}, y")
    kept = None if added else y
    expected = cpubn.batch_norm_backward(dy, x, mean, var, weight, bias=bias, y=kept, **kwargs)
    same(inside(dy, x, mean, var, weight, bias, residual, kept), expected)


CALLS = {
    "cpubn.moments(x, layout={!r})": lambda x, mean, var, dy, **how: cpubn.moments(x, **how),
    "cpubn.batch_norm(x, mean, var, layout={!r})": lambda x, mean, var, dy, **how: cpubn.batch_norm(
        x, mean, var, **how
    ),
    "cpubn.batch_norm(x, None, None, training=True, layout={!r})": lambda x, mean, var, dy, **how: cpubn.batch_norm(
        x, None, None, training=True, **how
    ),
    "cpubn.batch_norm_backward(dy, x, mean, var, layout={!r})": lambda x, mean, var, dy, **how: (
        cpubn.batch_norm_backward(dy, x, mean, var, **how)
    ),
}
VIEWS = [name for name in (*views.STRIDES, *views.BROADCAST) if views.make(name).dtype.isnative]


@pytest.mark.parametrize("name", VIEWS)
def test_every_kind_of_view(name):
    """Of which none is copied, in both layouts; byte-swapped ones Numba does not have.

    To Numba there are few types of them, for each of which it compiles each call in one layout.
    """
    x = views.make(name, np.dtype("float32"))
    first = x.flags.c_contiguous + x.flags.f_contiguous * 2 + x.flags.writeable
    for number, (call, outside) in enumerate(CALLS.items(), first):
        layout = ("NCHW", "NHWC")[number % 2]
        n = x.shape[1 if layout == "NCHW" else -1]
        mean, var = np.random.default_rng(0).uniform(0.5, 2.0, (2, n))
        dy = np.asfortranarray(cases.make_gradient("independent", np.ascontiguousarray(x), layout))
        given = x, mean, var, dy
        same(compiled(call.format(layout), "x, mean, var, dy")(*given), outside(*given, layout=layout, **HOW))


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint32", "int64", "uint64"])
def test_vectors_of_other_types_and_strides(dtype):
    (x, _, dy), vectors = given()
    mean, var, weight, bias = (np.repeat(10 * v, 2).astype(dtype)[::-2] for v in vectors)
    names = "x, mean, var, weight, bias"
    inside = compiled(f"cpubn.batch_norm({names})", names)
    same(inside(x, mean, var, weight, bias), cpubn.batch_norm(x, mean, var, weight, bias, **HOW))
    expected = cpubn.batch_norm_backward(dy, x, mean, var, weight, **HOW)
    inside = compiled("cpubn.batch_norm_backward(dy, x, mean, var, weight)", "dy, x, mean, var, weight")
    same(inside(dy, x, mean, var, weight), expected)


@pytest.mark.parametrize("make", [lambda v: v, lambda v: np.repeat(v, 2)[::2]])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_running_statistics(dtype, make):
    (x, *_), (mean, var, *_) = given()
    inside = compiled("cpubn.batch_norm(x, mean, var, training=training)", "x, mean, var, training")
    for training in (True, False):  # known at run time
        here, there = ([make(v.astype(dtype)) for v in (mean, var)] for _ in range(2))
        expected = cpubn.batch_norm(x, *there, training=training, **HOW)
        same(inside(x, *here, training), expected)
        same(tuple(here), tuple(there))


@pytest.mark.parametrize(
    ("dtype", "to", "out_layout"),
    [
        ("float32", "float32", "NHWC"),
        ("float64", "float32", None),
        ("uint8", "float32", "NHWC"),
        ("float64", "float64", "NHWC"),
    ],
)
def test_another_dtype_and_layout(dtype, to, out_layout):
    (x, *_), (mean, var, *_) = given(dtype=dtype)
    kwargs = {"dtype": to, "out_layout": out_layout}
    expected = cpubn.batch_norm(x, mean, var, **kwargs, **HOW)
    call = f"cpubn.batch_norm(x, mean, var, dtype={to!r}, out_layout={out_layout!r}, out=out, residual=residual)"
    inside = compiled(call, "x, mean, var, out, residual")
    same(inside(x, mean, var, None, None), expected)
    out = np.empty_like(expected)
    assert inside(x, mean, var, out, None) is not None
    np.testing.assert_array_equal(out, expected)
    expected = cpubn.batch_norm(x, mean, var, residual=out, **kwargs, **HOW)
    same(inside(x, mean, var, out, out), expected)
    np.testing.assert_array_equal(out, expected)


def test_in_place():
    (x, _, dy), (mean, var, *_) = given()
    expected = cpubn.batch_norm(x, mean, var, **HOW)
    gradient = cpubn.batch_norm_backward(dy, x, mean, var, **HOW)[0]
    compiled("cpubn.batch_norm_backward(dy, x, mean, var, out=dy)", "dy, x, mean, var")(dy, x, mean, var)
    np.testing.assert_array_equal(dy, gradient)
    compiled("cpubn.batch_norm(x, mean, var, out=x)", "x, mean, var")(x, mean, var)
    np.testing.assert_array_equal(x, expected)


def test_moments_as_the_mean_of_backward():
    """With the low word of the mean."""
    rng = np.random.default_rng(0)
    x, dy = rng.normal(1e6, 1.0, (50, 3)), rng.normal(size=(50, 3))
    m = cpubn.moments(x, **HOW)
    inside = compiled("cpubn.batch_norm_backward(dy, x, cpubn.moments(x), var)", "dy, x, var")
    same(inside(dy, x, m.var()), cpubn.batch_norm_backward(dy, x, m, m.var(), **HOW))
    got = compiled("cpubn.moments(x)", "x")(x)
    assert got._fields == ("count", "mean", "m2", "low")
    assert cpubn.Moments(*got) == m


def test_an_empty_batch():
    x, ones = np.empty((0, 3, 4), np.float32), np.ones(3)
    running = [ones.copy(), ones.copy()]
    y, m = compiled("cpubn.batch_norm(x, mean, var, training=True, return_moments=True)", "x, mean, var")(x, *running)
    assert y.shape == x.shape
    assert m.count == 0
    assert (np.array(running) == 1).all()
    dx, dweight, dbias = compiled("cpubn.batch_norm_backward(x, x, v, v)", "x, v")(x, ones)
    assert dx.shape == x.shape
    assert not dweight.any()
    assert not dbias.any()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads(threads):
    (x, _, dy), (mean, var, *_) = given((8, 16, 56, 56))
    inside = compiled("cpubn.batch_norm(x, mean, var, training=True, threads=threads)", "x, mean, var, threads")
    same(inside(x, mean.copy(), var.copy(), threads), cpubn.batch_norm(x, None, None, training=True, **HOW))
    inside = compiled("cpubn.batch_norm_backward(dy, x, mean, var, threads=threads)", "dy, x, mean, var, threads")
    same(inside(dy, x, mean, var, threads), cpubn.batch_norm_backward(dy, x, mean, var, **HOW))
