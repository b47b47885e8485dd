"""What the parameters of an ONNX batch norm may be: stored or computed, here or elsewhere; and what not."""

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import need_library
from norms import C, check_same, trained_layer

from cpubn import convert

for name in ("ml_dtypes", "onnx"):
    need_library(name, "convert")
import onnx
from onnx import TensorProto, helper, numpy_helper
from test_convert_nodes import NAME, float32_norm, model, node_of, norm_of

MADE = 3  # the input that is computed in these tests: the running mean


def with_mean(nodes, tensors=(), opset=15):
    """The model whose running mean is the last output of nodes of these tensors."""
    made = model(opset)
    node_of(made).input[MADE] = nodes[-1].output[0]
    batch_norm = onnx.NodeProto()
    batch_norm.CopyFrom(node_of(made))
    del made.graph.node[:]
    made.graph.node.extend([*nodes, batch_norm])
    made.graph.initializer.remove(next(t for t in made.graph.initializer if t.name == "running_mean"))
    made.graph.initializer.extend(tensors)
    return made


def tensor(values, dtype=np.float32, name="t"):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def node(operator, *inputs, output="made", **attributes):
    return helper.make_node(operator, list(inputs), [output], **attributes)


VALUES = np.array([1.5, -2, 3, 0.25, 8])
AXIS = tensor([0], np.int64, "axis")
SPARSE = helper.make_sparse_tensor(tensor([1.5, 8], name="t"), tensor([0, 4], np.int64, "at"), [C])
SPARSE2 = helper.make_sparse_tensor(tensor([1.5, 8], name="t"), tensor([[0], [4]], np.int64, "at"), [C])
WAYS = {  # nodes, tensors, opset
    "Identity": ([node("Identity", "t", output="u"), node("Identity", "u")], [tensor(VALUES)], 15),
    "Constant": ([node("Constant", value=tensor(VALUES))], [], 15),
    "Constant of floats": ([node("Constant", value_floats=VALUES.tolist())], [], 15),
    "Cast of float16": ([node("Cast", "t", to=TensorProto.FLOAT)], [tensor(VALUES, np.float16)], 15),
    "Reshape": ([node("Reshape", "t", "s")], [tensor(VALUES.reshape(1, C, 1, 1)), tensor([-1], np.int64, "s")], 15),
    "Squeeze, 11": ([node("Squeeze", "t", axes=[0])], [tensor(VALUES[None])], 11),
    "Squeeze, 13": ([node("Squeeze", "t", "axis")], [tensor(VALUES[None]), AXIS], 13),
    "Unsqueeze": (
        [node("Split", "t", output="u"), node("Unsqueeze", "u", "axis", output="v"), node("Squeeze", "v", "axis")],
        [tensor(VALUES), AXIS],
        15,
    ),
    "Transpose": (
        [node("Transpose", "t", perm=[1, 0], output="u"), node("Squeeze", "u")],
        [tensor(VALUES[:, None])],
        15,
    ),
    "DequantizeLinear": (
        [node("DequantizeLinear", "t", "scale")],
        [tensor(VALUES * 4, np.int8), tensor(0.25, name="scale")],
        15,
    ),
    "arithmetic": (
        [node("Mul", "t", "two", output="u"), node("Sub", "u", "t", output="v"), node("Sum", "v")],
        [tensor(VALUES), tensor(2, name="two")],
        15,
    ),
    "arithmetic of float64": (
        [node("Div", "t", "three", output="u"), node("Mul", "u", "three", output="v"), node("Cast", "v", to=1)],
        [tensor(VALUES, np.float64), tensor(3, np.float64, "three")],
        15,
    ),
    "Where": (
        [node("Greater", "t", "z", output="g"), node("Where", "g", "t", "t")],
        [tensor(VALUES), tensor(0, name="z")],
        15,
    ),
    "CastLike, of which the type of an input is known": (
        [node("CastLike", "t", "X", output="u"), node("Shape", "t", output="n"), node("Expand", "u", "n")],
        [tensor(VALUES, np.float64)],
        15,
    ),
    "sparse Constant": ([node("Constant", sparse_value=SPARSE)], [], 15),
    "sparse Constant of places": ([node("Constant", sparse_value=SPARSE2)], [], 15),
}


@pytest.mark.parametrize(("nodes", "tensors", "opset"), WAYS.values(), ids=list(WAYS))
def test_constants_may_be_computed(nodes, tensors, opset):
    expected = np.where(np.isin(np.arange(C), (0, 4)), VALUES, 0) if "sparse" in str(nodes) else VALUES
    made = with_mean(nodes, tensors, opset)
    check_same(norm_of(made), replace(float32_norm(), running_mean=expected))
    written = convert.to_onnx({NAME: trained_layer()}, made)
    onnx.checker.check_model(written, full_check=True)
    assert [each.op_type for each in written.graph.node] == [NAME]  # what nothing reads any more is gone
    assert len(written.graph.initializer) == 4


def test_constants_of_one_number():
    value = tensor([0.5])
    made = with_mean([node("ConstantOfShape", "s", value=value)], [tensor([C], np.int64, "s")])
    np.testing.assert_array_equal(norm_of(made).running_mean, np.full(C, 0.5))


def test_sparse_initializers():
    made = with_mean([node("Identity", "t")])
    made.graph.sparse_initializer.append(SPARSE)
    np.testing.assert_array_equal(norm_of(made).running_mean, [1.5, 0, 0, 0, 8])
    made.graph.sparse_initializer[0].indices.CopyFrom(tensor([0, C], np.int64, "at"))
    with pytest.raises(ValueError, match=r"input 'made' of node .* must be a readable constant, got IndexError"):
        norm_of(made)


LONG = [node("Neg", "weight", output="0"), *(node("Neg", str(i), output=str(i + 1)) for i in range(3000))]
REFUSED = {  # nodes, tensors, why
    "depends on an input": ([node("Abs", "X")], [], "one that depends on the input 'X'"),
    "is an input": ([node("Identity", "X", output="X")], [], "'X', which depends on itself"),
    "nothing gives": ([node("Abs", "absent")], [], "'absent', which nothing gives"),
    "depends on itself": ([node("Abs", "b", output="a"), node("Abs", "a", output="b")], [], "which depends on itself"),
    "an operator of work": ([node("Einsum", "t", "t", equation="a,b->a")], [tensor(VALUES)], "is computed by Einsum"),
    "of chance": ([node("RandomNormal", shape=[C])], [], "one that is computed by RandomNormal"),
    "another domain's": ([node("Abs", "t", domain="com.example")], [tensor(VALUES)], "computed by com.example.Abs"),
    "of many nodes": (LONG, [], "one that more than 1000 nodes compute"),
    "terabytes": ([node("ConstantOfShape", "t")], [tensor([10**6, 10**6], np.int64)], "one of 1000000000000 elements"),
    "terabytes of Expand": (
        [node("Expand", "t", "s")],
        [tensor([1.0]), tensor([10**6, 10**6], np.int64, "s")],
        "one of 1000000000000 elements",
    ),
    "terabytes of Tile": (
        [node("Tile", "t", "s")],
        [tensor([1.0]), tensor([2**40], np.int64, "s")],
        "one of 1099511627776 elements",
    ),
    "terabytes of Range": (
        [node("Range", "0", "n", "1")],
        [tensor(0, name="0"), tensor(1e12, name="n"), tensor(1, name="1")],
        "one of 999999995904 elements",
    ),
    "sparse terabytes": (
        [node("Constant", sparse_value=helper.make_sparse_tensor(tensor([1]), AXIS, [2**40]))],
        [],
        "one of 1099511627776 elements",
    ),
    "text": ([node("Cast", "t", to=TensorProto.STRING)], [tensor(VALUES)], "an output of Cast that is no number"),
    "shapes that do not fit": ([node("Add", "t", "running_var")], [tensor([1, 2, 3])], "InferenceError"),
    "whole numbers": ([node("Cast", "t", to=7)], [tensor(VALUES)], "got int64; export the model again, or take"),
    "the type of what is not known": (
        [node("Unheard", "X", output="u", domain="com.example"), node("CastLike", "t", "u")],
        [tensor(VALUES)],
        "one of the type of 'u', which is not known",
    ),
    "two dimensions": ([node("Identity", "t")], [tensor(VALUES[None])], r"running_mean must have shape \(C,\), got"),
}


@pytest.mark.parametrize(("nodes", "tensors", "why"), REFUSED.values(), ids=list(REFUSED))
def test_what_is_no_constant_is_refused(nodes, tensors, why):
    made = with_mean(nodes, tensors)
    with pytest.raises(ValueError, match=f"node '{NAME}' must be .*{why}|'{NAME}': {why}"):
        norm_of(made)
    with pytest.warns(UserWarning, match=rf"1 of 1 batch norms are left out:\n  '{NAME}': .*{why}"):
        assert convert.from_onnx(made, skip=True) == {}


def test_what_many_nodes_make_together_is_bounded():
    """A hundred values of 64 million numbers each would fit one by one."""
    nodes = [node("Expand", "t", "s", output="0")]
    nodes += [node("Expand", str(i), "s", output=str(i + 1)) for i in range(100)]
    made = with_mean(nodes, [tensor([1.0]), tensor([2**26], np.int64, "s")])
    started = time.monotonic()
    with pytest.raises(ValueError, match="constants that are more than 134217728 numbers together"):
        norm_of(made)
    assert time.monotonic() - started < 60


def test_damaged_tensors_are_refused():
    made = model()
    made.graph.initializer[0].raw_data = b"123"
    with pytest.raises(ValueError, match=f"input 'weight' of node '{NAME}' must be a readable constant, got buffer"):
        convert.from_onnx(made)
    del node_of(made).input[4]
    with pytest.raises(ValueError, match="BatchNormalization must have 5 inputs and an output, got 4 and 1"):
        convert.from_onnx(made)


@pytest.mark.parametrize("kind", range(64))
def test_another_type_in_the_file_is_a_value_error(kind):
    """A bit that flipped in data_type: another floating type gives other numbers, or does not fit."""
    made = model()
    made.graph.initializer[0].data_type = kind
    try:
        assert norm_of(made).num_features == C
    except ValueError:
        return
    assert kind == TensorProto.FLOAT


def test_skip_leaves_out_what_cannot_be_read():
    made = model()
    node_of(made).input[MADE] = "X"
    good, twice = made.graph.node.add(), made.graph.node.add()
    good.CopyFrom(node_of(model()))
    good.name = good.output[0] = "good"
    twice.CopyFrom(good)
    with pytest.raises(ValueError, match="names of their own, got 'good' twice"):
        convert.from_onnx(made)
    with pytest.warns(UserWarning, match=r"2 of 3 batch norms are left out:\n(.*\n)*.*'good' twice"):
        norms = convert.from_onnx(made, skip=True)
    check_same(norms["good"], float32_norm())
    assert list(norms) == ["good"]
    assert list(convert.from_onnx(model(), skip=True)) == [NAME]
    with pytest.raises(TypeError, match="skip must be True or False, got 1"):
        convert.from_onnx(made, skip=1)


def external(folder):
    onnx.save(model(), folder / "model.onnx", save_as_external_data=True, size_threshold=0, location="weights")
    return folder / "model.onnx"


def test_external_data(tmp_path):
    path = external(tmp_path)
    check_same(convert.from_onnx(path)[NAME], float32_norm())
    other = replace(float32_norm(), running_mean=np.full(C, 3.0))
    check_same(norm_of(convert.to_onnx({NAME: other}, path)), other)
    (tmp_path / "weights").write_bytes((tmp_path / "weights").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"must be a readable constant, got .*, or keep its external data beside it"):
        convert.from_onnx(path)
    (tmp_path / "weights").unlink()
    with pytest.raises(ValueError, match=r"must be a readable constant, got its data in 'weights', which is no file"):
        convert.from_onnx(path)


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "link", "pipe", "..", "", "inner/../../secret"])
def test_external_data_elsewhere_are_refused(tmp_path, location):
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(bytes(1000))
    path = external(folder)
    if location == "link":
        (folder / "link").symlink_to(tmp_path / "secret")
    elif location == "pipe":
        os.mkfifo(folder / "pipe")
    made = onnx.load(path, load_external_data=False)
    for entry in made.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    onnx.save(made, path)
    with pytest.raises(ValueError, match=r"input 'weight' of .* must be a readable constant, got its data in"):
        convert.from_onnx(path)
    with pytest.raises(ValueError, match=r"must be (a readable constant|in '.*', got .*; keep them beside)"):
        convert.to_onnx({NAME: trained_layer()}, path)


def test_functions_that_come_to_billions_of_nodes_are_refused():
    """Each calls the one before it twice; and one that calls itself."""
    made = model()
    opsets = [*made.opset_import, helper.make_opsetid("local", 1)]
    for i in range(40):
        called = {"domain": "local"} if i else {}
        inner = [node(f"f{i - 1}" if i else "Neg", "a", output=output, **called) for output in ("b", "c")]
        made.functions.append(helper.make_function("local", f"f{i}", ["a"], ["c"], inner, opsets))
    made.graph.node.append(node("f39", "X", domain="local"))
    made.opset_import.append(opsets[-1])
    with pytest.raises(ValueError, match="functions must not call themselves, and come to less than 1000000 nodes"):
        convert.from_onnx(made)
    made.functions[0].node[0].CopyFrom(node("f0", "a", output="b", domain="local"))
    del made.functions[1:]
    made.graph.node[-1].op_type = "f0"
    with pytest.raises(ValueError, match="functions must not call themselves"):
        convert.from_onnx(made)


SHIPPED = [  # by onnx itself, with how many batch norms
    *(("light/light_densenet121.onnx", 121), ("light/light_inception_v2.onnx", 69)),
    *(("light/light_resnet50.onnx", 53), ("light/light_shufflenet.onnx", 49)),
    *((f"pytorch-converted/test_{kind}_eval/model.onnx", 1) for kind in (
        "BatchNorm1d_3d_input", "BatchNorm2d", "BatchNorm2d_momentum", "BatchNorm3d", "BatchNorm3d_momentum"
    )),
]  # fmt: skip


@pytest.mark.parametrize(("path", "count"), SHIPPED)
def test_models_that_onnx_ships(path, count):
    norms = convert.from_onnx(Path(onnx.__file__).parent / "backend" / "test" / "data" / path)
    assert len(norms) == count
    assert all(norm.freeze().num_features for norm in norms.values())
