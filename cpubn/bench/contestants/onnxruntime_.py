"""onnxruntime: a graph of BatchNormalization and what follows it, NCHW only, inputs and output bound beforehand.

Its optimizer fuses an activation with BatchNormalization only behind a convolution, which it folds both into.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from cpubn.bench.case import EPS, Case, Prepared
from cpubn.bench.contestants import Contestant
from cpubn.bench.edge import FUSED, Fused

VERSION = onnxruntime.__version__
NOTE = "inference only, NCHW only; bound to a reused output"
OPERATORS = {"relu": "Relu", "hardswish": "HardSwish", "gelu": "Gelu"}


def contestants(threads: int) -> list[Contestant]:
    def evaluate(case: Case, layout: str) -> Prepared:
        session = onnxruntime.InferenceSession(
            model(case).SerializeToString(), options(threads), providers=["CPUExecutionProvider"]
        )
        binding = session.io_binding()
        y = case.y()
        binding.bind_input("x", "cpu", 0, np.float32, y.shape, case.x().ctypes.data)
        residual = case.residual() if isinstance(case, Fused) else None
        if residual is not None:
            binding.bind_input("residual", "cpu", 0, np.float32, y.shape, residual.ctypes.data)
        binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)
        return Prepared(lambda: session.run_with_iobinding(binding), lambda: y)

    return [Contestant("onnxruntime", "NCHW", dict.fromkeys(("eval", "overhead", *FUSED), evaluate), NOTE)]


def options(threads: int) -> onnxruntime.SessionOptions:
    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads, chosen.inter_op_num_threads = threads, 1
    return chosen


def model(case: Case) -> onnx.ModelProto:
    constants = {"weight": case.weight, "bias": case.bias, "mean": case.mean, "var": case.var}
    after = following(case) if isinstance(case, Fused) else []
    affine = "affine" if after else "y"
    inputs = ["x", "residual"] if isinstance(case, Fused) and case.adds else ["x"]
    graph = helper.make_graph(
        [helper.make_node("BatchNormalization", ["x", *constants], [affine], epsilon=EPS), *after],
        "batch_norm",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, case.layer.shape) for name in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, case.layer.shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def following(case: Fused) -> list[onnx.NodeProto]:
    """The residual and the activation, from "affine" to "y"."""
    z = "sum" if case.adds else "affine"
    nodes = [helper.make_node("Add", ["affine", "residual"], ["sum"])] if case.adds else []
    if case.activation == "silu":
        return [*nodes, helper.make_node("Sigmoid", [z], ["gate"]), helper.make_node("Mul", [z, "gate"], ["y"])]
    return [*nodes, helper.make_node(OPERATORS[case.activation], [z], ["y"])]
