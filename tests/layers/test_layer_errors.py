"""Bad input to the layers: refused with the layer, its statistics, count and gradients as they were."""

import bad
import numpy as np
import pytest

import cpubn

LAYERS = [cpubn.BatchNorm1d, cpubn.BatchNorm2d, cpubn.BatchNorm3d]
X = np.arange(12.0).reshape(4, 3)

MAKE = bad.LAYOUT | bad.EPS | bad.MOMENTUM | bad.BACKEND | {
    "num_features -1": ("num_features", -1, ValueError, "num_features must .*got -1"),
    "num_features 3.0": ("num_features", 3.0, TypeError, "num_features must be a whole number, got 3.0"),
    "num_features True": ("num_features", True, TypeError, "num_features must be a whole number, got True"),
    "num_features None": ("num_features", None, TypeError, "num_features must be a whole number, got None"),
    "eps 0": ("eps", 0, ValueError, "eps must be above 0.*got 0"),
    "affine of a string": ("affine", "False", TypeError, "affine must be True or False, got 'False'; pass a bool"),
    "affine 1": ("affine", 1, TypeError, "affine must be True or False, got 1"),
    "tracking None": ("track_running_stats", None, TypeError, "track_running_stats must be True or False, got None"),
    "dtype of integers": ("dtype", "int32", TypeError, "dtype must be float32 or float64, got int32"),
    "dtype of half": ("dtype", np.float16, TypeError, "dtype must be float32 or float64, got float16"),
    "dtype that is none": ("dtype", "real", TypeError, "dtype must be float32 or float64, got .*real"),
} | {
    f"dtype {dtype!r}": ("dtype", dtype, TypeError, "dtype must be float32 or float64, got")
    for dtype in bad.NO_DTYPE
}  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("name", "value", "error", "match"), MAKE.values(), ids=list(MAKE))
def test_a_layer_that_cannot_be_made(name, value, error, match, layer):
    with pytest.raises(error, match=match):
        layer(**{"num_features": 3} | {name: value})


def everything(bn):
    return {**bn.state_dict(), "weight_grad": bn.weight_grad.copy(), "bias_grad": bn.bias_grad.copy()}


def check_refused(bn, call, error, match):
    expected = everything(bn)
    with pytest.raises(error, match=match):
        call()
    got = everything(bn)
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name])


CALL = {f"x of {kind}": ("x", *value) for kind, value in bad.DATA.items()} | bad.out() | {
    "other channels": ("x", np.ones((3, 4)), ValueError, r"x must have 3 channels .*got 4 in shape \(3, 4\)"),
    "an out that overlaps weight": ("out", None, ValueError, "out must not overlap weight, got"),
}  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "value", "error", "match"), CALL.values(), ids=list(CALL))
def test_a_bad_call(name, value, error, match, training):
    bn = cpubn.BatchNorm1d(3)
    if value is None and name == "out":
        value = np.ones((4, 3))
        bn.weight = value[1]
    bn(X)
    bn.train(training)
    check_refused(bn, lambda: bn(**{"x": X} | {name: value}), error, match)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("rank", [1, 2, 3, 4, 5, 6])
def test_ranks(layer, rank):
    bn = layer(3)
    x = np.ones((4, 3, 2, 2, 2, 2)[:rank])
    if rank in {cpubn.BatchNorm1d: (2, 3), cpubn.BatchNorm2d: (4,), cpubn.BatchNorm3d: (5,)}[layer]:
        assert bn(x).shape == x.shape
    else:
        check_refused(bn, lambda: bn(x), ValueError, f"dimensions, got {rank} ")


def test_one_value_per_channel_in_training():
    bn = cpubn.BatchNorm1d(3)
    check_refused(bn, lambda: bn(X[:1]), ValueError, r"more than 1 value per channel.*got .*\(1, 3\)")
    bn.eval()(X[:1])


def test_backward_before_forward():
    bn = cpubn.BatchNorm1d(3)
    check_refused(
        bn,
        lambda: bn.backward(X),
        RuntimeError,
        "backward needs .*got none: the layer was not called; call the layer first",
    )


@pytest.mark.parametrize("view", [lambda x: x, lambda x: x[:]], ids=["x itself", "a view of it"])
@pytest.mark.parametrize("training", [True, False])
def test_backward_after_in_place(training, view):
    bn = cpubn.BatchNorm1d(3).train(training)
    x = X.copy()
    bn(x, out=view(x))
    check_refused(
        bn, lambda: bn.backward(X), RuntimeError, "backward needs .*input.*overwritten by out; .*output of its own"
    )
    bn(x)
    bn.backward(X)


def test_backward_after_backward_wrote_over_x():
    bn = cpubn.BatchNorm1d(3)
    x = X.copy()
    bn(x)
    bn.backward(X, out=x, retain=True)
    check_refused(bn, lambda: bn.backward(X), RuntimeError, "backward needs .*overwritten")


def test_a_refused_call_keeps_the_input_of_the_one_before():
    bn = cpubn.BatchNorm1d(3)
    bn(X)
    expected = bn.backward(X, retain=True)
    with pytest.raises(ValueError, match="channels"):
        bn(X.T)
    np.testing.assert_array_equal(bn.backward(X), expected)


BACKWARD = {f"dy of {kind}": ("dy", *value) for kind, value in bad.DATA.items()} | bad.out() | {
    "dy of another shape": ("dy", np.ones((3, 4)), ValueError, r"dy must have .*\(4, 3\), got \(3, 4\)"),
    "dy of another dtype": ("dy", np.ones((4, 3), np.float32), TypeError, "dy must have .*float64, got float32"),
}  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "value", "error", "match"), BACKWARD.values(), ids=list(BACKWARD))
def test_a_bad_backward(name, value, error, match, training):
    bn = cpubn.BatchNorm1d(3)
    bn(X)
    bn.train(training)(X)
    bn.backward(X, retain=True)
    check_refused(bn, lambda: bn.backward(**{"dy": X} | {name: value}), error, match)


@pytest.mark.parametrize("mode", ["no", 1, None, np.ones(1, bool)])
def test_a_mode_is_a_bool(mode):
    bn = cpubn.BatchNorm1d(3)
    check_refused(bn, lambda: bn.train(mode), TypeError, "mode must be True or False, got .*; pass a bool")
    for name in ("training", "track_running_stats"):
        check_refused(bn, lambda name=name: setattr(bn, name, mode), TypeError, f"{name} must be True or False, got")
    bn(X)
    check_refused(bn, lambda: bn.backward(X, retain=mode), TypeError, "retain must be True or False, got")
    assert bn.train(np.False_).training is False


@pytest.mark.parametrize(("name", "near"), [("momentun", "momentum"), ("runing_var", "running_var"), ("lr", None)])
def test_an_attribute_that_a_layer_does_not_have(name, near):
    bn = cpubn.BatchNorm1d(3)
    nearest = f"; the nearest is {near}" if near else ""
    with pytest.raises(
        AttributeError, match=f"^{name} is no attribute of a layer that can be set{nearest}; there are w"
    ):
        setattr(bn, name, 0.5)
    with pytest.raises(AttributeError):
        getattr(bn, name)

    class Own(cpubn.BatchNorm1d):
        pass

    own = Own(3)
    setattr(own, name, 0.5)
    assert getattr(own, name) == 0.5


@pytest.mark.parametrize("name", ["num_features", "affine", "layout", "activation", "backend"])
def test_what_a_layer_was_made_with_stays(name):
    bn = cpubn.BatchNorm1d(3)
    before = getattr(bn, name)
    with pytest.raises(AttributeError, match=f"{name} must stay as it is, got 'relu'; build another layer"):
        setattr(bn, name, "relu")
    assert getattr(bn, name) == before
