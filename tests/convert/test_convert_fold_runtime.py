"""Whole ONNX models without their batch norms, by onnxruntime: small ones, onnx's own, torch's, Keras's."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import need_library

for name in ("onnx", "onnxruntime", "torch"):
    need_library(name, "frameworks")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of their own imports
    import onnx
    import onnxruntime
    import torch
from fold_cases import AFTER, BEFORE, RUNTIME
from onnx_models import model, node, norm, random, vectors
from torch import nn

from cpubn import convert

CASES = [(side, name) for side, cases in (("before", BEFORE | RUNTIME), ("after", AFTER)) for name in cases]


def outputs(made, **feeds):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def check(made, tolerance=1e-5, left=(), **feeds):
    """Folded, it is a sound model that gives the same."""
    new, report = convert.fold_onnx(made)
    onnx.checker.check_model(new, full_check=True)
    assert set(report.left) == set(left)
    for expected, got in zip(outputs(made, **feeds), outputs(new, **feeds), strict=True):
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        assert np.isfinite(got).all()
        assert float(abs(got - expected).max()) <= tolerance * float(abs(expected).max())
    return new


@pytest.mark.parametrize(("side", "case"), CASES)
def test_small_models(side, case):
    nodes, arrays, shape, *output = ((BEFORE | RUNTIME) if side == "before" else AFTER)[case]
    made = model(nodes, arrays, shape, output=output[0] if output else "y")
    check(made, x=np.random.default_rng(0).normal(0, 1, shape).astype(np.float32))


@pytest.mark.parametrize("opset", [7, 8, 9, 11, 13, 14, 15, 21])
@pytest.mark.parametrize("case", ["Conv", "Gemm", "MatMul and Add", "one channel"])
def test_opsets(opset, case):
    nodes, arrays, shape = (AFTER if case in AFTER and case not in BEFORE else BEFORE)[case]
    made = model(nodes, arrays, shape, opset=opset, ir_version=3 if opset < 9 else 8)
    check(made, x=np.random.default_rng(0).normal(0, 1, shape).astype(np.float32))


def with_random_norms(made):
    """The models that onnx ships have the same number in all channels."""
    rng = np.random.default_rng(0)
    norms = {}
    for name, old in convert.from_onnx(made).items():
        draw = {
            "weight": rng.uniform(0.5, 1.5, old.num_features),
            "bias": rng.normal(0, 0.3, old.num_features),
            "running_mean": rng.normal(0, 0.1, old.num_features),
            "running_var": rng.uniform(0.5, 2, old.num_features),
        }
        norms[name] = convert.Norm(**draw, eps=old.eps)
    return convert.to_onnx(norms, made)


def with_random_weights(made):
    """The same of the convolutions' weights, of the size that keeps a signal's."""
    rng = np.random.default_rng(1)
    sizes = {t.name: onnx.numpy_helper.to_array(t) for t in made.graph.initializer}
    kernels = {each.input[1] for each in made.graph.node if each.op_type in ("Conv", "Gemm")}
    for each in list(made.graph.node):
        if each.op_type == "ConstantOfShape" and each.output[0] in kernels:
            shape = sizes[each.input[0]]
            values = rng.normal(0, 1 / np.sqrt(max(np.prod(shape[1:]), 1)), shape).astype(np.float32)
            made.graph.initializer.append(onnx.numpy_helper.from_array(values, each.output[0]))
            made.graph.node.remove(each)
            if made.ir_version < 4:
                made.graph.input.append(onnx.helper.make_tensor_value_info(each.output[0], 1, values.shape))
    return made


@pytest.mark.parametrize(("name", "folded", "left"), [
    ("densenet121", 59, 62), ("inception_v2", 69, 0), ("resnet50", 53, 0), ("shufflenet", 49, 0)
])  # fmt: skip
def test_models_that_onnx_ships(name, folded, left):
    path = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"
    made = with_random_weights(with_random_norms(onnx.load(path)))
    new, report = convert.fold_onnx(made)
    assert (len(report.folded), len(report.left)) == (folded, left)
    onnx.checker.check_model(new, full_check=True)
    stored = {tensor.name for tensor in made.graph.initializer}
    (data,) = (value for value in made.graph.input if value.name not in stored)
    shape = [d.dim_value for d in data.type.tensor_type.shape.dim]
    feeds = {data.name: np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)}
    (expected,), (got,) = outputs(made, **feeds), outputs(new, **feeds)
    assert expected.std() > 1e-6 * abs(expected).max()  # not the same for all classes
    assert abs(got - expected).max() <= 1e-4 * abs(expected).max()


class InvertedResidual(nn.Module):
    """MobileNetV2's block: 1x1, depthwise 3x3, 1x1, each with a norm."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        hidden = 4 * inputs
        self.adds = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            *(nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()),
            *(nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()),
            *(nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )

    def forward(self, x):
        return x + self.layers(x) if self.adds else self.layers(x)


class Bottleneck(nn.Module):
    """ResNet's block."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()),
            *(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        self.short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        return torch.relu(self.layers(x) + self.short(x))


class Rows(nn.Module):
    """Linear layers with a norm behind them, over rows and over samples, and one in front; a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.up, self.up_norm = nn.ConvTranspose2d(3, 6, 3, 2, 1, 1), nn.BatchNorm2d(6)
        self.rows, self.rows_norm = nn.Linear(64, 20), nn.BatchNorm1d(20)
        self.head = nn.Sequential(nn.BatchNorm1d(120), nn.Linear(120, 8), nn.BatchNorm1d(8))

    def forward(self, x):
        x = self.up_norm(self.up(x)).mean(2)
        x = self.rows_norm(self.rows(x).transpose(1, 2)).transpose(1, 2)
        return self.head(x.flatten(1))


MODELS = {
    "MobileNetV2": lambda: nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()),
        *(InvertedResidual(8, 8, 1), InvertedResidual(8, 16, 2), InvertedResidual(16, 16, 1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(16, 10)),
    ),
    "ResNet": lambda: nn.Sequential(
        *(nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
        *(Bottleneck(8, 8, 1), Bottleneck(8, 16, 2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10), nn.BatchNorm1d(10)),
    ),
    "rows": Rows,
}


@pytest.mark.parametrize("name", MODELS)
def test_models_that_torch_exports(name, tmp_path):
    torch.manual_seed(0)
    made = MODELS[name]()
    for _ in range(3):
        made(1 + 2 * torch.randn(4, 3, 32, 32))  # statistics of its own
    for each in made.modules():
        if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(each.weight, 0.5, 1.5)
            nn.init.normal_(each.bias)
    x = torch.randn(2, 3, 32, 32)
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that there is a newer exporter
        torch.onnx.export(
            made.eval(),
            (x,),
            path,
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,  # or it would fold them itself
            do_constant_folding=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "n"}},
        )
    new, report = convert.fold_onnx(path, check=True)
    assert report.left == {}
    assert len(report.folded) == sum(isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d) for each in made.modules())
    assert report.comparison.by == "onnxruntime, random inputs"
    assert report.comparison.relative < 1e-5
    onnx.checker.check_model(new, full_check=True)
    with torch.no_grad():
        expected = made(x).numpy()
    (got,) = outputs(new, x=x.numpy())
    assert abs(got - expected).max() <= 1e-5 * abs(expected).max()


def keras_like(dtype):
    """As tf2onnx writes Keras's models: NHWC outside, Transposes around each layer, biases as Adds."""
    to, back = ({"perm": perm} for perm in ([0, 3, 1, 2], [0, 2, 3, 1]))
    nodes, arrays, last, channels = [], {}, "x", 3
    for i, (outputs_, stride, group) in enumerate([(8, 2, 1), (8, 1, 8), (16, 1, 1)]):
        arrays |= {f"w{i}": random(outputs_, channels // group, 3, 3) / 4, f"b{i}": random(outputs_)}
        arrays |= vectors(f"n{i}", outputs_)
        nodes += [
            node("Transpose", last, f"t{i}", **to),
            node("Conv", f"t{i} w{i}", f"c{i}", auto_pad="SAME_UPPER", strides=[stride] * 2, group=group),
            node("Transpose", f"c{i}", f"u{i}", **back),
            node("Add", f"u{i} b{i}", f"a{i}"),
            node("Transpose", f"a{i}", f"v{i}", **to),
            norm(f"v{i}", f"n{i}"),
            node("Transpose", f"n{i}", f"o{i}", **back),
            node("Relu", f"o{i}", f"r{i}"),
        ]
        last, channels = f"r{i}", outputs_
    nodes += [
        node("ReduceMean", last, "m", axes=[1, 2], keepdims=0),
        node("MatMul", "m w", "p"),
        node("Add", "p b", "q"),
    ]
    nodes += [norm("q", "y")]
    return model(nodes, arrays | {"w": random(16, 5), "b": random(5), **vectors("y", 5)}, [2, 15, 16, 3], dtype=dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float16, 1e-2)])
def test_models_as_keras_has_them(dtype, tolerance):
    made = keras_like(dtype)
    check(made, tolerance, x=np.random.default_rng(0).normal(0, 1, [2, 15, 16, 3]).astype(dtype))


@pytest.mark.parametrize("case", ["Conv", "Conv, groups", "Gemm", "MatMul and Add", "ConvTranspose"])
def test_float16(case):
    nodes, arrays, shape = BEFORE[case]
    x = np.random.default_rng(0).normal(0, 1, shape).astype(np.float16)
    check(model(nodes, arrays, shape, dtype=np.float16), 5e-3, x=x)


def test_what_is_left_gives_the_same():
    nodes, arrays, shape = BEFORE["Conv"]
    made = model([*nodes, node("Relu", "y", "r"), norm("r", "z")], arrays | vectors("z", 4), shape, output="z")
    check(made, left=["z"], x=np.random.default_rng(0).normal(0, 1, shape).astype(np.float32))
