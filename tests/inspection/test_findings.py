"""Each kind of finding, just inside its criterion and just outside."""

import numpy as np
import pytest

import cpubn
from cpubn import convert

FLOAT32_STEP_AT_1000 = float(np.spacing(np.float32(1000)))
ABOVE, BELOW = 1 + 2.0**-40, 1 - 2.0**-40


def frozen(mean=0.5, var=2.0, weight=1.0, bias=0.25, eps=1e-5):
    """One norm of three channels, of which the last has what is given, and the others what is usual."""
    usual = {"running_mean": 0.5, "running_var": 2.0, "weight": 1.0, "bias": 0.25}
    given = {"running_mean": mean, "running_var": var, "weight": weight, "bias": bias}
    vectors = {name: np.array([usual[name], usual[name] * 0.9, given[name]]) for name in usual}
    return cpubn.FrozenBatchNorm(**vectors, eps=eps)


def kinds(norm, channel=2, batch=None):
    report = cpubn.health(norm, batch)[""]
    return {finding.kind for finding in report.findings if channel in finding.channels}


def test_what_is_usual_has_no_finding():
    assert kinds(frozen()) == kinds(frozen(), 0) == set()
    assert cpubn.health(frozen()).is_healthy


# The output's deviation is |weight| * sqrt(var / (var + eps)); with eps=0 that is |weight|, and the others' is 1.
@pytest.mark.parametrize(("dead", "norm"), [
    (True, {"weight": 0.0}),
    (True, {"var": 0.0}),
    (True, {"weight": 2.0**-24 * BELOW, "bias": 0.0, "eps": 0.0}),
    (False, {"weight": 2.0**-24, "bias": 0.0, "eps": 0.0}),
    (True, {"weight": -3 * 2.0**-24 * BELOW, "bias": -3.0, "eps": 0.0}),
    (False, {"weight": -3 * 2.0**-24, "bias": -3.0, "eps": 0.0}),
    (True, {"var": 2.0**-50 * 0.888, "mean": 0.0, "bias": 0.0, "eps": 0.25}),  # of 2 / (2 + eps) = 0.8889
    (False, {"var": 2.0**-50 * 0.889, "mean": 0.0, "bias": 0.0, "eps": 0.25}),
])  # fmt: skip
def test_dead(dead, norm):
    assert ("dead" in kinds(frozen(**norm))) == dead


def test_dead_of_float32_data():
    """An output that the criterion calls dead is one number over six deviations of the input; else it is not."""
    weight = np.array([1.0, 2.0**-24 * 0.99, 2.0**-22])
    norm = cpubn.FrozenBatchNorm(weight=weight, bias=np.ones(3), running_mean=np.zeros(3), running_var=np.ones(3))
    y = norm(np.linspace(-0.5, 0.5, 99, dtype=np.float32)[:, None].repeat(3, 1))
    assert [len(np.unique(channel)) > 1 for channel in y.T] == [True, False, True]
    assert cpubn.health(norm)[""].channels("dead") == (1,)


@pytest.mark.parametrize(("narrow", "mean", "var"), [
    (True, 1000.0, FLOAT32_STEP_AT_1000**2 * BELOW),
    (False, 1000.0, FLOAT32_STEP_AT_1000**2),
    (True, -1000.0, FLOAT32_STEP_AT_1000**2 * BELOW),
    (False, 511.0, FLOAT32_STEP_AT_1000**2 * BELOW),
    (True, 0.0, 2.0**-126 * BELOW),
    (False, 0.0, 2.0**-126),
    (True, 0.0, 5.6e-45),  # what is left of 1 after ever so many batches of momentum 0.1 in float32
])  # fmt: skip
def test_near_constant(narrow, mean, var):
    assert ("near-constant" in kinds(frozen(mean=mean, var=var))) == narrow


# scale = weight with eps=0 and a variance of 1.
@pytest.mark.parametrize(("kind", "weight"), [
    ("float16 overflow", 65520.0),
    (None, np.nextafter(65520.0, 0)),
    ("float16 overflow", -65520.0),
    ("float16 underflow", 2.0**-25),
    (None, np.nextafter(2.0**-25, 1)),
    ("float16 underflow", -(2.0**-25)),
    (None, 0.0),
])  # fmt: skip
def test_float16_is_what_a_fold_into_float16_gives(kind, weight):
    vectors = {"running_mean": np.zeros(3), "running_var": np.ones(3), "bias": np.zeros(3)}
    norm = cpubn.FrozenBatchNorm(weight=np.array([1e-4, 1e-4, weight]), **vectors, eps=0.0)
    assert {found for found in kinds(norm) if found.startswith("float16")} == ({kind} if kind else set())
    ones = np.ones((3, 1, 1, 1), np.float16)
    if kind == "float16 overflow":
        with pytest.raises(ValueError, match=r"finite in float16 once folded, got -?65520 in channel 2"):
            cpubn.fold_conv(ones, None, norm)
    else:
        folded = cpubn.fold_conv(ones, None, norm)[0].ravel()[2]
        assert (folded == 0.0) == (kind == "float16 underflow" or weight == 0.0)


@pytest.mark.parametrize(("over", "bias"), [(True, 65520.0), (False, np.nextafter(65520.0, 0)), (True, -65520.0)])
def test_float16_of_the_shift(over, bias):
    assert ("float16 overflow" in kinds(frozen(mean=0.0, bias=bias))) == over


@pytest.mark.parametrize(("kind", "weight"), [
    ("int8 underflow", 1 / 254),
    (None, 1.0001 / 254),
    ("int8 outlier", 254.0),
    (None, 253.9),
    ("int8 outlier", -254.0),
])  # fmt: skip
def test_int8_is_what_quantization_by_one_step_gives(kind, weight):
    weights = np.array([1.0, 1.0, 1.0, 1.0, weight])
    vectors = {"running_mean": np.zeros(5), "running_var": np.ones(5), "bias": np.zeros(5)}
    norm = cpubn.FrozenBatchNorm(weight=weights, **vectors, eps=0.0)
    assert {found for found in kinds(norm, 4) if found.startswith("int8")} == ({kind} if kind else set())
    folded = cpubn.fold_linear(np.ones((5, 1)), None, norm)[0].ravel()
    codes = np.rint(folded / (abs(folded).max() / 127))
    assert (codes[4] == 0) == (kind == "int8 underflow")
    assert (codes[:4] == 0).all() == (kind == "int8 outlier")


def test_dead_channels_do_not_underflow():
    report = cpubn.health(frozen(weight=1e-30))[""]
    assert [finding.kind for finding in report.findings] == ["dead"]


@pytest.mark.parametrize("weight", [1.0, -0.5])
def test_equal_weights(weight):
    vectors = {"running_mean": np.zeros(2), "running_var": np.full(2, 3.0)}
    assert "equal weights" in kinds(convert.Norm(eps=1e-5, weight=np.full(2, weight), **vectors), 1)
    nearly = np.array([weight, np.nextafter(weight, 9)])
    assert "equal weights" not in kinds(convert.Norm(eps=1e-5, weight=nearly, **vectors), 1)
    assert "equal weights" not in kinds(convert.Norm(eps=1e-5, **vectors), 1)  # which has none
    one = convert.Norm(np.zeros(1), np.full(1, 3.0), 1e-5, np.ones(1))
    assert kinds(one, 0) == set()


@pytest.mark.parametrize(("new", "mean", "var", "tracked"), [
    (True, 0.0, 1.0, 0),
    (True, 0.0, 1.0, convert.UNKNOWN),
    (False, 0.0, 1.0, 1),
    (False, 1e-300, 1.0, 0),
    (False, 0.0, np.nextafter(1.0, 2), 0),
])  # fmt: skip
def test_not_updated(new, mean, var, tracked):
    norm = convert.Norm(np.array([0.0, mean]), np.array([1.0, var]), 1e-5, num_batches_tracked=tracked)
    assert ("not updated" in kinds(norm, 0)) == new


def layer_of(var, eps=1e-5, **vectors):
    bn = cpubn.BatchNorm1d(3, eps)
    bn.num_batches_tracked = 1
    bn.weight = [1.0, 2.0, 3.0]
    bn.running_var = np.array([1.0, 1.0, var])
    for name, value in vectors.items():
        getattr(bn, name)[2] = value
    return bn


@pytest.mark.parametrize(("found", "var", "vectors"), [
    ({"broken", "negative variance"}, -1e-5, {}),
    ({"broken", "negative variance"}, -1.0, {}),
    ({"negative variance", "dead", "near-constant", "int8 outlier"}, -0.9e-5, {}),
    ({"broken"}, np.nan, {}),
    ({"broken"}, np.inf, {}),
    ({"broken"}, 1.0, {"running_mean": np.inf}),
    ({"broken"}, 1.0, {"weight": np.nan}),
    ({"broken"}, 1.0, {"bias": -np.inf}),
    ({"broken"}, 1.0, {"running_mean": np.nan}),
    (set(), 1.0, {}),
])  # fmt: skip
def test_broken(found, var, vectors):
    assert kinds(layer_of(var, **vectors)) == found
    assert "broken" not in kinds(layer_of(var, **vectors), 0)


# Deviations of mean and ratios of variance, by a batch of two values a channel, m - d and m + d: variance 2 d^2.
@pytest.mark.parametrize(("kind", "mean", "spread"), [
    ("mean drift", 2.0 * ABOVE, 1.0),
    (None, 2.0, 1.0),
    ("mean drift", -2.0 * ABOVE, 1.0),
    ("variance drift", 0.0, 2.0 * ABOVE),
    (None, 0.0, 2.0),
    ("variance drift", 0.0, 0.5 * BELOW),
    (None, 0.0, 0.5),
])  # fmt: skip
def test_drift(kind, mean, spread):
    vectors = {"running_mean": np.zeros(2), "running_var": np.full(2, 4.0)}
    norm = cpubn.FrozenBatchNorm(weight=None, bias=None, eps=0.0, **vectors)
    batch = cpubn.Moments(2, np.array([0.0, mean]), np.array([4.0, 4.0 * spread**2]))
    found = {found for found in kinds(norm, 1, batch) if found.endswith("drift")}
    assert found == ({kind} if kind else set())
    drift = cpubn.health(norm, batch)[""].drift
    assert drift.deviations[1] == mean / 2
    assert drift.ratio[1] == pytest.approx(spread**2, rel=1e-15)
    assert drift.distance[1] == pytest.approx(np.hypot(mean / 2, spread - 1), abs=1e-15)
