"""Chains of layers and norms as they come: whatever fold_onnx folds or leaves, the model computes the same."""

from unittest import mock

import numpy as np
from conftest import need_library
from hypothesis import given, strategies as st

for name in ("ml_dtypes", "onnx"):
    need_library(name, "convert")
import onnx
import onnx_models
from onnx_models import model, node, norm, random, run, vectors

from cpubn import convert


class Chain:
    """Nodes one after the other; `shape` is that of the last value."""

    def __init__(self, channels):
        self.nodes, self.arrays, self.last, self.shape = [], {}, "x", [2, channels, 5, 4]

    def add(self, operator, *arrays, shape=None, inputs=(), **attributes):
        name = f"v{len(self.nodes)}"
        stored = [f"{name}.{i}" for i in range(len(arrays))]
        self.arrays |= dict(zip(stored, arrays, strict=True))
        self.nodes.append(node(operator, " ".join(inputs or [self.last, *stored]), name, **attributes))
        self.last, self.shape = name, list(shape or self.shape)

    def norm(self, shift=True):
        name = f"v{len(self.nodes)}"
        self.arrays |= vectors(name, self.shape[1])
        if not shift:
            self.arrays |= {f"{name}.b": np.zeros(self.shape[1]), f"{name}.m": np.zeros(self.shape[1])}
        self.nodes.append(norm(self.last, name))
        self.last = name

    def centred(self):
        self.norm(shift=False)

    def conv(self, padding=0):
        n, channels, *sizes = self.shape
        if len(sizes) == 2 and min(sizes) + 2 * padding >= 2:
            shape = [n, 3, *(size + 2 * padding - 1 for size in sizes)]
            self.add("Conv", random(3, channels, 2, 2), random(3), shape=shape, pads=[padding] * 4)

    def padded(self):
        self.conv(padding=1)

    def depthwise(self):
        n, channels, *sizes = self.shape
        if len(sizes) == 2:
            weight = random(2 * channels, 1, 1, 1)
            self.add("Conv", weight, shape=[n, 2 * channels, *sizes], group=channels)

    def transposed(self, stride=1, cut=0):
        n, channels, *sizes = self.shape
        if len(sizes) == 2 and min(sizes) > 2:
            shape = [n, 2, *((size - 1) * stride + 2 - 2 * cut for size in sizes)]
            weight = random(channels, 2, 2, 2)
            self.add("ConvTranspose", weight, shape=shape, strides=[stride] * 2, pads=[cut] * 4)

    def spread(self):
        self.transposed(stride=2)

    def cut(self):
        self.transposed(cut=1)

    def relu(self):
        self.add("Relu")

    def bias(self):
        self.add("Add", random(self.shape[1], *[1] * (len(self.shape) - 2)))

    def places(self):
        self.add("Add", random(*self.shape[1:]))

    def twice(self):
        self.add("Add", inputs=[self.last, self.last])

    def first(self):
        """The chain goes on from a value that something else has read."""
        if self.nodes:
            self.add("Add", inputs=[self.last, self.last])
            self.last = self.nodes[-1].input[0]

    def turn(self):
        if len(self.shape) == 4:
            self.add("Transpose", shape=[self.shape[i] for i in (0, 2, 3, 1)], perm=[0, 2, 3, 1])

    def turn_back(self):
        if len(self.shape) == 4:
            self.add("Transpose", shape=[self.shape[i] for i in (0, 3, 1, 2)], perm=[0, 3, 1, 2])

    def flatten(self):
        self.add("Flatten", shape=[self.shape[0], int(np.prod(self.shape[1:]))])

    def matmul(self):
        self.add("MatMul", random(self.shape[-1], 4), shape=[*self.shape[:-1], 4])

    def from_the_left(self):
        if len(self.shape) > 2:
            name = f"v{len(self.nodes)}"
            self.arrays[f"{name}.0"] = random(3, self.shape[-2])
            self.add("MatMul", shape=[*self.shape[:-2], 3, self.shape[-1]], inputs=[f"{name}.0", self.last])

    def gemm(self):
        if len(self.shape) == 2:
            self.add(
                "Gemm", random(5, self.shape[1]), random(5), shape=[self.shape[0], 5], transB=1, alpha=0.5, beta=2.0
            )


LAYERS = (
    *(Chain.conv, Chain.padded, Chain.depthwise, Chain.transposed, Chain.spread, Chain.cut),
    *(Chain.matmul, Chain.from_the_left, Chain.gemm),
)
OTHERS = (
    *(Chain.relu, Chain.bias, Chain.places, Chain.twice, Chain.first),
    *(Chain.turn, Chain.turn_back, Chain.flatten),
)
NORMS = (Chain.norm, Chain.centred)
steps = st.lists(st.one_of(*map(st.sampled_from, (NORMS, LAYERS, NORMS, OTHERS))), min_size=2, max_size=9)


@given(steps=steps, channels=st.sampled_from([1, 3]), seed=st.integers(0, 99))
def test_chains(steps, channels, seed):
    chain = Chain(channels)
    with mock.patch.object(onnx_models, "RNG", np.random.default_rng(seed)):
        for step in (*steps, Chain.norm):
            step(chain)
    read = {name for each in chain.nodes for name in each.input}
    ends = " ".join(each.output[0] for each in chain.nodes if each.output[0] not in read)
    made = model(chain.nodes, chain.arrays, [2, channels, 5, 4], output=ends)
    before = made.SerializeToString()
    new, report = convert.fold_onnx(made)
    assert made.SerializeToString() == before
    onnx.checker.check_model(new, full_check=True)
    norms = {each.name for each in made.graph.node if each.op_type == "BatchNormalization"}
    assert set(report.folded) | set(report.left) == norms
    assert {each.name for each in new.graph.node if each.op_type == "BatchNormalization"} == set(report.left)
    x = np.random.default_rng(seed).normal(0, 1, [2, channels, 5, 4]).astype(np.float32)
    for expected, got in zip(run(made, x=x), run(new, x=x), strict=True):
        assert got.shape == expected.shape
        assert abs(got - expected).max() <= 2e-5 * abs(expected).max() + 1e-6
