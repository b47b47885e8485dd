"""Conversion from and to ONNX, of which onnxruntime runs the models."""

import warnings

import numpy as np
import pytest
from conftest import need_library
from norms import BATCHES, BIAS, CLOSE, EPS, RNG, WEIGHT, C, M, X, check_running_statistics, trained_layer

import cpubn
from cpubn import convert

for name in ("onnx", "onnxruntime"):
    need_library(name, "frameworks")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    import onnx
    import onnxruntime


def session_of(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def run_onnx(model, x):
    session = session_of(model)
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def onnx_model(opset, dtype=np.float32, **attributes):
    """Two nodes: one named, of shared weights; one without a name, of other weights, as a Constant and an Identity."""
    vectors = {
        "scale": WEIGHT,
        "b": BIAS,
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


def test_a_new_onnx_model_is_of_channels_first():
    with pytest.raises(ValueError, match="layout must be 'NCHW', as ONNX normalizes axis 1, got 'NHWC'; if the data"):
        convert.new_onnx(trained_layer("NHWC"))
    for ndim in (1, 6, 4.5, True, "4"):
        with pytest.raises(ValueError, match=f"ndim must be 2 to 5, got {ndim!r}"):
            convert.new_onnx(trained_layer(), ndim)


def test_a_model_that_torch_exported(tmp_path):
    need_library("torch", "frameworks")
    import torch

    model = torch.nn.BatchNorm2d(C, EPS, 0.2)
    for x in BATCHES[:3]:
        model(torch.from_numpy(x))
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that there is a newer exporter
        torch.onnx.export(model.eval(), (torch.from_numpy(X),), path, dynamo=False)
    norms = convert.from_onnx(path, variance="unbiased")
    (norm,) = norms.values()
    assert norm.eps == EPS
    np.testing.assert_allclose(norm.freeze()(X), run_onnx(onnx.load(path), X), **CLOSE)
    bn = norm.layer(cpubn.BatchNorm2d, momentum=0.2)
    with torch.no_grad():
        expected = model.train()(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(bn(X), expected, **CLOSE)
    np.testing.assert_allclose(bn.running_var, model.running_var.numpy(), **CLOSE)


def training_model(opset):
    """One node that normalizes by its batch and returns new running statistics."""
    model = convert.new_onnx(trained_layer())
    (node,) = model.graph.node
    node.output.extend(["new_mean", "new_var"])
    node.attribute.append(onnx.helper.make_attribute("training_mode", 1))
    for name in node.output[1:]:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [C]))
    model.opset_import[0].version = opset
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.mark.parametrize("opset", [14, 15])
def test_a_training_node_averages_biased_variances(opset):
    model = training_model(opset)
    norm = convert.from_onnx(model)["BatchNormalization"]
    assert norm.variance == "biased"
    bn = norm.layer(cpubn.BatchNorm2d, values_per_channel=M)
    y, mean, var = session_of(model).run(None, {"X": X})
    np.testing.assert_allclose(bn(X), y, **CLOSE)
    check_running_statistics(bn, mean, var)

    bn = trained_layer()
    y, mean, var = session_of(convert.to_onnx({"BatchNormalization": bn}, model, values_per_channel=M)).run(
        None, {"X": X}
    )
    np.testing.assert_allclose(bn.train()(X), y, **CLOSE)
    check_running_statistics(bn, mean, var)
