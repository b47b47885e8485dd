"""What fold_onnx says of a model: what was folded, what was left, and by how much outputs differ."""

import numpy as np
import pytest
from conftest import need_library

for name in ("ml_dtypes", "onnx"):
    need_library(name, "convert")
from fold_cases import BEFORE
from fold_left import LEFT
from onnx import helper
from onnx_models import model, node, norm, vectors

from cpubn import convert


def test_the_report(monkeypatch):
    monkeypatch.setattr("cpubn.convert._fold_check.find_spec", lambda name: None)  # onnxruntime has tests of its own
    made = model(*LEFT["one of two"][:3])
    made.graph.node.insert(0, norm("x", "a"))
    _, report = convert.fold_onnx(made)
    assert (report.comparison, report.difference) == (None, None)
    nodes, arrays, shape = BEFORE["two norms"]
    made = model([*nodes, node("Relu", "y", "r"), norm("r", "z")], arrays | vectors("z", 4), shape, output="z")
    _, report = convert.fold_onnx(made, check=True)
    assert 0 < report.difference < 1e-5
    assert 1 < report.comparison.largest < 100
    first, *lines = str(report).splitlines()
    assert first == "folded 2 of 3 batch norms"
    assert lines[:3] == ["  d: into Conv 'c' before it", "  y: into Conv 'c' before it", "left 1"]
    assert lines[3].startswith(
        "  z: before it, Relu 'r' is none of Conv, ConvTranspose, Gemm, MatMul; after it, 'z' is"
    )
    assert lines[4].endswith("(reference, random inputs)")
    x = np.ones(shape, "f4")
    _, given = convert.fold_onnx(made, {"x": x})
    assert given.comparison.by == "reference, given inputs"
    for inputs, wrong in (
        ({}, "inputs must be a mapping of arrays by the model's inputs, 'x', got none"),
        ({"x": x, "z": x}, "got 'x', 'z'; pass one array for each"),
        ([x], "got list"),
        ({"x": x[:, :3]}, "inputs must be such that the model runs on them, got: reference does not run"),
        ({"x": "text"}, "inputs must be such that the model runs on them"),
    ):
        with pytest.raises(ValueError, match=wrong):
            convert.fold_onnx(made, inputs)


def test_the_evaluator_computes_inference_in_old_opsets(monkeypatch):
    """By itself it takes the batch norms of opsets 9 to 13 for training."""
    monkeypatch.setattr("cpubn.convert._fold_check.find_spec", lambda name: None)
    for opset in (7, 9, 13):
        made = model(*BEFORE["two norms"][:3], opset=opset, ir_version=3 if opset < 9 else 8)
        _, report = convert.fold_onnx(made, check=True)
        assert report.comparison.by == "reference, random inputs"
        assert report.comparison.relative < 1e-5


def test_a_model_that_does_not_run_is_not_compared():
    made = model(*BEFORE["Conv"][:3])
    made.graph.node.append(node("Unheard", "y", "z", domain="com.example"))
    made.opset_import.append(helper.make_opsetid("com.example", 1))
    made.graph.output[0].name = "z"
    _, report = convert.fold_onnx(made, check=True)
    assert report.difference is None
    assert str(report).splitlines()[-1].startswith("not compared: reference does not run the model")
