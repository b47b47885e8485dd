"""Models whose batch norms are left alone, and why."""

import numpy as np
from fold_cases import FLAT, PLAIN, ROWS, X4
from onnx_models import node, norm, random, vectors

HEAD = [node("Conv", "x w", "c")]
WEIGHT = {"w": random(4, 6, 1, 1), **vectors("y", 4)}
PADDED = [norm("x", "c"), node("Conv", "c w b", "y", pads=[1, 1, 1, 1])]
LEFT = {  # and why
    "an activation before": (
        [*HEAD, node("Relu", "c", "d"), norm("d", "y")],
        *(WEIGHT, X4, "before it, Relu 'd' is none of Conv, .*; after it, 'y' is an output"),
    ),
    "at the start": ([norm("x", "y")], vectors("y", 6), X4, "before it, its input 'x' is given from outside"),
    "several readers": (
        [*HEAD, norm("c", "d"), node("Add", "c d", "y")],
        *(
            {"w": random(4, 6, 1, 1), **vectors("d", 4)},
            X4,
            "before it, 2 nodes read 'c': .*; after it, Add 'y' is none",
        ),
    ),
    "two constants": (
        [*HEAD, node("Add", "c x", "d"), norm("d", "y")],
        *({"w": random(6, 6, 1, 1), **vectors("y", 6)}, X4, "Add 'd' adds two values that are no constants"),
    ),
    "a bias for each place": (
        [*HEAD, node("Add", "c a", "d"), norm("d", "y")],
        *(WEIGHT | {"a": random(4, 1, 8)}, X4, r"Add 'd' adds \[4, 1, 8\], which is no number for each channel"),
    ),
    "a bias for each sample": (
        [node("Gemm", "x w b", "c"), norm("c", "y")],
        *(
            {"w": random(6, 4), "b": random(3, 1), **vectors("y", 4)},
            [3, 6],
            r"the bias of Gemm 'c' has shape \[3, 1\]",
        ),
    ),
    "a bias for each sample, at the end": (
        [norm("x", "c"), node("Gemm", "c w b", "y")],
        *(
            {"w": random(6, 4), "b": random(3, 1), **vectors("c", 6)},
            [3, 6],
            r"the bias of Gemm 'y' has shape \[3, 1\]",
        ),
    ),
    "another axis": (
        [node("MatMul", "x w", "c"), norm("c", "y")],
        *({"w": random(6, 4), **vectors("y", 7)}, ROWS, "it normalizes axis 1 of what MatMul 'c' gives, .* axis 2"),
    ),
    "another axis after": (
        [norm("x", "c"), node("MatMul", "c w", "y")],
        *({"w": random(6, 4), **vectors("c", 7)}, ROWS, "its channels are axis 1 of what MatMul 'y' reads, .* axis 2"),
    ),
    "samples of A": (
        [norm("x", "c"), node("Gemm", "c w", "y", transA=1)],
        *({"w": random(3, 4), **vectors("c", 6)}, [3, 6], "its channels are axis 1 of .*, which sums over axis 0"),
    ),
    "weights that are an input's": (
        [node("Abs", "x", "a"), node("Conv", "x a", "c"), norm("c", "y")],
        *(vectors("y", 6), [6, 6, 1, 1], "the weight 'a' of Conv 'c' must be a readable constant, got .* input 'x'"),
    ),
    "weights that are quantized": (
        [node("DequantizeLinear", "q s", "w"), node("Conv", "x w", "c"), norm("c", "y")],
        {"q": (9 * random(4, 6, 1, 1)).astype(np.int8), "s": np.array(0.1), **vectors("y", 4)},
        *(X4, "the weight 'w' of Conv 'c' is quantized, and would be no longer"),
    ),
    "padding": (PADDED, PLAIN, X4, "after it, Conv 'y' pads it with zeros, in the place of which .* a number for each"),
    "padding where bn is constant": (
        *(PADDED, PLAIN | {"c.w": np.zeros(6)}, X4),
        "bn must give 0 for some x in each channel",
    ),
    "a transposed convolution": (
        [norm("x", "c"), node("ConvTranspose", "c w", "y")],
        *(PLAIN | {"w": random(6, 4, 3, 3)}, X4, "ConvTranspose 'y' reads zeros around it, of which it is not known"),
    ),
    "a transposed convolution of strides": (
        [norm("x", "c"), node("ConvTranspose", "c w", "y", strides=[2, 2])],
        *(PLAIN | {"w": random(6, 4, 1, 1)}, X4, "stride must be 1 where bn stands before a transposed"),
    ),
    "one of two": (
        [norm("x", "c"), node("Conv", "c w b", "d"), node("Relu", "c", "e"), node("Add", "d e", "y")],
        *(PLAIN | {"w": random(1, 6, 1, 1), "b": random(1)}, X4, "after it, Relu 'e' is none of Conv"),
    ),
    "as a weight": (
        [norm("x", "c"), node("Conv", "c c", "y")],
        *(vectors("c", 6), [6, 6, 2, 2], "after it, the weight 'c' of Conv 'y' must be a readable constant"),
    ),
    "Reshape that mixes": (
        [norm("x", "c"), node("Reshape", "c s", "d"), node("Gemm", "d w b", "y")],
        *(
            FLAT | {"w": random(216, 4), "s": np.array([-1, 216])},
            X4,
            "Reshape 'd' stands between, which does not keep",
        ),
    ),
    "Flatten of another axis": (
        [norm("x", "c"), node("Flatten", "c", "d", axis=2), node("Gemm", "d w b", "y")],
        *(FLAT | {"w": random(72, 4)}, X4, "Flatten 'd' stands between, which does not keep"),
    ),
    "by its batch": (
        [*HEAD, node("BatchNormalization", "c y.w y.b y.m y.v", "y m v", training_mode=1)],
        *(WEIGHT, X4, "it normalizes by its batch"),
    ),
    "a damaged variance": (
        [*HEAD, norm("c", "y")],
        *(WEIGHT | {"y.v": np.array([1, np.nan, 1, 1])}, X4, "running_var must be finite, got nan in channel 1"),
    ),
    "an output between": (
        [*HEAD, norm("c", "y")],
        *(WEIGHT, X4, "before it, 'c' is an output; after it, 'y' is an output", "y c"),
    ),
}
