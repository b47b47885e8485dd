"""Conversion, proven by the frameworks themselves: each runs the weights that it gave, and those that it was given."""

import os
import warnings
from dataclasses import replace

import numpy as np
import pytest
from conftest import need_library

import cpubn
from cpubn import convert

os.environ.setdefault("KERAS_BACKEND", "numpy")
for name in ("torch", "keras", "flax", "onnx", "onnxruntime", "safetensors"):
    need_library(name, "frameworks")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the frameworks, about each other
    import flax.linen
    import jax
    import keras
    import onnx
    import onnxruntime
    import safetensors.torch
    import torch
    from flax import nnx

C, M = 5, 4 * 6 * 6
RNG = np.random.default_rng(1)
BATCHES = [
    (RNG.normal(3, 2, (4, C, 6, 6)) * np.linspace(0.1, 3, C)[:, None, None]).astype(np.float32) for _ in range(4)
]
X = BATCHES[-1]
LAST = np.ascontiguousarray(X.transpose(0, 2, 3, 1))
EPS = 3e-3  # nobody's default
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


def channels_last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def numbers():
    return {name: RNG.uniform(0.5, 2, C).astype(np.float32) for name in ("weight", "bias")}


def trained_layer(layout="NCHW", **how):
    """A layer of cpubn with running statistics of its own."""
    bn = cpubn.BatchNorm2d(C, EPS, 0.3, layout=layout, **how)
    if bn.weight is not None:
        bn.weight[...], bn.bias[...] = numbers().values()
    for x in BATCHES[:3]:
        bn(x if layout == "NCHW" else channels_last(x))
    return bn.eval()


def check_frozen_and_layer(norm, x, expected, *, values_per_channel):
    """Inference agrees, both frozen and in a layer that keeps the variance; returns a layer to train on."""
    np.testing.assert_allclose(norm.freeze()(x), expected, **CLOSE)
    np.testing.assert_allclose(norm.layer(cpubn.BatchNorm2d, values_per_channel=None).eval()(x), expected, **CLOSE)
    return norm.layer(cpubn.BatchNorm2d, values_per_channel=values_per_channel)


# torch


def torch_model(affine=True, bias=True, momentum=0.2, dtype=torch.float32):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(C, C, 1), torch.nn.BatchNorm2d(C, EPS, momentum, affine, bias=bias))
    for name, value in zip(("weight", "bias"), numbers().values(), strict=True):
        parameter = getattr(model[1], name)
        if parameter is not None:
            torch.nn.init.constant_(parameter, 1).data.mul_(torch.from_numpy(value))
    for x in BATCHES[:3]:
        model[1](torch.from_numpy(x))
    return model.to(dtype)


def run_torch(bn, x, training=False):
    with torch.no_grad():
        return bn.train(training)(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("momentum", [0.2, None])
@pytest.mark.parametrize(("affine", "bias"), [(True, True), (True, False), (False, False)])
def test_from_torch(affine, bias, momentum):
    model = torch_model(affine, bias, momentum)
    norms = convert.from_torch(model.state_dict(), eps=EPS, momentum=momentum)
    assert list(norms) == ["1"]
    bn = check_frozen_and_layer(norms["1"], X, run_torch(model[1], X), values_per_channel=M)
    assert (bn.weight is not None) == affine
    np.testing.assert_allclose(bn(X), run_torch(model[1], X, training=True), **CLOSE)
    np.testing.assert_allclose(bn.running_mean, model[1].running_mean.numpy(), **CLOSE)
    np.testing.assert_allclose(bn.running_var, model[1].running_var.numpy(), **CLOSE)
    assert bn.num_batches_tracked == model[1].num_batches_tracked == 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_from_torch_of_other_dtypes(dtype):
    model = torch_model(dtype=dtype)
    norm = convert.from_torch(model.state_dict(), eps=EPS)["1"]
    for name, got in norm.vectors().items():
        np.testing.assert_array_equal(got, getattr(model[1], name).detach().double().numpy())
    np.testing.assert_allclose(norm.freeze()(X), run_torch(model[1].float(), X), **CLOSE)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.3, None])
def test_to_torch(affine, momentum):
    bn = trained_layer(affine=affine)
    bn.momentum = momentum
    state = {name: torch.from_numpy(array) for name, array in convert.to_torch({"": bn}).items()}
    other = torch.nn.BatchNorm2d(C, bn.eps, bn.momentum, affine)
    other.load_state_dict(state, strict=True)
    np.testing.assert_allclose(run_torch(other, X), bn(X), **CLOSE)
    np.testing.assert_allclose(run_torch(other, X, training=True), bn.train()(X), **CLOSE)
    np.testing.assert_allclose(other.running_mean.numpy(), bn.running_mean, **CLOSE)
    np.testing.assert_allclose(other.running_var.numpy(), bn.running_var, **CLOSE)


def test_a_whole_torch_model_goes_there_and_back():
    model = torch.nn.ModuleDict(
        {"a": torch_model(), "b": torch.nn.Sequential(torch_model(affine=False), torch_model())}
    )
    state = model.state_dict()
    norms = convert.from_torch(state, eps={"a.1": EPS, "b.0.1": 1e-5, "b.1.1": 1e-4}, momentum=0.2)
    assert [norm.eps for norm in norms.values()] == [EPS, 1e-5, 1e-4]
    got = convert.to_torch(norms)
    expected = {name: value.numpy() for name, value in state.items() if name.rpartition(".")[0] in norms}
    assert list(got) == list(expected)
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name])
        assert got[name].dtype == expected[name].dtype


def test_a_torch_layer_on_the_meta_device_has_no_numbers():
    with pytest.raises(TypeError, match=r"batch norm '': .* must be an array, got .*Parameter"):
        convert.from_torch(torch.nn.BatchNorm2d(C, device="meta").state_dict(keep_vars=True), eps=EPS)


# safetensors and npz, written by torch and read by it


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_from_safetensors_of_torch(tmp_path, dtype):
    model = torch_model(dtype=dtype)
    state = model.state_dict() | {"scales": torch.ones(2, dtype=torch.float8_e4m3fn)}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    norms = convert.from_safetensors(tmp_path / "model.safetensors", eps=EPS, momentum=0.2)
    assert norms["1"].num_batches_tracked == 3
    np.testing.assert_allclose(norms["1"].freeze()(X), run_torch(model[1].float(), X), **CLOSE)


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
def test_files_of_cpubn_hold_what_torch_loads(tmp_path, kind):
    bn, path = trained_layer(), tmp_path / f"norms.{kind}"
    getattr(convert, f"to_{kind}")({"bn": bn}, path)
    arrays = safetensors.torch.load_file(path) if kind == "safetensors" else np.load(path, allow_pickle=False)
    state = {name: torch.as_tensor(arrays[f"bn.{name}"]) for name in ("weight", "bias", "running_mean", "running_var")}
    other = torch.nn.BatchNorm2d(C, EPS)
    other.load_state_dict(state)
    np.testing.assert_allclose(run_torch(other, X), bn(X), **CLOSE)


# Keras


def keras_layer(**how):
    layer = keras.layers.BatchNormalization(**{"axis": -1, "momentum": 0.8, "epsilon": EPS} | how)
    layer.build((None, 6, 6, C) if layer.axis == -1 else (None, C, 6, 6))
    for variable, value in zip(layer.trainable_weights, numbers().values(), strict=False):
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
    bn = check_frozen_and_layer(norm, batches[-1], run_keras(layer, batches[-1]), values_per_channel=M)
    assert (bn.weight is None) == (not center and not scale)
    np.testing.assert_allclose(bn(batches[-1]), run_keras(layer, batches[-1], training=True), **CLOSE)
    check_running_statistics(bn, layer.moving_mean, layer.moving_variance)


def check_running_statistics(bn, mean, biased_var):
    """After a step of training in both, of batches of M values per channel."""
    np.testing.assert_allclose(bn.running_mean, np.asarray(mean), **CLOSE)
    np.testing.assert_allclose(bn.running_var, np.asarray(biased_var).astype(float) * M / (M - 1), **CLOSE)
    assert not np.allclose(bn.running_var, np.asarray(biased_var), **CLOSE)


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
    check_running_statistics(bn, layer.moving_mean, layer.moving_variance)


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


# Flax


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
        variables["params"]["scale"] = jax.numpy.asarray(numbers()["weight"])
    for x in batches[:3]:
        _, variables = linen(bn, variables, x, training=True)
    norm = convert.from_flax(variables, epsilon=EPS, momentum=0.8, axis=axis)[""]
    assert norm.momentum == 0.2
    layer = check_frozen_and_layer(norm, batches[-1], linen(bn, variables, batches[-1])[0], values_per_channel=M)
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


# ONNX


def run_onnx(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def onnx_model(opset, dtype=np.float32, **attributes):
    """Two nodes: one named, of shared weights; one without a name, of other weights, as a Constant and an Identity."""
    vectors = {
        "scale": numbers()["weight"],
        "b": numbers()["bias"],
        "mean": RNG.normal(3, 1, C),
        "var": RNG.uniform(1, 3, C),
    }
    tensors = [onnx.numpy_helper.from_array(v.astype(dtype), name) for name, v in vectors.items()]
    nodes = [
        onnx.helper.make_node(
            "BatchNormalization", ["x", "scale", "b", "mean", "var"], ["h"], name="first", **attributes
        ),
        onnx.helper.make_node("Constant", [], ["mean2"], value=onnx.numpy_helper.from_array(np.ones(C, dtype))),
        onnx.helper.make_node("Identity", ["var"], ["var2"]),
        onnx.helper.make_node("BatchNormalization", ["h", "scale", "b", "mean2", "var2"], ["y"]),
    ]
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    ends = [onnx.helper.make_tensor_value_info(name, kind, ["n", C, "h", "w"]) for name in "xy"]
    inputs = [onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors] if opset < 9 else []
    graph = onnx.helper.make_graph(nodes, "graph", [ends[0], *inputs], [ends[1]], tensors)
    ir_version = 3 if opset < 9 else min(onnx.IR_VERSION, 10)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=ir_version)
    onnx.checker.check_model(model)
    return model


def through(norms, x):
    for norm in norms.values():
        x = norm.freeze()(x)
    return x


@pytest.mark.parametrize("opset", [7, 8, 9, 13, 14, 15, 20, 23])
@pytest.mark.parametrize("attributes", [{}, {"epsilon": EPS, "momentum": 0.75}])
def test_onnx_there_and_back(opset, attributes):
    model = onnx_model(opset, **attributes)
    norms = convert.from_onnx(model)
    assert list(norms) == ["first", "y"]
    assert norms["first"].eps == (EPS if attributes else 1e-5)
    assert norms["first"].momentum == (0.25 if attributes else 0.1)
    np.testing.assert_allclose(run_onnx(model, X), through(norms, X), **CLOSE)

    new = {"first": other_norm(), "y": norms["y"]}
    written = convert.to_onnx(new, model)
    onnx.checker.check_model(written)
    np.testing.assert_allclose(run_onnx(written, X), through(new, X), **CLOSE)
    read = convert.from_onnx(written)["first"]
    assert (read.eps, read.momentum) == (new["first"].eps, new["first"].momentum)
    one = convert.to_onnx({"first": new["first"]}, model)
    np.testing.assert_allclose(run_onnx(one, X), through(new, X), **CLOSE)


def other_norm():
    """Other numbers than a model has."""
    return convert.Norm.of(trained_layer())


def test_onnx_in_half_precision():
    model = onnx_model(15, np.float16)
    norms = convert.from_onnx(model)
    np.testing.assert_allclose(run_onnx(model, X.astype(np.float16)), through(norms, X), rtol=0.02, atol=0.05)
    written = convert.to_onnx({"first": other_norm()}, model)
    assert {tensor.data_type for tensor in written.graph.initializer} == {onnx.TensorProto.FLOAT16}
    onnx.checker.check_model(written)


@pytest.mark.parametrize("ndim", [2, 3, 4, 5])
@pytest.mark.parametrize("affine", [True, False])
def test_a_new_onnx_model(ndim, affine):
    bn = trained_layer(affine=affine)
    model = convert.new_onnx(bn, ndim)
    onnx.checker.check_model(model, full_check=True)
    x = np.ascontiguousarray(X.reshape(4, C, 36)[:, :, :1].reshape(4, C, *[1] * (ndim - 2)))
    np.testing.assert_allclose(run_onnx(model, x), bn.freeze()(x), **CLOSE)


def test_torch_exports_onnx_that_is_read(tmp_path):
    model = torch_model().train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about exporting in training mode, and of the older exporter
        torch.onnx.export(
            *(model, (torch.from_numpy(X),), tmp_path / "model.onnx"),
            training=torch.onnx.TrainingMode.PRESERVE if False else torch.onnx.TrainingMode.EVAL,
            do_constant_folding=False,
            dynamo=False,
        )
    norms = convert.from_onnx(tmp_path / "model.onnx", variance="unbiased")
    print(norms)
