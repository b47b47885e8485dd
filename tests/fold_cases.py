"""Models whose batch norms can be folded, for onnx's reference evaluator and for onnxruntime."""

import numpy as np
from onnx_models import node, norm, random, vectors

X4, X3 = [2, 6, 9, 8], [2, 6, 9]


def conv(w, x=X4, bias=True, operator="Conv", **attributes):
    """A convolution and the batch norm after it."""
    outputs = w[1] * attributes.get("group", 1) if operator == "ConvTranspose" else w[0]
    arrays = {"w": random(*w), **vectors("y", outputs)} | ({"b": random(outputs)} if bias else {})
    return [node(operator, "x w b" if bias else "x w", "c", **attributes), norm("c", "y")], arrays, x


def gemm(w, x, c=None, **attributes):
    outputs = w[0] if attributes.get("transB") else w[1]
    arrays = {"w": random(*w), **vectors("y", outputs)} | ({} if c is None else {"b": random(*c)})
    return [node("Gemm", "x w" if c is None else "x w b", "c", **attributes), norm("c", "y")], arrays, x


def then(case, *nodes, **arrays):
    """A case whose norm gives h, and what follows to y."""
    before = [type(each)() for each in case[0]]
    for new, old in zip(before, case[0], strict=True):
        new.CopyFrom(old)
    before[-1].output[0] = before[-1].name = "h"
    return [*before, *nodes], case[1] | arrays, case[2]


ROWS = [2, 7, 6]  # (N, L, C)
BEFORE = {
    "Conv": conv([4, 6, 3, 3]),
    "Conv without bias": conv([4, 6, 3, 3], bias=False),
    "Conv of one dimension": conv([4, 6, 3], X3, pads=[1, 2]),
    "Conv of three dimensions": conv([4, 6, 3, 2, 1], [1, 6, 4, 5, 3]),
    "Conv, groups": conv([4, 3, 3, 3], group=2, strides=[2, 1], dilations=[1, 2], pads=[0, 1, 2, 3]),
    "Conv, depthwise": conv([12, 1, 3, 3], group=6, auto_pad="SAME_UPPER"),
    "Conv, same lower": conv([4, 6, 2, 2], auto_pad="SAME_LOWER", strides=[2, 2]),
    "ConvTranspose": conv([6, 4, 3, 2], operator="ConvTranspose", strides=[2, 3], output_padding=[1, 0]),
    "Gemm": gemm([6, 4], [3, 6], [4]),
    "Gemm, transB": gemm([4, 6], [3, 6], [1, 4], transB=1),
    "Gemm, alpha and beta": gemm([4, 6], [3, 6], [4], transB=1, alpha=0.5, beta=-2.0),
    "Gemm, transA": gemm([6, 4], [6, 3], [1], transA=1, beta=3.0),
    "Gemm without C": gemm([6, 4], [3, 6], alpha=1.5),
    "Gemm, C a number": gemm([6, 4], [3, 6], []),
    "MatMul": ([node("MatMul", "x w", "c"), norm("c", "y")], {"w": random(6, 4), **vectors("y", 4)}, [3, 6]),
    "MatMul from the left": (
        [node("MatMul", "w x", "c"), norm("c", "y")],
        {"w": random(4, 6), **vectors("y", 4)},
        [2, 6, 5],
    ),
    "MatMul and Add": (
        [node("MatMul", "x w", "c"), node("Add", "c b", "d"), norm("d", "y")],
        {"w": random(6, 4), "b": random(4), **vectors("y", 4)},
        [3, 6],
    ),
    "Add before the product": (
        [node("MatMul", "x w", "c"), node("Add", "b c", "d"), norm("d", "y")],
        {"w": random(6, 4), "b": random(1, 4), **vectors("y", 4)},
        [3, 6],
    ),
    "MatMul from the left and Add": (
        [node("MatMul", "w x", "c"), node("Add", "c b", "d"), norm("d", "y")],
        {"w": random(4, 6), "b": random(4, 1), **vectors("y", 4)},
        [2, 6, 5],
    ),
    "rows": (
        [
            node("MatMul", "x w", "c"),
            node("Transpose", "c", "d", perm=[0, 2, 1]),
            norm("d", "e"),
            node("Transpose", "e", "y", perm=[0, 2, 1]),
        ],
        {"w": random(6, 4), **vectors("e", 4)},
        ROWS,
    ),
    "rows with a bias": (
        [
            node("MatMul", "x w", "c"),
            node("Add", "c b", "d"),
            node("Transpose", "d", "e", perm=[0, 2, 1]),
            norm("e", "y"),
        ],
        {"w": random(6, 4), "b": random(4), **vectors("y", 4)},
        ROWS,
    ),
    "a bias behind the Transpose": (
        [
            node("MatMul", "x w", "c"),
            node("Transpose", "c", "d", perm=[0, 2, 1]),
            node("Add", "d b", "e"),
            norm("e", "y"),
        ],
        {"w": random(6, 4), "b": random(4, 1), **vectors("y", 4)},
        ROWS,
    ),
    "Conv and Add": (
        [node("Conv", "x w b", "c"), node("Add", "c a", "d"), norm("d", "y")],
        {"w": random(4, 6, 1, 1), "b": random(4), "a": random(1, 4, 1, 1), **vectors("y", 4)},
        X4,
    ),
    "Conv and Add of a number": (
        [node("Conv", "x w", "c"), node("Add", "a c", "d"), norm("d", "y")],
        {"w": random(4, 6, 1, 1), "a": random(), **vectors("y", 4)},
        X4,
    ),
    "Identity between": (
        [node("Conv", "x w", "c"), node("Identity", "c", "d"), norm("d", "y")],
        {"w": random(4, 6, 1, 1), **vectors("y", 4)},
        X4,
    ),
    "Keras": (
        [
            node("Transpose", "x", "a", perm=[0, 3, 1, 2]),
            node("Conv", "a w", "b", auto_pad="SAME_UPPER", strides=[2, 2]),
            node("Transpose", "b", "c", perm=[0, 2, 3, 1]),
            node("Add", "c bias", "d"),
            node("Transpose", "d", "e", perm=[0, 3, 1, 2]),
            norm("e", "f"),
            node("Transpose", "f", "g", perm=[0, 2, 3, 1]),
            node("Relu", "g", "y"),
        ],
        {"w": random(4, 6, 3, 3), "bias": random(4), **vectors("f", 4)},
        [2, 9, 8, 6],
    ),
    "Transposes that say no axes": (
        [
            node("Conv", "x w", "c"),
            node("Transpose", "c", "d"),
            node("Transpose", "d", "e"),
            norm("e", "y"),
        ],
        {"w": random(4, 6, 1, 1), **vectors("y", 4)},
        X4,
    ),
    "an activation behind": then(conv([4, 6, 1, 1]), node("Relu", "h", "y")),
    "two norms": (
        [node("Conv", "x w", "c"), norm("c", "d"), norm("d", "y")],
        {"w": random(4, 6, 1, 1), **vectors("d", 4), **vectors("y", 4)},
        X4,
    ),
    "shared weights": (
        [
            node("Conv", "x w", "c"),
            norm("c", "d"),
            node("Conv", "x w", "e"),
            norm("e", "f"),
            node("Conv", "x w", "g"),
            node("Sum", "d f g", "y"),
        ],
        {"w": random(4, 6, 1, 1), **vectors("d", 4), **vectors("f", 4)},
        X4,
    ),
    "several outputs": (
        [node("Conv", "x w", "c"), norm("c", "y"), node("Relu", "y", "z"), node("Conv", "z w2", "u"), norm("u", "v")],
        {"w": random(4, 6, 1, 1), "w2": random(3, 4, 1, 1), **vectors("y", 4), **vectors("v", 3)},
        X4,
        "y v",
    ),
    "weights that are computed": (
        [
            node("Mul", "w half", "u"),
            node("Transpose", "u", "v", perm=[3, 2, 0, 1]),
            node("Conv", "x v", "c"),
            norm("c", "y"),
        ],
        {"w": random(3, 3, 6, 4), "half": random(4), **vectors("y", 4)},
        X4,
    ),
}
PLAIN = {**vectors("c", 6), "w": random(4, 6, 3, 3), "b": random(4)}
FLAT = {**vectors("c", 6), "w": random(6 * 72, 4), "b": random(4)}
ZERO = PLAIN | {"c.b": np.zeros(6), "c.m": np.zeros(6)}
ONE = {**vectors("c", 1), "w": random(4, 1, 3, 3)}
AFTER = {
    "Conv": ([norm("x", "c"), node("Conv", "c w b", "y", strides=[2, 1])], PLAIN, X4),
    "Conv without bias": ([norm("x", "c"), node("Conv", "c w", "y")], PLAIN, X4),
    "Conv, groups": (
        [norm("x", "c"), node("Conv", "c w b", "y", group=2)],
        PLAIN | {"w": random(4, 3, 3, 3)},
        X4,
    ),
    "Conv, valid": ([norm("x", "c"), node("Conv", "c w b", "y", auto_pad="VALID")], PLAIN, X4),
    "Conv, same but of one tap": (
        [norm("x", "c"), node("Conv", "c w", "y", auto_pad="SAME_UPPER", strides=[2, 2])],
        PLAIN | {"w": random(4, 6, 1, 1)},
        X4,
    ),
    "zeros that stay zeros": ([norm("x", "c"), node("Conv", "c w b", "y", pads=[1] * 4)], ZERO, X4),
    "one channel": ([norm("x", "c"), node("Conv", "c w", "y", pads=[1, 2, 0, 1])], ONE, [2, 1, 9, 8]),
    "one channel, same": (
        [norm("x", "c"), node("Conv", "c w", "y", auto_pad="SAME_LOWER", strides=[2, 2])],
        ONE,
        [2, 1, 9, 8],
    ),
    "ConvTranspose": (
        [norm("x", "c"), node("ConvTranspose", "c w", "y", pads=[2, 1, 2, 1])],
        PLAIN | {"w": random(6, 4, 3, 2)},
        X4,
    ),
    "Gemm": ([norm("x", "c"), node("Gemm", "c w b", "y", alpha=0.5, beta=2.0)], PLAIN | {"w": random(6, 4)}, [3, 6]),
    "Gemm, transB": ([norm("x", "c"), node("Gemm", "c w", "y", transB=1)], PLAIN | {"w": random(4, 6)}, [3, 6]),
    "MatMul": ([norm("x", "c"), node("MatMul", "c w", "y")], PLAIN | {"w": random(6, 4)}, [3, 6]),
    "MatMul and Add": (
        [norm("x", "c"), node("MatMul", "c w", "d"), node("Add", "d b", "y")],
        PLAIN | {"w": random(6, 4)},
        [3, 6],
    ),
    "MatMul and another Add": (
        [norm("x", "c"), node("MatMul", "c w", "d"), node("Add", "d b", "y")],
        PLAIN | {"w": random(6, 4), "b": random(5, 1, 1)},
        [3, 6],
    ),
    "MatMul from the left": (
        [norm("x", "c"), node("MatMul", "w c", "d"), node("Add", "d b", "y")],
        PLAIN | {"w": random(4, 6), "b": random(4, 1)},
        X3,
    ),
    "rows": (
        [norm("x", "c"), node("Transpose", "c", "d", perm=[0, 2, 1]), node("MatMul", "d w", "y")],
        PLAIN | {"w": random(6, 4)},
        X3,
    ),
    "Flatten": ([norm("x", "c"), node("Flatten", "c", "d"), node("Gemm", "d w b", "y")], FLAT, X4),
    "Reshape": (
        [norm("x", "c"), node("Reshape", "c s", "d"), node("MatMul", "d w", "e"), node("Add", "e b", "y")],
        FLAT | {"s": np.array([0, -1])},
        X4,
    ),
    "Reshape to sizes": (
        [norm("x", "c"), node("Reshape", "c s", "d"), node("MatMul", "d w", "e"), node("Add", "e b", "y")],
        FLAT | {"s": np.array([-1, 6 * 72])},
        X4,
    ),
    "several": (
        [norm("x", "c"), node("Conv", "c w b", "d"), node("Conv", "c w2", "e"), node("Sum", "d e", "y")],
        PLAIN | {"w2": random(4, 6, 3, 3)},
        X4,
    ),
    "two norms": ([norm("x", "a"), norm("a", "c"), node("Conv", "c w b", "y")], PLAIN | vectors("a", 6), X4),
}
RUNTIME = {  # which onnx's reference evaluator does not compute
    "ConvTranspose, groups": conv([6, 4, 3, 3], operator="ConvTranspose", group=3, pads=[1, 1, 0, 1]),
}
