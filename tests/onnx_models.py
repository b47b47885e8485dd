"""Small ONNX models with batch norms, and what they compute."""

import numpy as np
import onnx
import onnx.version_converter
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

RNG = np.random.default_rng(7)


def node(operator, inputs, output, name=None, **attributes):
    return helper.make_node(operator, inputs.split(), output.split(), name=name or output.split()[0], **attributes)


def norm(x, y, **attributes):
    """A batch norm, whose vectors are named after it."""
    return node("BatchNormalization", " ".join([x, *(f"{y}.{v}" for v in "wbmv")]), y, y, epsilon=1e-3, **attributes)


def vectors(name, channels):
    """Those of a batch norm, none of them near a default."""
    return {
        f"{name}.w": RNG.uniform(0.5, 2, channels) * RNG.choice([-1, 1], channels),
        f"{name}.b": RNG.normal(0, 1, channels),
        f"{name}.m": RNG.normal(0, 1, channels),
        f"{name}.v": RNG.uniform(0.3, 3, channels),
    }


def random(*shape):
    return RNG.normal(0, 1, shape)


def model(nodes, arrays, x, *, output="y", opset=17, dtype=np.float32, ir_version=8, shape=None):
    """A model from x, of this shape, to an output whose shape is inferred, or this one."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    tensors = [
        numpy_helper.from_array(np.asarray(v) if np.asarray(v).dtype.kind == "i" else np.asarray(v, dtype), name)
        for name, v in arrays.items()
    ]
    old = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors] if ir_version < 4 else []
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", kind, x), *old],
        [helper.make_tensor_value_info(name, kind, shape) for name in output.split()],
        tensors,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    made = onnx.shape_inference.infer_shapes(made, strict_mode=True)
    onnx.checker.check_model(made, full_check=True)
    return made


def run(made, **feeds):
    """By onnx's reference evaluator, which computes the batch norms of opsets before 14 as training ones."""
    if made.opset_import[0].version < 14:
        made = onnx.version_converter.convert_version(made, 14)
    return ReferenceEvaluator(made).run(None, feeds)


def operators(made):
    return [each.op_type for each in made.graph.node]
