"""What the conversion tests share: batches, a layer of cpubn that has seen them, and what must agree."""

import numpy as np

import cpubn

C, M = 5, 4 * 6 * 6  # channels, and values per channel of a batch
EPS = 3e-3  # nobody's default
CLOSE = {"rtol": 2e-5, "atol": 2e-5}
RNG = np.random.default_rng(1)
SPREAD = np.linspace(0.1, 3, C)[:, None, None]
BATCHES = [(RNG.normal(3, 2, (4, C, 6, 6)) * SPREAD).astype(np.float32) for _ in range(4)]
X = BATCHES[-1]
WEIGHT, BIAS = RNG.uniform(0.5, 2, (2, C)).astype(np.float32)


def channels_last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


LAST = channels_last(X)


def trained_layer(layout="NCHW", **how):
    """A layer of cpubn in eval mode, with running statistics of the first three batches."""
    bn = cpubn.BatchNorm2d(C, EPS, 0.3, layout=layout, **how)
    if bn.weight is not None:
        bn.weight[...], bn.bias[...] = WEIGHT, BIAS
    for x in BATCHES[:3]:
        bn(x if layout == "NCHW" else channels_last(x))
    return bn.eval()


def check_frozen_and_layer(norm, x, expected):
    """Inference agrees, both frozen and in a layer that keeps the variance; returns a layer to train on."""
    np.testing.assert_allclose(norm.freeze()(x), expected, **CLOSE)
    np.testing.assert_allclose(norm.layer(cpubn.BatchNorm2d, values_per_channel=None).eval()(x), expected, **CLOSE)
    return norm.layer(cpubn.BatchNorm2d, values_per_channel=M)


def check_running_statistics(bn, mean, biased_var):
    """After a step of training in both."""
    mean, biased_var = np.asarray(mean, np.float64), np.asarray(biased_var, np.float64)
    np.testing.assert_allclose(bn.running_mean, mean, **CLOSE)
    np.testing.assert_allclose(bn.running_var, biased_var * M / (M - 1), **CLOSE)
    assert not np.allclose(bn.running_var, biased_var, **CLOSE)


def check_same(got, expected):
    """Two Norms say the same, bit by bit."""
    assert list(got.vectors()) == list(expected.vectors())
    for name, vector in expected.vectors().items():
        np.testing.assert_array_equal(got.vectors()[name], vector)
    for name in ("eps", "momentum", "num_batches_tracked", "variance", "layout"):
        assert getattr(got, name) == getattr(expected, name)
