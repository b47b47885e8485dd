"""Conversion from and to Flax, linen and nnx, which run the weights that they gave and those that they were given."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from conftest import need_library
from norms import (
    BATCHES,
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

import cpubn
from cpubn import convert

for name in ("flax",):
    need_library(name, "frameworks")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    import flax.linen
    import jax
    from flax import nnx


class Block(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x, training):
        x = flax.linen.Conv(C, (1, 1))(x)
        x = flax.linen.BatchNorm(not training, momentum=0.8, epsilon=EPS, name="first")(x)
        return flax.linen.BatchNorm(not training, momentum=0.8, epsilon=EPS, use_scale=False, name="second")(x)


def linen(bn, variables, x, training=False):
    y, new = bn.apply(variables, x, use_running_average=not training, mutable=["batch_stats"])
    return np.asarray(y), variables | new


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize(("use_bias", "use_scale"), [(True, True), (True, False), (False, True), (False, False)])
def test_from_flax(axis, use_bias, use_scale):
    bn = flax.linen.BatchNorm(momentum=0.8, epsilon=EPS, axis=axis, use_bias=use_bias, use_scale=use_scale)
    batches = BATCHES if axis == 1 else [channels_last(x) for x in BATCHES]
    variables = bn.init(jax.random.key(0), batches[0], use_running_average=False)
    if use_scale:
        variables["params"]["scale"] = jax.numpy.asarray(WEIGHT)
    for x in batches[:3]:
        _, variables = linen(bn, variables, x, training=True)
    norm = convert.from_flax(variables, epsilon=EPS, momentum=0.8, axis=axis)[""]
    assert norm.momentum == 0.2
    layer = check_frozen_and_layer(norm, batches[-1], linen(bn, variables, batches[-1])[0])
    y, variables = linen(bn, variables, batches[-1], training=True)
    np.testing.assert_allclose(layer(batches[-1]), y, **CLOSE)
    check_running_statistics(layer, variables["batch_stats"]["mean"], variables["batch_stats"]["var"])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("affine", [True, False])
def test_to_flax(layout, affine):
    bn = trained_layer(layout, affine=affine)
    x = X if layout == "NCHW" else LAST
    kept, config = convert.to_flax({"": bn}, values_per_channel=None)
    other = flax.linen.BatchNorm(**config[""])
    np.testing.assert_allclose(linen(other, kept, x)[0], bn(x), **CLOSE)
    y, variables = linen(other, convert.to_flax({"": bn}, values_per_channel=M)[0], x, training=True)
    np.testing.assert_allclose(y, bn.train()(x), **CLOSE)
    check_running_statistics(bn, variables["batch_stats"]["mean"], variables["batch_stats"]["var"])


def test_a_whole_flax_model_takes_new_numbers():
    model = Block()
    variables = model.init(jax.random.key(0), LAST, False)
    norms = convert.from_flax(variables, epsilon=EPS, momentum=0.8)
    assert list(norms) == ["first", "second"]
    new = replace(norms["first"], running_mean=np.full(C, 2.0), running_var=np.full(C, 3.0))
    written, _ = convert.to_flax({"first": new}, into=variables)
    conv = np.asarray(flax.linen.Conv(C, (1, 1)).apply({"params": variables["params"]["Conv_0"]}, LAST))
    expected = norms["second"].freeze()(new.freeze()(conv))
    np.testing.assert_allclose(np.asarray(model.apply(written, LAST, False)), expected, **CLOSE)
    assert written["params"]["Conv_0"]["kernel"] is variables["params"]["Conv_0"]["kernel"]


def test_nnx_goes_there_and_back():
    model = nnx.Sequential(nnx.Linear(C, C, rngs=nnx.Rngs(0)), nnx.BatchNorm(C, epsilon=EPS, rngs=nnx.Rngs(0)))
    for x in BATCHES[:3]:
        model(channels_last(x))
    model.eval()
    state = nnx.to_pure_dict(nnx.state(model))
    norms = convert.from_flax(state, epsilon=EPS, momentum=0.99)
    assert list(norms) == ["layers/1"]
    linear = np.array(model.layers[0](LAST))
    np.testing.assert_allclose(norms["layers/1"].freeze()(linear), np.asarray(model(LAST)), **CLOSE)
    bn = norms["layers/1"].layer(cpubn.BatchNorm2d, values_per_channel=M)
    bn(linear)
    written, _ = convert.to_flax({"layers/1": bn}, into=state, values_per_channel=None)
    updated = nnx.state(model)
    nnx.replace_by_pure_dict(updated, written)
    nnx.update(model, updated)
    np.testing.assert_allclose(np.asarray(model(LAST)), bn.eval()(linear), **CLOSE)
