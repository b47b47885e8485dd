"""FrozenBatchNorm: what inference calls gives the function's own bits, on its fast path and off it."""

import copy
import inspect
import pickle

import bad
import cases
import numpy as np
import oracle
import pytest
import views
from conftest import need_backend

import cpubn
from cpubn.backends import choice

MAKERS = {2: cpubn.BatchNorm1d, 3: cpubn.BatchNorm1d, 4: cpubn.BatchNorm2d, 5: cpubn.BatchNorm3d}
# From less than a vector register holds to more than a serial call takes.
SHAPES = [(1, 1), (1, 3), (5, 33), (2, 3, 7), (1, 64, 1, 1), (4, 6, 5, 8), (2, 3, 2, 3, 4), (8, 32, 28, 28)]


def statistics(channels, dtype=np.float64):
    """running_mean and running_var."""
    rng = cases.rng_of("frozen", channels)
    return rng.standard_normal(channels).astype(dtype), rng.uniform(0.1, 3, channels).astype(dtype)


def frozen(channels, layout, backend, given=True, dtype=np.float64):
    weight, bias = cases.vectors(channels, dtype) if given else (None, None)
    mean, var = statistics(channels, dtype)
    layer = cpubn.FrozenBatchNorm(**cases.named(mean, var, weight, bias), layout=layout, backend=backend)
    return (weight, bias, mean, var), layer


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_same_bits_as_the_function(shape, layout, dtype, backend):
    x = cases.make("offset 1", shape, layout, dtype)
    (weight, bias, mean, var), layer = frozen(shape[1], layout, backend)
    expected = cpubn.batch_norm(x, mean, var, weight, bias, layout=layout, backend=backend)
    got = layer(x)
    assert type(got) is np.ndarray
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, expected)
    out = np.empty_like(x)
    assert layer(x, out=out) is out
    np.testing.assert_array_equal(out, expected)
    assert layer(x, out=x) is x
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_within_the_bound(shape, layout, backend):
    x = cases.make("offset 10000", shape, layout)
    (weight, bias, mean, var), layer = frozen(shape[1], layout, backend)
    expected = oracle.batch_norm(x, mean, var, weight, bias, layout=layout)
    assert oracle.worst(layer(x), expected.y, expected.bound) <= 1


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("name", [*views.STRIDES, *views.BROADCAST])
def test_any_strides(name, layout, dtype, backend):
    x = views.make(name, np.dtype(dtype))
    channels = x.shape[1 if layout == "NCHW" else -1]
    (weight, bias, mean, var), layer = frozen(channels, layout, backend)
    expected = cpubn.batch_norm(x, mean, var, weight, bias, layout=layout, backend=backend)
    got = layer(x)
    assert got.strides == expected.strides
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", views.WRITABLE)
def test_any_out(name, backend):
    x, out = views.make("contiguous"), views.make(name)
    _, layer = frozen(6, "NCHW", backend)
    expected = layer(x)
    assert layer(x, out=out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_vectors_of_either_type_or_none_are_copied(dtype, given, backend):
    x = cases.make("offset 1", (5, 33))
    arguments, layer = frozen(33, "NCHW", backend, given, dtype)
    weight, bias, mean, var = arguments
    expected = cpubn.batch_norm(x, mean, var, weight, bias, backend=backend)
    for vector in arguments:
        if vector is not None:
            vector[...] = 7
    np.testing.assert_array_equal(layer(x), expected)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [s for s in SHAPES if s[0] > 1], ids=str)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_freeze_gives_the_layer_in_eval(layout, shape, affine, backend):
    bn = MAKERS[len(shape)](shape[1], eps=1e-3, affine=affine, layout=layout, backend=backend)
    x = cases.make("offset 1", shape, layout)
    bn(x)
    layer = bn.freeze()
    expected = bn.eval()(x)
    np.testing.assert_array_equal(layer(x), expected)
    bn.reset_running_stats()
    np.testing.assert_array_equal(layer(x), expected)


def test_an_untracked_layer_cannot_be_frozen():
    with pytest.raises(ValueError, match=r"running statistics.*got .*track_running_stats=False.*FrozenBatchNorm"):
        cpubn.BatchNorm1d(6, track_running_stats=False).freeze()


@pytest.mark.parametrize("shape", [(0, 3), (2, 3, 0), (0, 3, 4, 4), (2, 3, 4, 0, 5)])
def test_empty_batches(shape, backend):
    _, layer = frozen(3, "NCHW", backend)
    x = np.empty(shape, np.float32)
    assert layer(x).shape == shape
    assert layer(x, out=x) is x
    _, layer = frozen(0, "NCHW", backend)
    assert layer(np.empty((4, 0), np.float32)).shape == (4, 0)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_and_pickles_give_the_same_bits(duplicate, backend):
    _, layer = frozen(33, "NHWC", backend)
    x = cases.make("offset 1", (5, 33), "NHWC")
    twin = duplicate(layer)
    assert repr(twin) == repr(layer)
    np.testing.assert_array_equal(twin(x), layer(x))
    for name in ("running_mean", "running_var", "weight", "bias"):
        np.testing.assert_array_equal(getattr(twin, name), getattr(layer, name))
        with pytest.raises(ValueError, match="read-only"):
            getattr(twin, name)[0] = 1


def test_extreme_statistics(backend):
    x = cases.make("largest", (4, 3, 5))
    mean, var = np.array([1e30, -3e38, 0.0]), np.array([1e76, 1e77, 1e-80])
    weight = np.array([1, 1, 1e-70])
    layer = cpubn.FrozenBatchNorm(**cases.named(mean, var, weight), eps=0, backend=backend)
    expected = oracle.batch_norm(x, mean, var, weight, eps=0)
    assert oracle.worst(layer(x), expected.y, expected.bound) <= 1


CALL = {f"x of {kind}": ("x", *value) for kind, value in bad.DATA.items()} | bad.out() | {
    "x of rank 1": ("x", np.ones(3), ValueError, "x must have 2 to 5 dimensions, got 1"),
    "x of rank 6": ("x", np.ones((4, 3, 1, 1, 1, 1)), ValueError, "x must have 2 to 5 dimensions, got 6"),
    "other channels": ("x", np.ones((3, 4)), ValueError, r"x must have 3 channels .*got 4 in shape \(3, 4\)"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "value", "error", "match"), CALL.values(), ids=list(CALL))
def test_a_bad_call_is_refused(name, value, error, match, backend):
    _, layer = frozen(3, "NCHW", backend)
    out = np.zeros((4, 3))
    with pytest.raises(error, match=match):
        layer(**{"x": np.ones((4, 3)), "out": out} | {name: value})
    assert not out.any()


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_an_out_that_partly_overlaps_x_is_refused(dtype, backend):
    _, layer = frozen(3, "NCHW", backend)
    memory = np.arange(15, dtype=dtype)
    with pytest.raises(ValueError, match=r"out must be x itself or .*overlap"):
        layer(memory[:12].reshape(4, 3), out=memory[3:].reshape(4, 3))
    np.testing.assert_array_equal(memory, np.arange(15))


MAKE = (
    bad.LAYOUT | bad.EPS | bad.BACKEND | bad.vector("running_var", optional=False)
    | bad.vector("weight", optional=True) | bad.vector("bias", optional=True)
    | {
        "running_mean of None": ("running_mean", None, TypeError, "running_mean must be .*got .*None"),
        "running_mean of booleans": ("running_mean", np.ones(3, bool), TypeError, "running_mean must be .*got .*bool"),
        "running_mean of rank 2": ("running_mean", np.ones((3, 1)), ValueError, r"running_mean must .*got \(3, 1\)"),
        "running_mean of rank 0": ("running_mean", np.ones(()), ValueError, r"running_mean must have .*got \(\)"),
    }
)  # fmt: skip


@pytest.mark.parametrize(("name", "value", "error", "match"), MAKE.values(), ids=list(MAKE))
def test_bad_statistics_are_refused(name, value, error, match):
    arguments = {"weight": None, "bias": None, "running_mean": np.zeros(3), "running_var": np.ones(3)}
    with pytest.raises(error, match=match):
        cpubn.FrozenBatchNorm(**arguments | {name: value})


@pytest.mark.parametrize(
    ("make", "count", "got"),
    [
        (cpubn.FrozenBatchNorm, 1, "1 positional argument;"),
        (cpubn.FrozenBatchNorm, 5, "5 positional arguments;"),
        (cpubn.FrozenBatchNorm.quantized, 4, "4 positional arguments;"),
    ],
)
def test_vectors_are_given_by_name(make, count, got):
    match = f"^weight, bias, running_mean, .* must be given by name, got {got} write weight=.*, .*batch_norm's order is"
    with pytest.raises(TypeError, match=match):
        make(*(None, None, np.zeros(3), np.ones(3), 1e-5)[:count])
    first, *rest = inspect.signature(make).parameters.values()
    assert first.name == "weight"
    assert {p.kind for p in (first, *rest)} == {inspect.Parameter.KEYWORD_ONLY}
    with pytest.raises(TypeError, match="running_var"):
        make(weight=None, bias=None, running_mean=np.zeros(3))


def test_compiled_path_cannot_be_made_without_coefficients():
    need_backend("cython")
    make, how = choice.compiled_calls("cython").affine, (None, None, None, "NCHW", "NCHW")
    path = type(make((np.zeros((3, 2)), np.zeros((3, 2))), how))
    with pytest.raises(TypeError):
        path.__new__(path)
    for wrong in (np.zeros(3), None):
        with pytest.raises(ValueError, match=r"coefficients must be contiguous \(3, C\) arrays"):
            make((wrong, wrong), how)


@pytest.mark.parametrize("name", ["eps", "dtype", "running_mean", "activation"])
def test_it_is_constant(name, backend):
    _, layer = frozen(3, "NCHW", backend)
    with pytest.raises(AttributeError):
        setattr(layer, name, getattr(layer, name))
    with pytest.raises(ValueError, match="read-only"):
        layer.running_mean[0] = 1
