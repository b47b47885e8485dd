"""Masks of Keras and Flax, where they are right: the same outputs where elements count, and the same running means."""

import os
import warnings

import numpy as np
import pytest
from conftest import need_library

import cpubn

os.environ.setdefault("KERAS_BACKEND", "numpy")
for name in ("keras", "flax"):
    need_library(name, "frameworks")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of their own imports
    import keras
    from flax import nnx

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
rng = np.random.default_rng(0)
X = rng.normal(3, 2, (6, 20, 4)).astype(np.float32)
POSITIONS = rng.random((6, 20)) < 0.6


def ours(mask):
    bn = cpubn.BatchNorm1d(4, eps=1e-3, momentum=0.1, layout="NHWC")
    return bn, bn(X, mask=mask)


def test_keras():
    theirs = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3)
    theirs.build(X.shape)
    y = np.asarray(theirs(X, mask=POSITIONS, training=True))
    bn, own = ours(POSITIONS)
    np.testing.assert_allclose(own[POSITIONS], y[POSITIONS], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bn.running_mean, np.asarray(theirs.moving_mean), rtol=1e-5)
    count = POSITIONS.sum()
    biased = 0.9 + (bn.running_var - 0.9) * (count - 1) / count
    np.testing.assert_allclose(biased, np.asarray(theirs.moving_variance), rtol=1e-5)
    assert y[~POSITIONS].all()  # normalized, and not 0
    spoiled = theirs(np.where(POSITIONS[..., None], X, np.float32(np.nan)), mask=POSITIONS, training=True)
    assert (np.isnan(np.asarray(spoiled)) == ~POSITIONS[..., None]).all()


@pytest.mark.parametrize("mask", [POSITIONS, rng.random(X.shape) < 0.6], ids=["positions", "elements"])
def test_flax(mask):
    theirs = nnx.BatchNorm(4, momentum=0.9, epsilon=1e-3, rngs=nnx.Rngs(0))
    full = np.broadcast_to(mask.reshape(*mask.shape, *[1] * (3 - mask.ndim)), X.shape)
    y = np.asarray(theirs(X, use_running_average=False, mask=full))
    bn, own = ours(mask)
    np.testing.assert_allclose(own[full], y[full], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bn.running_mean, np.asarray(theirs.mean[...]), rtol=1e-5)
    count = cpubn.moments(X, layout="NHWC", mask=mask).count
    biased = 0.9 + (bn.running_var - 0.9) * (count - 1) / count
    np.testing.assert_allclose(biased, np.asarray(theirs.var[...]), rtol=1e-5)
    assert y[~full].all()
