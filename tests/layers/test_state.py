"""state_dict has torch's keys; load_state_dict takes all of it or nothing."""

import copy
import pickle
import pickletools
from concurrent.futures import ThreadPoolExecutor

import cases
import numpy as np
import pytest
from conftest import need_backend
from test_layers import batches, with_parameters

import cpubn

KEYS = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
X = cases.make("offset 1", (40, 6))


def trained():
    bn = cpubn.BatchNorm1d(6)
    bn.weight[...], bn.bias[...] = cases.vectors(6)
    for _ in range(3):
        bn(X)
    return bn


def check_same(got, expected):
    assert list(got) == list(expected)
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, KEYS),
        ({"affine": False}, KEYS[2:]),
        ({"track_running_stats": False}, KEYS[:2]),
        ({"affine": False, "track_running_stats": False}, []),
    ],
)
def test_keys_are_those_of_torch(how, expected):
    assert list(cpubn.BatchNorm2d(6, **how).state_dict()) == expected


def test_state_dict_holds_copies():
    bn = trained()
    before = bn.eval()(X)
    for value in bn.state_dict().values():
        value[...] = 7
    np.testing.assert_array_equal(bn(X), before)


def test_a_loaded_layer_gives_the_same_results():
    bn, other = trained(), cpubn.BatchNorm1d(6)
    other.load_state_dict(bn.state_dict())
    check_same(other.state_dict(), bn.state_dict())
    np.testing.assert_array_equal(other.eval()(X), bn.eval()(X))
    np.testing.assert_array_equal(other.train()(X), bn.train()(X))
    check_same(other.state_dict(), bn.state_dict())


def test_loading_copies_into_the_layers_own_arrays():
    bn, state = cpubn.BatchNorm1d(6), trained().state_dict()
    arrays = bn.weight, bn.running_mean
    bn.load_state_dict(state)
    assert bn.weight is arrays[0]
    assert bn.running_mean is arrays[1]
    state["weight"][...] = 7
    assert not (bn.weight == 7).any()


def test_torch_files_hold_float32_and_a_count_of_rank_zero():
    state = {name: np.float32([1, 2, 3, 4, 5, 6]) for name in KEYS[:4]} | {KEYS[4]: np.array(12, np.int64)}
    bn = cpubn.BatchNorm1d(6)
    bn.load_state_dict(state)
    assert bn.num_batches_tracked == 12
    assert bn.running_mean.dtype == np.float64
    check_same({name: bn.state_dict()[name] for name in KEYS}, state)


@pytest.mark.parametrize("count", [12, np.uint8(12), np.array([12], np.int32), [12]])
def test_a_count_may_be_of_any_integers(count):
    bn = cpubn.BatchNorm1d(6)
    bn.load_state_dict(bn.state_dict() | {KEYS[4]: count})
    assert bn.num_batches_tracked == 12
    assert type(bn.num_batches_tracked) is int


def test_a_cumulative_average_goes_on_after_loading():
    bn = cpubn.BatchNorm1d(6, momentum=None)
    for k in range(3):
        bn(X + k)
    other = cpubn.BatchNorm1d(6, momentum=None)
    other.load_state_dict(bn.state_dict())
    bn(X + 3)
    other(X + 3)
    check_same(other.state_dict(), bn.state_dict())
    np.testing.assert_allclose(bn.running_mean, X.mean(0, dtype=float) + 1.5, rtol=1e-5)


class NoArray:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("no numbers here")


# key, value, error, message; a value of None takes the key away
BAD = {
    "a missing key": ("bias", None, ValueError, "keys weight, bias, .*got .*missing: bias"),
    "an unexpected key": ("scale", np.ones(6), ValueError, "keys weight, bias, .*got .*unexpected: scale"),
    "another length": ("running_var", np.ones(5), ValueError, r"running_var must have shape \(6,\).*got \(5,\)"),
    "another rank": ("bias", np.ones((6, 1)), ValueError, r"bias must have shape \(6,\).*got \(6, 1\)"),
    "integers": ("running_mean", np.full(6, 2**53 + 1), ValueError, "running_mean must hold whole numbers .*got 90"),
    "booleans": ("running_mean", np.ones(6, bool), TypeError, "running_mean must be .*integers, got .*bool"),
    "too much for float32": ("weight", np.full(6, 1e39), ValueError, "weight must fit the layer's float32, got 1e"),
    "complex": ("weight", np.ones(6, complex), TypeError, "weight must be .*float.*got .*complex128"),
    "a negative count": (KEYS[4], np.int64(-1), (TypeError, ValueError), "num_batches_tracked must .*got .*-1"),
    "a count of 1.5": (KEYS[4], np.float64(1.5), TypeError, r"num_batches_tracked must .*got .*1\.5"),
    "a count that cannot be read": (
        KEYS[4],
        NoArray(),
        TypeError,
        "num_batches_tracked must be .*got NoArray: no numbers",
    ),
    "a vector that cannot be read": ("bias", NoArray(), TypeError, "bias must be an array, got NoArray: no numbers"),
    "a masked count": (
        KEYS[4],
        np.ma.array(3, mask=True),
        TypeError,
        "num_batches_tracked must be a plain array, got a m",
    ),
    "a masked vector": ("bias", np.ma.ones(6), TypeError, "bias must be a plain array, got a masked array;"),
    "a masked number": (
        "bias",
        [1.0] * 5 + [np.ma.masked],
        TypeError,
        "bias must be a plain array, got a .* in a list",
    ),
    "two counts": (KEYS[4], np.array([1, 2]), ValueError, "num_batches_tracked must .*got"),
}


@pytest.mark.parametrize(("key", "value", "error", "match"), BAD.values(), ids=list(BAD))
def test_a_bad_state_is_refused_whole(key, value, error, match):
    bn = cpubn.BatchNorm1d(6)
    bn(X)
    expected = bn.state_dict()
    state = {name: v for name, v in (trained().state_dict() | {key: value}).items() if v is not None}
    with pytest.raises(error, match=match):
        bn.load_state_dict(state)
    check_same(bn.state_dict(), expected)


@pytest.mark.parametrize("name", ["weight", "running_var"])
def test_a_vector_of_the_users_own_that_cannot_be_written_to(name):
    bn = cpubn.BatchNorm1d(3)
    setattr(bn, name, np.broadcast_to(getattr(bn, name)[:1], 3))
    before = bn.state_dict()
    with pytest.raises(ValueError, match=f"{name} must be writeable, because load_state_dict updates it"):
        bn.load_state_dict({key: value + 1 for key, value in before.items()})
    if name == "running_var":
        bn.running_mean[:] = 5.0
        before = bn.state_dict()
        with pytest.raises(ValueError, match="running_var must be writeable, because reset_running_stats updates it"):
            bn.reset_running_stats()
    for key, value in before.items():
        np.testing.assert_array_equal(bn.state_dict()[key], value)
    bn.weight_grad = np.broadcast_to(0.0, 3)
    with pytest.raises(ValueError, match="weight_grad must be writeable, because zero_grad updates it"):
        bn.zero_grad()


def test_a_state_that_is_no_mapping_is_refused():
    with pytest.raises(TypeError, match=r"state must be a mapping.*got list"):
        cpubn.BatchNorm1d(6).load_state_dict([1, 2])


def test_a_list_in_itself_is_refused():
    value = [1.0]
    value.append(value)
    with pytest.raises((TypeError, ValueError), match=r"bias must be an array"):
        cpubn.BatchNorm1d(2).load_state_dict(cpubn.BatchNorm1d(2).state_dict() | {"bias": value})


@pytest.mark.parametrize("made", ["layer", "frozen", "quantized"])
def test_a_pickle_holds_nothing_of_a_private_module(made):
    """So that another version reads it, whatever was moved; and layers by the name that they had before they were."""
    bn = cpubn.BatchNorm1d(6, activation=("leaky_relu", 0.1))
    bn(X)
    numbers = {"scale": 0.1, "zero_point": 3, "out_scale": 0.2, "out_zero_point": -1, "activation": "relu6"}
    vectors = {name: getattr(bn, name) for name in ("weight", "bias", "running_mean", "running_var")}
    a = {"layer": bn, "frozen": bn.freeze(), "quantized": cpubn.FrozenBatchNorm.quantized(**vectors, **numbers)}[made]
    pickled = pickle.dumps(a, protocol=2)
    names = {argument for code, argument, _ in pickletools.genops(pickled) if code.name == "GLOBAL"}
    own = {name for name in names if name.startswith("cpubn")}
    assert own == {f"{type(a).__module__} {type(a).__name__}"}
    again = pickle.loads(pickled.replace(b"cpubn.layers.batch_norm\n", b"cpubn.layers\n"))
    assert repr(again) == repr(a)
    x = np.arange(12, dtype=np.int8).reshape(2, 6) if made == "quantized" else X
    np.testing.assert_array_equal(again(x), a(x))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda bn: pickle.loads(pickle.dumps(bn))])
def test_a_copy_goes_its_own_way(duplicate, backend):
    bn = with_parameters(cpubn.BatchNorm1d(6, momentum=None, layout="NHWC", backend=backend))
    x, other, _ = batches((10, 6, 7), "NHWC")
    bn(x)
    before = bn.state_dict()
    twin = duplicate(bn)
    assert repr(twin) == repr(bn)
    np.testing.assert_array_equal(twin.eval()(other), copy.copy(bn).eval()(other))
    twin.train()(other)
    for name, expected in before.items():
        np.testing.assert_array_equal(bn.state_dict()[name], expected)
    bn.train()(other)
    for name, expected in bn.state_dict().items():
        np.testing.assert_array_equal(twin.state_dict()[name], expected)


def test_parameters_are_those_of_the_layer(backend):
    bn = cpubn.BatchNorm1d(6, backend=backend)
    x, _, dy = batches((40, 6))
    bn(x)
    bn.backward(dy)
    assert [name for name, _, _ in bn.parameters()] == ["weight", "bias"]
    for name, value, gradient in bn.parameters():
        assert value is getattr(bn, name)
        assert gradient is getattr(bn, f"{name}_grad")
        value -= 0.1 * gradient
    assert np.abs(bn.weight - 1.0).max() > 0.0
    assert list(cpubn.BatchNorm1d(6, affine=False).parameters()) == []


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_list_becomes_an_array_of_the_layers_type(dtype, backend):
    bn = cpubn.BatchNorm1d(3, dtype=dtype, backend=backend)
    bn.weight, bn.running_mean = [1, 2, 3], (0.5, 0, 0)
    assert (bn.weight.dtype, bn.running_mean.dtype) == (dtype, np.float64)
    bn.weight += 0.5
    np.testing.assert_array_equal(bn.state_dict()["weight"], [1.5, 2.5, 3.5])
    bn(X[:, :3])
    assert bn.num_batches_tracked == 1


def test_a_list_or_number_that_is_no_vector_is_refused():
    bn = cpubn.BatchNorm1d(3)
    for value, error in (
        ([1, 2], ValueError),
        ([[1, 2, 3]], ValueError),
        (["1", "2", "3"], TypeError),
        (2.0, ValueError),
    ):
        with pytest.raises(error, match=r"weight must .* got .*; "):
            bn.weight = value
    np.testing.assert_array_equal(bn.weight, np.ones(3))


def test_no_batch_of_several_threads_is_lost():
    """Running statistics are read when they are moved: read before the kernels ran, they lost what came meanwhile."""
    need_backend("cython")
    bn = cpubn.BatchNorm2d(4, momentum=0.01, backend="cython")
    x = np.ones((32, 4, 64, 64), np.float32)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: bn(x), range(60)))
    assert bn.num_batches_tracked == 60
    np.testing.assert_allclose(bn.running_mean, 1 - 0.99**60, rtol=1e-12)
