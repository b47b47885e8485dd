"""Variances that cannot be divided by: refused in every way into inference and backward; NaN passes through."""

import copy
import re

import cases
import numpy as np
import pytest
from test_quantized import NUMBERS

import cpubn

CONSTANT = "a constant channel has variance 0 and needs an eps above 0"
NEGATIVE = "no variance is negative: check that {mean} and {var} are not in each other's place"
# variances, eps, what was got, and the likeliest cause
WRONG = {
    "constant": ([1.0, 0.0, 0.0], 0, "0 and eps 0 in channel 1", CONSTANT),
    "constant, minus zero": ([1.0, 3.0, -0.0], 0.0, "-0 and eps 0 in channel 2", CONSTANT),
    "negative": ([-0.5, 2.0, -1.0], 1e-5, "-0.5 and eps 1e-05 in channel 0", NEGATIVE),
    "negative and NaN": ([np.nan, 2.0, -1.0], 0.5, "-1 and eps 0.5 in channel 2", NEGATIVE),
    "as far below 0 as eps is above": ([1.0, -0.25, 1.0], 0.25, "-0.25 and eps 0.25 in channel 1", NEGATIVE),
    "infinitely negative": ([1.0, -np.inf, 1.0], 1e-5, "-inf and eps 1e-05 in channel 1", NEGATIVE),
}
wrong = pytest.mark.parametrize(("var", "eps", "got", "why"), WRONG.values(), ids=list(WRONG))


def check_refused(call, got, why, mean="running_mean", var="running_var"):
    match = re.escape(
        f"{var} + eps must be above 0 in every channel, got {var} {got}; {why.format(mean=mean, var=var)}"
    )
    with pytest.raises(ValueError, match=f"^{match}"):
        call()


@wrong
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_inference(layout, dtype, var, eps, got, why, backend):
    x = cases.make("offset 1", (4, 3, 6, 5), layout, dtype)
    running, how = (np.zeros(3, dtype), np.array(var, dtype)), {"layout": layout, "eps": eps, "backend": backend}
    for given in (x, x[::2], x[:0]):
        out = np.full_like(given, 7)
        check_refused(lambda given=given, out=out: cpubn.batch_norm(given, *running, out=out, **how), got, why)
        assert (out == 7).all()
    check_refused(lambda: cpubn.batch_norm(x, *running, return_moments=True, **how), got, why)
    check_refused(lambda: cpubn.batch_norm(x.astype(np.uint8), *running, dtype="float32", **how), got, why)
    check_refused(lambda: cpubn.FrozenBatchNorm(**cases.named(*running), **how), got, why)
    check_refused(lambda: cpubn.FrozenBatchNorm.quantized(**cases.named(*running), **NUMBERS["int8"], **how), got, why)


def test_a_layer(backend):
    x = cases.make("offset 1", (4, 3, 5))
    bn = cpubn.BatchNorm1d(3, backend=backend).eval()
    bn(x)
    bn.running_var[2] = -3
    before = copy.deepcopy(bn.state_dict())
    got = "-3 and eps 1e-05 in channel 2"
    for call in (lambda: bn(x), lambda: bn(x[::2]), bn.freeze):
        check_refused(call, got, NEGATIVE)
    check_refused(lambda: bn.backward(x), got, NEGATIVE, "mean", "var")
    for name, vector in bn.state_dict().items():
        np.testing.assert_array_equal(vector, before[name])


@wrong
@pytest.mark.parametrize("training", [True, False])
def test_backward(training, var, eps, got, why, backend):
    if training and not eps:
        return
    x = cases.make("offset 1", (4, 3, 6, 5))
    for given in (x, x[::2]):
        out = np.full_like(given, 7)
        how = {"eps": eps, "training": training, "out": out, "backend": backend}
        for activation in (None, "relu"):
            check_refused(
                lambda given=given, how=how, activation=activation: cpubn.batch_norm_backward(
                    given, given, np.zeros(3), np.array(var), activation=activation, **how
                ),
                got, why, "mean", "var",
            )  # fmt: skip
        assert (out == 7).all()


@pytest.mark.parametrize("nan", [np.nan, -np.nan], ids=["NaN", "NaN with a sign"])
@pytest.mark.parametrize("channels", [3, 4, 33])
def test_nan_passes_through(channels, nan, backend):
    x = cases.make("offset 1", (4, channels, 5))
    var = np.ones(channels)
    var[1], var[2] = nan, -1e-6  # which eps makes up for
    running, how = (np.zeros(channels), var), {"eps": 1e-5, "backend": backend}
    dx, dweight, _ = cpubn.batch_norm_backward(x, x, *running, training=False, **how)
    frozen = cpubn.FrozenBatchNorm(**cases.named(*running), **how)
    for given in (x, x[::2]):
        for y in (cpubn.batch_norm(given, *running, **how), frozen(given)):
            np.testing.assert_array_equal(np.isnan(y).any(axis=(0, 2)), np.isnan(var))
    np.testing.assert_array_equal(np.isnan(dx).any(axis=(0, 2)), np.isnan(var))
    np.testing.assert_array_equal(np.isnan(dweight), np.isnan(var))


def test_no_channels(backend):
    x, running, how = np.empty((4, 0, 5), np.float32), (np.empty(0), np.empty(0)), {"eps": 0, "backend": backend}
    assert cpubn.batch_norm(x, *running, **how).shape == x.shape
    assert cpubn.FrozenBatchNorm(**cases.named(*running), **how)(x).shape == x.shape


@pytest.mark.parametrize("channels", [1, 2, 7, 64, 1000])
def test_one_channel_of_many(channels, backend):
    x = np.ones((2, channels), np.float32)
    for channel in {0, channels // 2, channels - 1}:
        var = np.ones(channels)
        var[channel] = -1
        check_refused(
            lambda var=var: cpubn.batch_norm(x, np.zeros(channels), var, backend=backend),
            f"-1 and eps 1e-05 in channel {channel}",
            NEGATIVE,
        )
