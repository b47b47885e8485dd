"""Where an ONNX model keeps its batch norms: versions, names, subgraphs, functions, and what their inputs can be."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import need_library
from norms import EPS, C, check_same, trained_layer

from cpubn import convert

for name in ("ml_dtypes", "onnx"):
    need_library(name, "convert")
import ml_dtypes
import onnx
from onnx import TensorProto, helper, numpy_helper

NAME = "BatchNormalization"


def model(opset=15):
    made = convert.new_onnx(trained_layer())
    made.opset_import[0].version = opset
    return made


def node_of(made):
    return made.graph.node[0]


def norm_of(made):
    return convert.from_onnx(made)[NAME]


def float32_norm():
    """What the model holds: the layer's numbers, rounded to float32."""
    norm = convert.Norm.of(trained_layer())
    vectors = {field: vector.astype(np.float32) for field, vector in norm.vectors().items()}
    return replace(norm, **vectors, num_batches_tracked=convert.UNKNOWN, variance=convert.UNKNOWN)


@pytest.mark.parametrize("opset", [7, 8, 9, 14, 15, onnx.defs.onnx_opset_version()])
def test_every_opset_from_7_on(opset):
    check_same(norm_of(model(opset)), float32_norm())


@pytest.mark.parametrize("opset", [1, 5, 6])
def test_older_opsets_are_converted(opset):
    made = model(opset)
    node_of(made).attribute.append(helper.make_attribute("is_test", 1))
    check_same(norm_of(made), float32_norm())
    assert convert.to_onnx({NAME: trained_layer()}, made).opset_import[0].version == 7
    assert made.opset_import[0].version == opset
    node_of(made).attribute[-1].i = 0
    with pytest.raises(ValueError, match=r"such that onnx.version_converter.convert_version takes it, got .*is_test"):
        convert.from_onnx(made)


@pytest.mark.parametrize("opset", [0, onnx.defs.onnx_opset_version() + 1])
def test_other_opsets_are_refused(opset):
    with pytest.raises(ValueError, match=f"an ONNX model must be of opset 1 to .*got {opset}; update onnx"):
        convert.from_onnx(model(opset))


def test_operators_of_other_domains_are_not_batch_norm():
    made = model()
    node_of(made).domain = "com.example"
    with pytest.raises(ValueError, match="the model must have a BatchNormalization node, got 1 nodes of other kinds"):
        convert.from_onnx(made)


def test_statistics_of_each_position_are_refused():
    made = model(8)
    node_of(made).attribute.append(helper.make_attribute("spatial", 1))
    check_same(norm_of(made), float32_norm())
    node_of(made).attribute[-1].i = 0
    with pytest.raises(ValueError, match=f"node '{NAME}' must normalize channels, got spatial=0, .*; flatten"):
        convert.from_onnx(made)


@pytest.mark.parametrize(("opset", "how"), [(7, "outputs"), (13, "outputs"), (14, "mode"), (15, "mode")])
def test_training_nodes_say_which_variance(opset, how):
    made = model(opset)
    if how == "outputs":
        node_of(made).output.extend(["mean", "var"])
    else:
        node_of(made).attribute.append(helper.make_attribute("training_mode", 1))
    assert norm_of(made).variance == "biased"
    assert convert.from_onnx(made, variance="unbiased")[NAME].variance == "unbiased"
    assert convert.from_onnx(model(opset), variance={NAME: "biased"})[NAME].variance == "biased"
    with pytest.raises(ValueError, match="'BatchNormalization': values_per_channel must be given"):
        convert.to_onnx({NAME: trained_layer()}, made)


def test_defaults_are_those_of_the_operator():
    made = model()
    del node_of(made).attribute[:]
    assert (norm_of(made).eps, norm_of(made).momentum) == (1e-5, 0.1)


@pytest.mark.parametrize(
    "attribute",
    [
        helper.make_attribute("epsilon", 1e-5),  # a second time
        helper.make_attribute("spatial", 1.0),
        helper.make_attribute("momentun", 0.9),
        helper.make_attribute("training_mode", [1, 0]),
    ],
)
def test_strange_attributes_are_refused(attribute):
    made = model()
    node_of(made).attribute.append(attribute)
    with pytest.raises(ValueError, match=f"node '{NAME}' must have each of the attributes .*got '{attribute.name}'"):
        convert.from_onnx(made)


@pytest.mark.parametrize(("attribute", "value"), [("epsilon", -1.0), ("epsilon", np.nan), ("momentum", 2.0)])
def test_impossible_attributes_are_refused(attribute, value):
    made = model()
    (wrong,) = [a for a in node_of(made).attribute if a.name == attribute]
    wrong.f = value
    with pytest.raises(ValueError, match=f"batch norm '{NAME}': (eps|momentum) must be a .*number.* got {value}"):
        convert.from_onnx(made)


def test_nodes_without_a_name_have_that_of_their_output():
    made = model()
    node_of(made).name = ""
    check_same(convert.from_onnx(made)["Y"], float32_norm())
    second = made.graph.node.add()
    second.CopyFrom(node_of(made))
    second.name = "Y"
    with pytest.raises(ValueError, match="nodes must have names of their own, got 'Y' twice; rename one"):
        convert.from_onnx(made)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_weights_of_other_dtypes(dtype):
    made = model()
    for tensor in made.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    for field, got in norm_of(made).vectors().items():
        np.testing.assert_array_equal(got, float32_norm().vectors()[field].astype(dtype).astype(np.float64))
    written = convert.to_onnx({NAME: trained_layer()}, made)
    assert {numpy_helper.to_array(tensor).dtype for tensor in written.graph.initializer} == {np.dtype(dtype)}
    for field, got in norm_of(written).vectors().items():
        expected = convert.Norm.of(trained_layer()).vectors()[field]
        np.testing.assert_array_equal(got, expected.astype(dtype).astype(np.float64))


@pytest.mark.parametrize("name", ["running_mean", "BatchNormalization", "epsilon", "Y"])
def test_names_that_are_no_text_are_refused(name, tmp_path):
    content = model().SerializeToString().replace(name.encode(), name[:-1].encode() + b"\xff")
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"the names in an ONNX model must be UTF-8, got b'.*xff'; export it again"):
        convert.from_onnx(tmp_path / "model.onnx")


def branches():
    """A batch norm in each branch of an If: one of weights outside, one of its own."""
    inner = model().graph
    outside, inside = ([*inner.initializer], [*model().graph.initializer])
    for tensor in inside:
        tensor.name = f"{tensor.name}_inside"
    names = {"then": [t.name for t in outside], "else": [t.name for t in inside]}
    shape = helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)
    made = {
        branch: helper.make_graph(
            [helper.make_node(NAME, ["X", *inputs], ["Y"], name=branch, epsilon=EPS, momentum=0.7)],
            *(branch, [], [shape], inside if branch == "else" else []),
        )
        for branch, inputs in names.items()
    }
    node = helper.make_node("If", ["which"], ["Y"], then_branch=made["then"], else_branch=made["else"])
    ends = [helper.make_tensor_value_info("which", TensorProto.BOOL, []), inner.input[0]]
    graph = helper.make_graph([node], "graph", ends, [inner.output[0]], outside)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def test_batch_norms_inside_branches():
    norms = convert.from_onnx(branches())
    assert set(norms) == {"then", "else"}
    for norm in norms.values():
        check_same(norm, float32_norm())
    other = replace(float32_norm(), running_mean=np.full(C, 3.0))
    for branch in ("then", "else"):
        written = convert.to_onnx({branch: other}, branches())
        onnx.checker.check_model(written)
        got = convert.from_onnx(written)
        check_same(got[branch], other)
        check_same(got["then" if branch == "else" else "else"], float32_norm())


def test_batch_norms_inside_functions():
    made = model()
    function = helper.make_function(
        "local",
        "Norm",
        ["X", "w"],
        ["Y"],
        [helper.make_node(NAME, ["X", "w", "w", "w", "w"], ["Y"])],
        made.opset_import,
    )
    made.functions.append(function)
    made.opset_import.append(helper.make_opsetid("local", 1))
    node_of(made).CopyFrom(helper.make_node("Norm", ["X", "weight"], ["Y"], domain="local"))
    (norm,) = convert.from_onnx(made).values()
    np.testing.assert_array_equal(norm.running_var, float32_norm().weight)


def test_new_numbers_take_free_names_and_leave_no_orphans():
    made = model()
    made.graph.input.append(helper.make_tensor_value_info(f"{NAME}.weight", TensorProto.FLOAT, [C]))
    written = convert.to_onnx({NAME: trained_layer()}, made)
    names = [tensor.name for tensor in written.graph.initializer]
    assert names == [f"{NAME}.{field}" for field in ("weight.1", "bias", "running_mean", "running_var")]
    check_same(norm_of(made), float32_norm())
    again = convert.to_onnx({NAME: trained_layer()}, written)
    assert len(again.graph.initializer) == 4


def test_a_node_keeps_its_momentum_where_none_is_known():
    assert norm_of(convert.to_onnx({NAME: trained_layer().freeze()}, model())).momentum == 0.3


# what to write, error, message
BAD = {
    "a name of no node": ({"bn": trained_layer()}, ValueError, f"must be named as .* are, '{NAME}', got 'bn'"),
    "another length": (
        {NAME: convert.Norm(np.zeros(2), np.ones(2), EPS)},
        *(ValueError, rf"weight of '{NAME}' must have shape \(5,\), as in the model, got \(2,\)"),
    ),
    "no momentum": (
        {NAME: replace(convert.Norm.of(trained_layer()), momentum=None)},
        *(ValueError, f"batch norm '{NAME}': momentum must be a number for ONNX, got None"),
    ),
    "an eps too small": (
        {NAME: replace(convert.Norm.of(trained_layer()), eps=1e-60)},
        *(ValueError, f"batch norm '{NAME}': eps must fit float32, .*got 1e-60"),
    ),
    "an eps too large": (
        {NAME: replace(convert.Norm.of(trained_layer()), eps=1e39)},
        *(ValueError, f"batch norm '{NAME}': eps must fit float32, .*got 1e\\+39"),
    ),
    "a mean too large": (
        {NAME: replace(convert.Norm.of(trained_layer()), running_mean=np.full(C, 1e39))},
        *(ValueError, r"running_mean must fit float32, got 1e\+39"),
    ),
    "a path": ("norms.onnx", TypeError, "norms must be a mapping"),
}


@pytest.mark.parametrize(("norms", "error", "match"), BAD.values(), ids=list(BAD))
def test_what_cannot_be_written_is_refused(norms, error, match):
    with pytest.raises(error, match=match):
        convert.to_onnx(norms, model())
