"""Layers with policies, and batches to try them on."""

import numpy as np
import pytest

import cpubn
from cpubn.ask.policies import CHOICES

C = 3
OTHERS = [(name, value) for name, choices in CHOICES.items() for value in choices[1:]]
each_shape = pytest.mark.parametrize(("layout", "shape"), [("NCHW", (6, C, 5)), ("NHWC", (6, 5, C)), ("NCHW", (6, C))])
each_activation = pytest.mark.parametrize("activation", [None, "relu", "silu"])
each_dtype = pytest.mark.parametrize("dtype", ["float16", np.float32, np.float64])


def made(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(2, 3, shape).astype(dtype)


def layer(**how):
    """One that has seen a batch."""
    bn = cpubn.BatchNorm1d(C, **how)
    bn.weight[:], bn.bias[:] = [1.5, -2, 0.5], [0.25, 1, -1]
    usual = {name: getattr(bn, name) for name in CHOICES}
    for name, choices in CHOICES.items():
        setattr(bn, name, choices[0])
    bn(made((8, C), seed=1))
    for name, value in usual.items():
        setattr(bn, name, value)
    return bn


def arrays(bn):
    return {**bn.state_dict(), "weight_grad": bn.weight_grad.copy(), "bias_grad": bn.bias_grad.copy()}


def check_same(got, expected):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def spoilt(x, layout, value=np.nan, channel=1):
    x = x.copy()
    np.moveaxis(x, 1 if layout == "NCHW" else -1, 0)[channel].flat[0] = value
    return x
