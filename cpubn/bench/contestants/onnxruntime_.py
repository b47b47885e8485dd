"""onnxruntime: a graph of one BatchNormalization, inference only, NCHW only, input and output bound beforehand."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from cpubn.bench.case import EPS, Case, Prepared
from cpubn.bench.contestants import Contestant

VERSION = onnxruntime.__version__
NOTE = "inference only, NCHW only; bound to a reused output"


def contestants(threads: int) -> list[Contestant]:
    def evaluate(case: Case, layout: str) -> Prepared:
        session = onnxruntime.InferenceSession(
            model(case).SerializeToString(), options(threads), providers=["CPUExecutionProvider"]
        )
        binding = session.io_binding()
        y = case.y()
        binding.bind_input("x", "cpu", 0, np.float32, y.shape, case.x().ctypes.data)
        binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)
        return Prepared(lambda: session.run_with_iobinding(binding), lambda: y)

    return [Contestant("onnxruntime", "NCHW", {"eval": evaluate, "overhead": evaluate}, NOTE)]


def options(threads: int) -> onnxruntime.SessionOptions:
    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads, chosen.inter_op_num_threads = threads, 1
    return chosen


def model(case: Case) -> onnx.ModelProto:
    constants = {"weight": case.weight, "bias": case.bias, "mean": case.mean, "var": case.var}
    graph = helper.make_graph(
        [helper.make_node("BatchNormalization", ["x", *constants], ["y"], epsilon=EPS)],
        "batch_norm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, case.layer.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, case.layer.shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
