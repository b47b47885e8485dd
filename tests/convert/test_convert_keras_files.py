"""Files that Keras 3 writes, read without it: every batch norm as the model computes it."""

import os
import warnings
import zipfile

import numpy as np
import pytest
from conftest import need_library
from norms import BATCHES, CLOSE, LAST, C, channels_last

from cpubn import convert

os.environ.setdefault("KERAS_BACKEND", "numpy")
for name in ("keras", "h5py"):
    need_library(name, "frameworks")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    import keras

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of Keras's variables
    pytest.mark.filterwarnings("ignore::UserWarning:keras"),  # that .h5 is an old format
]


class Block(keras.layers.Layer):
    """Batch norms that no config tells of."""

    def __init__(self, **options):
        super().__init__(**options)
        self.one = keras.layers.BatchNormalization(name="nn", center=False, epsilon=5e-3)
        self.more = [keras.layers.BatchNormalization(name=f"more_{i}", epsilon=6e-3) for i in range(2)]

    def build(self, shape):
        for layer in (self.one, *self.more):
            layer.build(shape)

    def call(self, x, training=None):
        for layer in (self.one, *self.more):
            x = layer(x, training=training)
        return x


def norm_of(**options):
    return keras.layers.BatchNormalization(**{"momentum": 0.9} | options)


def model_of(inside=()):
    inner = keras.Sequential([keras.Input((6, 6, C)), norm_of(epsilon=1e-2, scale=False, name="bn")], name="inner")
    x = entry = keras.Input((6, 6, C))
    x = norm_of(name="first", epsilon=3e-3)(x)
    x = keras.layers.Conv2D(C, 1)(x)
    x = inner(x)
    x = keras.layers.TimeDistributed(norm_of(center=False, name="each"), name="timed")(x)
    x = keras.layers.LayerNormalization()(x)
    for layer in inside:
        x = layer(x)
    x = keras.Model(entry, x, name="middle")(entry)
    for i in range(11):
        x = norm_of(name=f"bn_{i}", center=i != 3, scale=i != 3, axis=-1 if i else 1)(x)
    model = keras.Model(entry, x, name="model")
    for batch in BATCHES[:3]:
        model(channels_last(batch), training=True)
    rng = np.random.default_rng(0)
    for variable in model.trainable_weights:
        variable.assign(rng.uniform(0.5, 2, variable.shape))
    return model


def norms_in(layer, names=()):
    """Every batch norm in the order of a model, by the names of the layers around it."""
    if isinstance(layer, keras.layers.BatchNormalization):
        yield "/".join(names), layer
    elif isinstance(layer, keras.layers.TimeDistributed):
        yield from norms_in(layer.layer, (*names, layer.layer.name))
    elif isinstance(layer, Block):
        for inner in (layer.one, *layer.more):
            yield from norms_in(inner, (*names, inner.name))
    else:
        for inner in getattr(layer, "layers", ()):
            yield from norms_in(inner, (*names, inner.name))


def check(norms, layers):
    assert len(norms) == len(layers)
    for norm, layer in zip(norms, layers, strict=True):
        config = layer.get_config()
        assert norm.eps == config["epsilon"]
        assert norm.layout == ("NCHW" if config["axis"] == 1 else "NHWC")
        assert set(norm.vectors()) == {"running_mean", "running_var"} | {
            ours for ours, theirs in (("bias", "center"), ("weight", "scale")) if config[theirs]
        }
        x = LAST if norm.num_features == C else np.ones((2, norm.num_features, 3, 2), np.float32)
        x = x if layer.name != "each" else x[0]
        expected = keras.ops.convert_to_numpy(layer(x, training=False))
        np.testing.assert_allclose(norm.freeze()(x), expected, **CLOSE)


def save(model, path):
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
    else:
        model.save(path)


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_whole_model_tells_all(tmp_path, name):
    model = model_of()
    layers = dict(norms_in(model))
    save(model, tmp_path / name)
    norms = convert.read(tmp_path / name)
    if name == "model.keras":
        assert list(norms) == list(layers)
        assert list(norms)[:4] == ["middle/first", "middle/inner/bn", "middle/timed/each", "bn_0"]
    else:  # as the weights are named, which to_keras can write
        weights, _ = convert.to_keras(norms, values_per_channel=None)
        paths = {v.path for v in model.weights}
        assert {key for key in weights if "middle" not in key} <= paths
    check(norms.values(), layers.values())
    assert {norm.momentum for norm in norms.values()} == {0.1}
    assert {norm.momentum for norm in convert.read(tmp_path / name, momentum=0.2).values()} == {0.2}


def test_weights_alone_are_asked_about(tmp_path):
    model = model_of([Block(name="blk")])
    save(model, tmp_path / "model.weights.h5")
    layers = dict(norms_in(model))
    with pytest.raises(ValueError, match=r"center or scale must be given, .* 3 vectors .*; pass scale=False or"):
        convert.from_keras(tmp_path / "model.weights.h5", epsilon=1e-3)
    fields = {
        keyword: {name: layer.get_config()[keyword] for name, layer in layers.items()}
        for keyword in ("epsilon", "axis", "scale")
    }
    norms = convert.from_keras(tmp_path / "model.weights.h5", **fields)
    assert set(norms) == set(layers)
    check([norms[name] for name in layers], layers.values())


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_layers_of_other_classes_are_asked_about(tmp_path, name):
    model = model_of([Block(name="blk")])
    save(model, tmp_path / name)
    scale = {} if name == "model.h5" else {"scale": {"middle/blk/nn": True}}
    with pytest.raises(ValueError, match=r"epsilon must be given, .* got none for '.*blk/.*'; pass"):
        convert.from_keras(tmp_path / name, **scale)
    with pytest.raises(
        ValueError, match=r"epsilon must be given by name, .* another than 0.005 of .*, got one for all"
    ):
        convert.from_keras(tmp_path / name, epsilon=5e-3, **scale)
    layers = dict(norms_in(model))
    asked = {f"{'model/' * (name == 'model.h5')}{key}": layer for key, layer in layers.items() if "blk" in key}
    asked = {key.replace("model/middle", "middle"): layer.epsilon for key, layer in asked.items()}
    norms = convert.from_keras(tmp_path / name, epsilon=asked, **scale)
    assert len(norms) == len(layers)
    for key, epsilon in asked.items():
        assert norms[key].eps == epsilon


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_a_single_layer(tmp_path, name):
    model = keras.Sequential([keras.Input((C,)), norm_of(name="bn", renorm=False)])
    save(model, tmp_path / name)
    assert list(convert.read(tmp_path / name, eps=1e-3)) == ["bn"]


def test_bfloat16_and_renorm(tmp_path):
    model = keras.Sequential(
        [keras.Input((6, 6, C)), norm_of(name="half", dtype="bfloat16"), norm_of(name="again", renorm=True)]
    )
    model.layers[0].gamma.assign(np.linspace(0.5, 1.5, C))
    for name in ("model.keras", "model.weights.h5"):
        save(model, tmp_path / name)
        norms = convert.read(tmp_path / name, eps=1e-3)
        np.testing.assert_array_equal(norms["half"].weight, model.layers[0].gamma.numpy().astype(np.float64))
        assert len(norms["again"].vectors()) == 4


def test_weights_that_were_saved_in_pieces_are_refused(tmp_path):
    save(model_of(), tmp_path / "model.keras")
    with (
        zipfile.ZipFile(tmp_path / "model.keras") as archive,
        zipfile.ZipFile(tmp_path / "other.keras", "w") as other,
    ):
        other.writestr("config.json", archive.read("config.json"))
    with pytest.raises(
        ValueError, match=r"it must hold model.weights.h5, got config.json; save it with weights in one"
    ):
        convert.read(tmp_path / "other.keras")


@pytest.mark.parametrize("axis", [3, [3], [-1], (3,), -1])
def test_the_last_axis_as_a_config_has_it(axis):
    layer = norm_of()
    layer.build((None, 6, 6, C))
    weights = {f"{v.name}:0": v.numpy() for v in layer.weights}
    assert convert.from_keras(weights, epsilon=1e-3, axis=axis)[""].layout == "NHWC"
    with pytest.raises(ValueError, match=r"axis must be .*got \[1, 2\]"):
        convert.from_keras(weights, epsilon=1e-3, axis=[1, 2])
