"""The layers of an ONNX graph that a norm can be folded into: weight and bias as the folds take them, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cpubn.convert._fold_graph import Graph, LeftError, attribute, is_of, said, set_attributes
from cpubn.convert._names import cast
from cpubn.convert._onnx_constants import Constants
from cpubn.convert._onnx_model import Names
from cpubn.convert._sources import library
from cpubn.typing import Array, Vector

if TYPE_CHECKING:
    from onnx import NodeProto

CONVOLUTIONS = ("Conv", "ConvTranspose")
LAYERS = (*CONVOLUTIONS, "Gemm", "MatMul")


@dataclass(frozen=True)
class Context:
    """What is known where a layer stands."""

    graph: Graph
    constants: Constants
    names: Names
    replaced: set[str]  # the weights that were read before

    def shape(self, name: str) -> list[int | None] | None:
        known = self.constants.types.get(name)
        return None if known is None else known.shape

    def rank(self, name: str) -> int | None:
        shape = self.shape(name)
        return None if shape is None else len(shape)

    def constant(self, name: str, what: str) -> Array:
        value = self.constants.value(name, self.graph.scope, what)
        if value.dtype.kind != "f" and value.dtype.name != "bfloat16":
            raise LeftError(f"{what} is {value.dtype}")
        return value

    def is_constant(self, name: str) -> bool:
        try:
            self.constants.value(name, self.graph.scope, name)
        except ValueError:
            return False
        return True

    def store(self, node: NodeProto, index: int, value: Array) -> None:
        """A new constant as an input of a node."""
        onnx = library("onnx")
        old = node.input[index] if index < len(node.input) else ""
        if old:
            self.replaced.add(old)
        tensor = onnx.numpy_helper.from_array(value, f"{old or node.output[0] + '.bias'}.folded")
        name = self.names.add(tensor)
        self.graph.scope.maps[-1][name] = self.names.model.graph.initializer[-1]
        self.graph.read(node, index, name)


@dataclass
class Layer:
    """A node as weight and bias, in float64 if its numbers have to be computed first."""

    context: Context
    node: NodeProto
    index: int  # of its weight among its inputs
    weight: Array  # a convolution's as it stands; else (out, in)
    bias: Vector | None  # (out,)
    dtype: Any  # of the node's own numbers
    add: tuple[NodeProto, int] | None = None  # that adds a bias behind it, and which of its inputs that is
    trailing: int = 0  # axes behind that of the channels, where it adds

    @property
    def convolution(self) -> bool:
        return bool(self.node.op_type in CONVOLUTIONS)

    @property
    def transposed(self) -> bool:
        return bool(self.node.op_type == "ConvTranspose")

    @property
    def groups(self) -> int:
        return attribute(self.node, "group", 1)

    @property
    def outputs(self) -> int:
        if self.transposed:
            return int(self.weight.shape[1]) * self.groups
        return int(self.weight.shape[0])

    def take(self, add: NodeProto, constant: int, axis: int, rank: int) -> None:
        """An Add behind the layer, where its channels are on this axis, is its bias."""
        name = add.input[constant]
        value = self.context.constant(name, f"input {name!r} of {said(add)}")
        shape = (1,) * (rank - value.ndim) + value.shape
        if value.ndim > rank or any(n not in (1, self.outputs if i == axis else 1) for i, n in enumerate(shape)):
            raise LeftError(f"{said(add)} adds {list(value.shape)}, which is no number for each channel")
        vector = np.broadcast_to(value.ravel().astype(np.float64), (self.outputs,))
        self.bias = vector if self.bias is None else self.bias + vector
        self.add, self.trailing = (add, constant), rank - axis - 1

    def rounded(self, weight: Array, bias: Array) -> tuple[Array, Array]:
        """Folded numbers in the node's own type."""
        what = f"of {said(self.node)}"
        return cast(weight, f"the weight {what}", self.dtype), cast(bias, f"the bias {what}", self.dtype)

    def put(self, weight: Array, bias: Array) -> None:
        """Folded numbers in place of the node's own."""
        node, graph = self.node, self.context.graph
        if node.op_type == "MatMul":
            self.context.store(node, self.index, np.ascontiguousarray(weight if self.index == 0 else weight.T))
            self._put_behind(bias)
            return
        if node.op_type == "Gemm":
            weight = weight if attribute(node, "transB", 0) else weight.T
            set_attributes(node, alpha=None, beta=None)
        self.context.store(node, 1, np.ascontiguousarray(weight))
        self.context.store(node, 2, bias)
        if self.add is not None:
            add, constant = self.add
            self.context.replaced.add(add.input[constant])
            graph.bypass(add, add.input[1 - constant])

    def _put_behind(self, bias: Array) -> None:
        """The bias of a MatMul, which has none of its own."""
        context, graph, node = self.context, self.context.graph, self.node
        if self.add is not None:
            add, constant = self.add
            context.store(add, constant, bias.reshape(-1, *(1,) * self.trailing))
        elif bias.any():
            output = node.output[0]
            inner = context.names.new(f"{output}.product")
            graph.rename(output, inner)
            helper = library("onnx").helper
            add = helper.make_node("Add", [inner], [output], name=context.names.new(f"{output}.bias"))
            graph.enter(add, node, before=False)
            context.store(add, 1, bias.reshape(-1, *(1,) * (1 - self.index)))


def layer_of(context: Context, node: NodeProto) -> Layer:
    """A node with constant weights."""
    if not is_of(node, *LAYERS):
        raise LeftError(f"{said(node)} is none of {', '.join(LAYERS)}")
    index = 1
    if node.op_type == "MatMul" and len(node.input) == 2 and context.is_constant(node.input[0]):
        index = 0
    if len(node.input) <= index or len(node.output) != 1:
        raise LeftError(f"{said(node)} has {len(node.input)} inputs and {len(node.output)} outputs")
    what = f"the weight {node.input[index]!r} of {said(node)}"
    weight = context.constant(node.input[index], what)
    if "DequantizeLinear" in context.constants.made_by(node.input[index], context.graph.scope, what):
        raise LeftError(f"{what} is quantized, and would be no longer")
    layer = Layer(context, node, index, weight, None, weight.dtype)
    if not layer.convolution:
        if weight.ndim != 2:
            raise LeftError(f"{what} has shape {list(weight.shape)}, which is none of a linear layer")
        layer.weight = weight if index == 0 or (node.op_type == "Gemm" and attribute(node, "transB", 0)) else weight.T
    elif weight.ndim < 3:
        raise LeftError(f"{what} has shape {list(weight.shape)}, which is none of a convolution")
    if node.op_type != "MatMul" and len(node.input) > 2 and node.input[2]:
        own = context.constant(node.input[2], f"the bias {node.input[2]!r} of {said(node)}").astype(np.float64)
        if any(n != 1 for n in own.shape[:-1]) or own.shape[-1:] not in ((), (1,), (layer.outputs,)):
            raise LeftError(
                f"the bias of {said(node)} has shape {list(own.shape)}, which is no number for each channel"
            )
        layer.bias = np.broadcast_to(own.ravel(), (layer.outputs,))
    if node.op_type == "Gemm":
        layer.weight = layer.weight.astype(np.float64) * attribute(node, "alpha", 1.0)
        layer.bias = None if layer.bias is None else layer.bias * attribute(node, "beta", 1.0)
    return layer


def padding_of(node: NodeProto, kernel: tuple[int, ...], shape: list[Any] | None) -> list[int] | None:
    """Zeros that a convolution adds around its input of this shape, before and after each axis; None if not known."""
    rank, how = len(kernel), attribute(node, "auto_pad", "NOTSET")
    if how == "NOTSET":
        pads = attribute(node, "pads", [0] * 2 * rank)
        if len(pads) != 2 * rank:
            raise LeftError(f"{said(node)} has {len(pads)} pads for {rank} axes")
        return pads
    if how == "VALID" or set(kernel) == {1}:
        return [0] * 2 * rank
    if shape is None or len(shape) != rank + 2 or None in shape[2:]:
        return None
    strides, dilations = (attribute(node, name, [1] * rank) for name in ("strides", "dilations"))
    if min(*strides, 1) < 1 or len(strides) != rank or len(dilations) != rank:
        raise LeftError(f"{said(node)} has strides {strides} and dilations {dilations}")
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    totals = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(shape[2:], strides, reach, strict=True)]
    less, more = [n // 2 for n in totals], [n - n // 2 for n in totals]
    return [*less, *more] if how == "SAME_UPPER" else [*more, *less]
