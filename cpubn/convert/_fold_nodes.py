"""One batch norm of an ONNX graph as part of the layer before it, or of those after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cpubn.convert._fold_graph import LeftError, attribute, is_of, product, said, set_attributes
from cpubn.convert._fold_layers import Context, Layer, layer_of, padding_of
from cpubn.convert._sources import library
from cpubn.folding import fold_conv, fold_into_next_conv, fold_into_next_linear, fold_linear
from cpubn.frozen import FrozenBatchNorm
from cpubn.typing import Array

if TYPE_CHECKING:
    from onnx import NodeProto

CHANNELS = 1  # their axis in the input and output of BatchNormalization
MOST_BETWEEN = 20  # nodes between a norm and its layer


def fold_before(node: NodeProto, bn: FrozenBatchNorm, context: Context) -> str:
    """bn(layer(x)) = layer'(x); what it was folded into."""
    graph = context.graph
    name, axis, rank = node.input[0], CHANNELS, context.rank(node.input[0])
    adds: list[tuple[NodeProto, int, int]] = []  # with the constant's place among its inputs, and the channels' axis
    for _ in range(MOST_BETWEEN):
        maker = graph.maker(name)
        if is_of(maker, "Transpose") and maker.input:
            perm = attribute(maker, "perm", list(range(rank or 0))[::-1])
            if sorted(perm) != list(range(len(perm))) or len(perm) <= axis:
                raise LeftError(f"{said(maker)} stands between, of axes {perm}")
            name, axis, rank = maker.input[0], perm[axis], len(perm)
        elif is_of(maker, "Identity") and maker.input:
            name = maker.input[0]
        elif is_of(maker, "Add") and len(maker.input) == 2 and not adds:
            constants = [i for i in (0, 1) if context.is_constant(maker.input[i])]
            if len(constants) != 1:
                raise LeftError(f"{said(maker)} adds two values that are no constants")
            adds.append((maker, constants[0], axis))
            name = maker.input[1 - constants[0]]
        else:
            break
    layer = layer_of(context, maker)
    rank = layer.weight.ndim if layer.convolution else 2 if maker.op_type == "Gemm" else rank
    if rank is None:
        raise LeftError(f"the rank of {name!r} is not known")
    expected = rank - 2 + layer.index if maker.op_type == "MatMul" else CHANNELS
    if axis != expected:
        raise LeftError(f"it normalizes axis {axis} of what {said(maker)} gives, whose channels are axis {expected}")
    for add, constant, at in adds:
        layer.take(add, constant, at, rank)
    if layer.convolution:
        folded = fold_conv(layer.weight, layer.bias, bn, groups=layer.groups, transposed=layer.transposed)
    else:
        folded = layer.rounded(*fold_linear(layer.weight, layer.bias, bn))
    layer.put(*folded)
    graph.bypass(node, node.input[0])
    return f"{said(maker)} before it"


@dataclass
class After:
    """A layer behind a norm, folded but not yet changed."""

    layer: Layer
    weight: Array
    bias: Array
    pads: list[int] | None = None  # to be given to a Pad of its own,
    value: Any = None  # with this value


def fold_after(node: NodeProto, bn: FrozenBatchNorm, context: Context) -> str:
    """layer(bn(x)) = layer'(x), in each of the layers that read bn(x); what it was folded into."""
    graph, output = context.graph, node.output[0]
    readers = list(graph.all_readers(output))
    found = [_after(reader, output, bn, context) for reader in readers]
    for reader in readers:
        graph.read(reader, list(reader.input).index(output), node.input[0])
    graph.take_out(node)
    for after in found:
        after.layer.put(after.weight, after.bias)
        if after.pads is not None:
            _pad(context, after.layer.node, after.pads, after.value)
    return " and ".join(f"{said(after.layer.node)} after it" for after in found)


def _after(reader: NodeProto, name: str, bn: FrozenBatchNorm, context: Context) -> After:
    axis, rank, flat = CHANNELS, context.rank(name), False
    sizes: int | None = None  # of a sample that was flattened
    for _ in range(MOST_BETWEEN):
        if is_of(reader, "Transpose") and not flat:
            perm = attribute(reader, "perm", list(range(rank or 0))[::-1])
            if sorted(perm) != list(range(len(perm))) or axis not in perm:
                raise LeftError(f"{said(reader)} stands between, of axes {perm}")
            axis, rank = perm.index(axis), len(perm)
        elif is_of(reader, "Flatten", "Reshape") and not flat and axis == CHANNELS:
            sizes = _flattened(reader, name, context)
            flat, rank = True, 2
        elif not is_of(reader, "Identity"):
            break
        name = reader.output[0]
        reader = context.graph.only_reader(name)
    layer = layer_of(context, reader)
    data = 1 - layer.index if reader.op_type == "MatMul" else 0
    if list(reader.input).count(name) != 1 or reader.input[data] != name:
        raise LeftError(f"{said(reader)} reads {name!r} otherwise than as its data")
    if layer.convolution:
        if axis != CHANNELS or flat:
            raise LeftError(f"its channels are axis {axis} of what {said(reader)} reads")
        return _after_convolution(layer, bn, name)
    if reader.op_type == "Gemm":
        contracted = 0 if attribute(reader, "transA", 0) else 1
    elif rank is None:
        raise LeftError(f"the rank of {name!r} is not known")
    else:
        contracted = rank - 2 + layer.index
        _take_add(layer, context)
    if axis != contracted:
        raise LeftError(f"its channels are axis {axis} of what {said(reader)} reads, which sums over axis {contracted}")
    if not flat:
        return After(layer, *layer.rounded(*fold_into_next_linear(layer.weight, layer.bias, bn)))
    outputs, inputs = layer.weight.shape
    if inputs % bn.num_features or inputs != (sizes or inputs):
        raise LeftError(
            f"{said(reader)} reads {inputs} values, which are not as many for each of {bn.num_features} channels"
        )
    taps = layer.weight.reshape(outputs, bn.num_features, -1)
    weight, bias, _ = fold_into_next_conv(taps, layer.bias, bn, zero_padding=False)
    return After(layer, *layer.rounded(weight.reshape(outputs, inputs), bias))


def _after_convolution(layer: Layer, bn: FrozenBatchNorm, name: str) -> After:
    node, kernel = layer.node, layer.weight.shape[2:]
    how: dict[str, Any] = {"groups": layer.groups, "transposed": layer.transposed}
    pads: list[int] | None
    if layer.transposed:
        rank = len(kernel)
        how["stride"] = attribute(node, "strides", [1] * rank)
        dilations, extra = attribute(node, "dilations", [1] * rank), attribute(node, "output_padding", [0] * rank)
        given = attribute(node, "pads", [0] * 2 * rank)
        sure = attribute(node, "auto_pad", "NOTSET") == "NOTSET" and not attribute(node, "output_shape", [0])[0]
        reach = [d * (k - 1) + e for d, k, e in zip(dilations, kernel, extra, strict=True)] * 2
        pads = [0] * 2 * rank if sure and all(p >= r for p, r in zip(given, reach, strict=True)) else None
    else:
        pads = padding_of(node, kernel, layer.context.shape(name))
    padded = pads is None or any(pads)
    weight, bias, pad = fold_into_next_conv(layer.weight, layer.bias, bn, zero_padding=padded, **how)
    if pad is None or not pad.any():
        return After(layer, weight, bias)
    if pads is None or layer.transposed:
        raise LeftError(
            f"{said(node)} reads zeros around it, of which it is not known how many, and they would be others"
        )
    if (pad != pad[0]).any():
        raise LeftError(
            f"{said(node)} pads it with zeros, in the place of which {pad.min():g} to {pad.max():g} would have to "
            "stand, a number for each channel, which ONNX cannot pad with"
        )
    return After(layer, weight, bias, pads, pad[0])


def _pad(context: Context, node: NodeProto, pads: list[int], value: Any) -> None:
    """A Pad before a convolution, which pads with zeros alone."""
    onnx, graph = library("onnx"), context.graph
    name = node.input[0]
    padded = context.names.new(f"{name}.padded")
    half = len(pads) // 2
    both = [0, 0, *pads[:half], 0, 0, *pads[half:]]
    if context.constants.opset < 11:
        pad = onnx.helper.make_node("Pad", [name], [padded], name=padded, pads=both, value=float(value))
    else:
        pad = onnx.helper.make_node("Pad", [name], [padded], name=padded)
    graph.enter(pad, node, before=True)
    if context.constants.opset >= 11:
        context.store(pad, 1, np.array(both, np.int64))
        context.store(pad, 2, np.array(value))
    graph.read(node, 0, padded)
    set_attributes(node, pads=[0] * len(pads), auto_pad=None)


def _take_add(layer: Layer, context: Context) -> None:
    """The Add behind a MatMul, if it adds a bias."""
    try:
        add = context.graph.only_reader(layer.node.output[0])
        (constant,) = (i for i, name in enumerate(add.input) if is_of(add, "Add") and context.is_constant(name))
        layer.take(add, constant, layer.index, 2)
    except ValueError:  # it has none; of more than the two axes that every product has, it could add axes
        return


def _flattened(node: NodeProto, name: str, context: Context) -> int | None:
    """The values of a sample, if they are known, of a node that makes (N, C * ...) of (N, C, ...)."""
    shape = context.shape(name)
    inner = None if shape is None or len(shape) < 2 else product(shape[1:])
    if node.op_type == "Flatten":
        kept = attribute(node, "axis", 1) == 1
    else:
        target = context.constants.value(node.input[1], context.graph.scope, f"the shape of {said(node)}").tolist()
        same = target[:1] == [0] and not attribute(node, "allowzero", 0)
        kept = len(target) == 2 and target[1] in (-1, inner) and (same or inner is not None)
    if not kept:
        raise LeftError(f"{said(node)} stands between, which does not keep samples apart as far as is known")
    return inner
