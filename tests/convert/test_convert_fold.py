"""Whole ONNX models without their batch norms, by onnx's reference evaluator."""

import numpy as np
import pytest
from conftest import need_library

for name in ("ml_dtypes", "onnx"):
    need_library(name, "convert")
import ml_dtypes
import onnx
from fold_cases import AFTER, BEFORE, X4, conv
from fold_left import LEFT
from onnx import TensorProto, helper
from onnx_models import model, node, norm, operators, random, run, vectors

import cpubn
from cpubn import convert


def folded(made, count):
    """The model without its norms, which computes the same; the given one is as it was."""
    before = made.SerializeToString()
    new, report = convert.fold_onnx(made)
    assert made.SerializeToString() == before
    onnx.checker.check_model(new, full_check=True)
    assert report.left == {}
    assert len(report.folded) == count
    assert "BatchNormalization" not in operators(new)
    return new


def check_same_outputs(given, new, shape, dtype=np.float32, tolerance=1e-5):
    x = np.random.default_rng(0).normal(0, 1, shape).astype(dtype)
    for expected, got in zip(run(given, x=x), run(new, x=x), strict=True):
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        worst, largest = float(abs(got - expected).max()), float(abs(expected).max())
        assert worst <= tolerance * largest


def count_of(case):
    return sum(each.op_type == "BatchNormalization" for each in case[0])


@pytest.mark.parametrize("case", BEFORE.values(), ids=list(BEFORE))
def test_into_the_layer_before(case):
    made = model(*case[:3], output=case[3] if len(case) > 3 else "y")
    new = folded(made, count_of(case))
    check_same_outputs(made, new, case[2])
    assert len(new.graph.node) <= len(made.graph.node)


@pytest.mark.parametrize("case", AFTER.values(), ids=list(AFTER))
def test_into_the_layer_after(case):
    made = model(*case)
    check_same_outputs(made, folded(made, count_of(case)), case[2])


@pytest.mark.parametrize("case", LEFT.values(), ids=list(LEFT))
def test_what_is_left_and_why(case):
    made = model(*case[:3], output=case[4] if len(case) > 4 else "y")
    new, report = convert.fold_onnx(made)
    (name,) = report.left
    assert report.folded == {}
    assert new == made
    with pytest.raises(AssertionError, match=case[3]):  # the reason, shown where it differs
        raise AssertionError(report.left[name])


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18, 21])
@pytest.mark.parametrize("case", ["Conv", "Gemm, alpha and beta", "MatMul", "one channel"])
def test_opsets(opset, case):
    nodes, arrays, shape = (BEFORE if case in BEFORE else AFTER)[case][:3]
    made = model(nodes, arrays, shape, opset=opset, ir_version=3 if opset < 9 else 8)
    new = folded(made, 1)
    assert len(new.graph.input) - 1 == (len(new.graph.initializer) if opset < 9 else 0)
    if opset >= 9:
        check_same_outputs(made, new, shape)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float16, 5e-3), (np.float64, 1e-13)])
@pytest.mark.parametrize("case", ["Conv", "Gemm", "MatMul and Add", "ConvTranspose"])
def test_other_types(dtype, tolerance, case):
    nodes, arrays, shape = BEFORE[case][:3]
    made = model(nodes, arrays, shape, dtype=dtype)
    new = folded(made, 1)
    assert {tensor.data_type for tensor in new.graph.initializer} == {made.graph.initializer[0].data_type}
    check_same_outputs(made, new, shape, dtype, tolerance)


def test_what_does_not_fit_is_left():
    nodes, arrays, shape = conv([4, 6, 1, 1])
    arrays |= {"y.v": np.zeros(4), "y.m": np.full(4, 6e4), "y.w": np.full(4, 10.0)}
    _, report = convert.fold_onnx(model(nodes, arrays, shape, dtype=np.float16))
    assert "bias must be finite in float16 once folded" in report.left["y"]
    nodes, arrays, shape = BEFORE["Gemm"]
    _, report = convert.fold_onnx(
        model(nodes, arrays | {"y.v": np.zeros(4), "y.w": np.full(4, 6e4)}, shape, dtype="f2")
    )
    assert "the weight of Gemm 'c' must fit float16" in report.left["y"]


def test_bfloat16():
    """Which the evaluator does not compute: the numbers are looked at."""
    nodes, arrays, shape = BEFORE["Gemm"]
    arrays = {name: v.astype(ml_dtypes.bfloat16) for name, v in arrays.items()}
    new = folded(model(nodes, arrays, shape, dtype=ml_dtypes.bfloat16), 1)
    bn = convert.Norm(arrays["y.m"], arrays["y.v"], float(np.float32(1e-3)), arrays["y.w"], arrays["y.b"])
    expected = cpubn.fold_linear(arrays["w"].T, arrays["b"], bn.freeze())
    got = [onnx.numpy_helper.to_array(tensor) for tensor in new.graph.initializer]
    np.testing.assert_array_equal(got[0].T, expected[0])
    np.testing.assert_array_equal(got[1], expected[1])


def test_statistics_of_another_type_than_the_data():
    nodes, arrays, shape = BEFORE["Conv"]
    made = model(nodes, arrays, shape, dtype=np.float16)
    for tensor in made.graph.initializer:
        if tensor.name.startswith("y."):
            tensor.CopyFrom(onnx.numpy_helper.from_array(arrays[tensor.name].astype("f4"), tensor.name))
    check_same_outputs(made, folded(made, 1), shape, np.float16, 5e-3)


def test_initializers_that_are_inputs_besides():
    nodes, arrays, shape = BEFORE["MatMul and Add"]
    made = model(nodes, arrays, shape)
    made.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in made.graph.initializer
    )
    new = folded(made, 1)
    assert [value.name for value in new.graph.input] == ["x"]
    check_same_outputs(made, new, shape)


def test_external_data_are_taken_in(tmp_path):
    nodes, arrays, shape = BEFORE["Conv"]
    made = model(nodes, arrays, shape)
    copy = onnx.ModelProto()
    copy.CopyFrom(made)
    onnx.save(copy, tmp_path / "model.onnx", save_as_external_data=True, size_threshold=0, location="weights")
    new, report = convert.fold_onnx(tmp_path / "model.onnx")
    assert list(report.folded) == ["y"]
    check_same_outputs(made, new, shape)
    (tmp_path / "weights").unlink()
    with pytest.raises(ValueError, match="external data of 'w' must be in"):
        convert.fold_onnx(tmp_path / "model.onnx")


def test_an_old_model():
    made = model([node("Conv", "x w", "c"), norm("c", "y")], conv([4, 6, 1, 1])[1], X4)
    made.graph.node[1].attribute.append(helper.make_attribute("is_test", 1))
    made.opset_import[0].version, made.ir_version = 6, 4
    new, report = convert.fold_onnx(made)
    assert list(report.folded) == ["y"]
    assert (operators(new), new.opset_import[0].version) == (["Conv"], 7)


def branches(*names):
    """An If whose branches have a convolution and a norm each, of weights outside; and x, read by one of them."""
    arrays = {"w": random(4, 6, 1, 1), **vectors("a", 4), **vectors("b", 4)}
    graphs = [
        helper.make_graph(
            [node("Conv", "x w", f"{name}.c"), norm(f"{name}.c", name)],
            *(name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)]),
        )
        for name in "ab"
    ]
    nodes = [
        node("ReduceSum", "x", "sum", keepdims=0),
        node("Greater", "sum zero", "positive"),
        node("If", "positive", "y", then_branch=graphs[0], else_branch=graphs[1]),
    ]
    return model(nodes, arrays | {"zero": np.array(0.0)}, X4)


def test_inside_branches():
    made = branches()
    new, report = convert.fold_onnx(made)
    onnx.checker.check_model(new, full_check=True)
    assert set(report.folded) == {"a", "b"}
    assert {tensor.name for tensor in new.graph.initializer}.isdisjoint({"w", "a.w", "b.v"})
    x = np.random.default_rng(0).normal(0, 1, X4).astype("f4")
    for sign in (1, -1):
        np.testing.assert_allclose(run(new, x=sign * abs(x))[0], run(made, x=sign * abs(x))[0], atol=1e-5)


def test_what_branches_read_is_left():
    """The output of the convolution outside is read by the norm and by a branch."""
    made = branches()
    for graph in (attribute.g for attribute in made.graph.node[2].attribute):
        graph.node[0].input[0] = "d"
    made.graph.node.insert(0, norm("c", "d"))
    made.graph.node.insert(0, node("Conv", "x v", "c"))
    arrays = vectors("d", 6) | {"v": random(6, 6, 1, 1)}
    made.graph.initializer.extend(onnx.numpy_helper.from_array(v.astype("f4"), name) for name, v in arrays.items())
    _, report = convert.fold_onnx(made)
    assert set(report.folded) == {"a", "b", "d"}  # into the convolution before it: the branches read what it gives
    made.graph.node[1].input[0] = "x"
    _, report = convert.fold_onnx(made)
    assert "after it, 'd' is read inside the graphs of an If, Loop or Scan" in report.left["d"]


def test_inside_a_loop():
    body = helper.make_graph(
        [
            node("Conv", "z w", "c"),
            norm("c", "d"),
            node("Identity", "go", "on"),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, X4),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("d", TensorProto.FLOAT, X4),
        ],
    )
    nodes = [node("Loop", "n  x", "y", body=body)]
    nodes[0].input[:] = ["n", "", "x"]
    made = model(nodes, {"n": np.array(3), "w": random(6, 6, 1, 1), **vectors("d", 6)}, X4, shape=X4)
    new, report = convert.fold_onnx(made)
    onnx.checker.check_model(new, full_check=True)
    assert set(report.folded) == {"d"}
    check_same_outputs(made, new, X4)


def test_functions_are_put_where_they_are_called():
    nodes, arrays, shape = BEFORE["Conv"]
    made = model(nodes, arrays, shape)
    inputs = ["x", "w", "b", *(f"y.{v}" for v in "wbmv")]
    made.functions.append(helper.make_function("local", "Block", inputs, ["y"], nodes, made.opset_import))
    made.opset_import.append(helper.make_opsetid("local", 1))
    del made.graph.node[:], made.graph.value_info[:]
    made.graph.node.append(helper.make_node("Block", inputs, ["y"], domain="local"))
    new, report = convert.fold_onnx(made)
    assert operators(new) == ["Conv"]
    assert len(report.folded) == 1
    check_same_outputs(made, new, shape)


def test_names_that_are_taken():
    """The new weights, and the Add, get names of their own."""
    nodes, arrays, shape = BEFORE["MatMul"]
    nodes = [*nodes, node("Identity", "y", "w.folded"), node("Identity", "w.folded", "c.product")]
    new = folded(model(nodes, arrays, shape, output="c.product"), 1)
    assert operators(new)[:2] == ["MatMul", "Add"]


def test_a_model_without_batch_norm():
    with pytest.raises(ValueError, match="the model must have a BatchNormalization node"):
        convert.fold_onnx(model([node("Relu", "x", "y")], {}, X4))
