"""Conversion from and to Keras 3, which runs the weights that it gave and those that it was given."""

import os
import warnings

import numpy as np
import pytest
from conftest import need_library
from norms import (
    BATCHES,
    BIAS,
    CLOSE,
    EPS,
    LAST,
    WEIGHT,
    C,
    M,
    X,
    channels_last,
    check_frozen_and_layer,
    check_running_statistics,
    trained_layer,
)

from cpubn import convert

os.environ.setdefault("KERAS_BACKEND", "numpy")
for name in ("keras",):
    need_library(name, "frameworks")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    import keras


pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras's variables


def keras_layer(**how):
    layer = keras.layers.BatchNormalization(**{"axis": -1, "momentum": 0.8, "epsilon": EPS} | how)
    layer.build((None, 6, 6, C) if layer.axis == -1 else (None, C, 6, 6))
    for variable, value in zip(layer.trainable_weights, (WEIGHT, BIAS), strict=False):
        variable.assign(value)
    return layer


def run_keras(layer, x, training=False):
    return np.array(keras.ops.convert_to_numpy(layer(x, training=training)))


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize(("center", "scale"), [(True, True), (True, False), (False, True), (False, False)])
def test_from_keras(axis, center, scale):
    layer = keras_layer(axis=axis, center=center, scale=scale)
    batches = BATCHES if axis == 1 else [channels_last(x) for x in BATCHES]
    for x in batches[:3]:
        run_keras(layer, x, training=True)
    weights = dict(zip([v.name for v in layer.weights], layer.get_weights(), strict=True))
    fields = {name: layer.get_config()[name] for name in ("epsilon", "momentum", "axis", "center", "scale")}
    norm = convert.from_keras(weights, **fields)[""]
    assert norm.momentum == 0.2
    bn = check_frozen_and_layer(norm, batches[-1], run_keras(layer, batches[-1]))
    assert (bn.weight is None) == (not center and not scale)
    np.testing.assert_allclose(bn(batches[-1]), run_keras(layer, batches[-1], training=True), **CLOSE)
    check_running_statistics(bn, layer.moving_mean.numpy(), layer.moving_variance.numpy())


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("affine", [True, False])
def test_to_keras(layout, affine):
    bn = trained_layer(layout, affine=affine)
    x = X if layout == "NCHW" else LAST
    kept, config = convert.to_keras({"bn": bn}, values_per_channel=None)
    layer = load_keras(kept, config, x)
    assert layer.momentum == 0.7
    np.testing.assert_allclose(run_keras(layer, x), bn(x), **CLOSE)
    weights, config = convert.to_keras({"bn": bn}, values_per_channel=M)
    layer = load_keras(weights, config, x)
    np.testing.assert_allclose(run_keras(layer, x, training=True), bn.train()(x), **CLOSE)
    check_running_statistics(bn, layer.moving_mean.numpy(), layer.moving_variance.numpy())


def load_keras(weights, config, x):
    layer = keras.layers.BatchNormalization(**config["bn"], name="bn")
    layer.build(x.shape)
    assert {v.path for v in layer.weights} == set(weights)
    for variable in layer.weights:
        variable.assign(weights[variable.path])
    return layer


def test_a_whole_keras_model():
    model = keras.Sequential(
        [
            keras.Input((6, 6, C)),
            keras.layers.BatchNormalization(name="first", epsilon=EPS),
            keras.layers.Conv2D(C, 1),
            keras.layers.LayerNormalization(),
            keras.layers.BatchNormalization(name="second", epsilon=1e-2, scale=False),
        ],
        name="model",
    )
    for x in BATCHES[:3]:
        model(channels_last(x), training=True)
    layers = {f"model/{layer.name}": layer for layer in model.layers if "batch" in type(layer).__name__.lower()}
    norms = convert.from_keras(
        {v.path: v.numpy() for v in model.weights},
        epsilon={name: layer.epsilon for name, layer in layers.items()},
        momentum=0.99,
    )
    assert list(norms) == list(layers) == ["model/first", "model/second"]
    for name, layer in layers.items():
        np.testing.assert_allclose(norms[name].freeze()(LAST), run_keras(layer, LAST), **CLOSE)
    assert norms["model/first"].momentum == 0.01
