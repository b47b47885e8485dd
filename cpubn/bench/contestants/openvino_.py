"""OpenVINO: a graph of one BatchNormInference, inference only, NCHW only, on the caller's arrays, in float32."""

from __future__ import annotations

import numpy as np
import openvino
from openvino import opset8 as opset

from cpubn.bench.case import EPS, Case, Prepared
from cpubn.bench.contestants import Contestant

VERSION = openvino.__version__
NOTE = "inference only, NCHW only; into a reused output"


def contestants(threads: int) -> list[Contestant]:
    core = openvino.Core()
    # Its default precision is bfloat16 where the CPU has that.
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}

    def evaluate(case: Case, layout: str) -> Prepared:
        x, y = case.x(), case.y()
        parameter = opset.parameter(x.shape, np.float32)
        constants = (opset.constant(v) for v in (case.weight, case.bias, case.mean, case.var))
        node = opset.batch_norm_inference(parameter, *constants, EPS)
        request = core.compile_model(openvino.Model([node], [parameter]), "CPU", settings).create_infer_request()
        request.set_input_tensor(openvino.Tensor(x, shared_memory=True))
        request.set_output_tensor(openvino.Tensor(y, shared_memory=True))

        def call() -> None:  # 10 us less than request.infer()
            request.start_async()
            request.wait()

        return Prepared(call, lambda: y)

    return [Contestant("openvino", "NCHW", {"eval": evaluate, "overhead": evaluate}, NOTE)]
