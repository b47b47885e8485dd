"""The BatchNormalization nodes of an ONNX model, and where their weights are."""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cpubn.convert._sources import file_path, library, reading
from cpubn.typing import Array

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

Source: TypeAlias = "str | os.PathLike[str] | ModelProto"
Scope: TypeAlias = MutableMapping[str, Any]  # what a name stands for: an initializer, or the node that computes it

DOMAINS = ("", "ai.onnx")  # two names of one operator set
KIND = "an ONNX model"
DEFAULTS = {"epsilon": 1e-5, "momentum": 0.9, "spatial": 1, "training_mode": 0}  # of every version of the operator
TYPES = {"epsilon": "FLOAT", "momentum": "FLOAT", "spatial": "INT", "training_mode": "INT"}


@dataclass(frozen=True)
class BatchNormalization:
    name: str
    node: NodeProto
    graph: GraphProto
    scope: Scope
    attributes: dict[str, Any]
    training: bool

    def vector(self, index: int, folder: str) -> Array:
        """An input's values: an initializer's or a Constant's, also behind an Identity, by which exporters share."""
        name = self.node.input[index]
        source: Any = self.scope.get(name)
        passed = 0
        while getattr(source, "op_type", "") == "Identity" and passed < 100:
            source, passed = self.scope.get(source.input[0]), passed + 1
        if getattr(source, "op_type", "") == "Constant":
            constant = source.attribute[0]
            if constant.name == "value_floats":
                return np.array(constant.floats, np.float32)
            source = constant.t if constant.name == "value" else None
        if source is None or hasattr(source, "op_type"):
            raise ValueError(
                f"input {name!r} of node {self.name!r} must be an initializer or a Constant, "
                f"got {'one that is computed' if source is not None else 'none'}; fold constants first"
            )
        onnx = library("onnx")
        try:
            array: Array = onnx.numpy_helper.to_array(source, base_dir=folder)
        except Exception as error:  # a size that does not fit the shape, an unknown dtype, a path that leads elsewhere
            raise ValueError(
                f"input {name!r} of node {self.name!r} must be a readable tensor, got {type(error).__name__}: {error}; "
                "export the model again, or keep its external data beside it"
            ) from error
        return array


def open_model(source: Source) -> tuple[ModelProto, str]:
    """A copy of a model without its external data, and the folder where those are."""
    onnx = library("onnx")
    folder = ""
    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
    else:
        path = file_path(source)
        folder = os.path.dirname(path)
        with reading(path, KIND):
            model = onnx.load_model(path, format="protobuf", load_external_data=False)
    if any(node.op_type == "BatchNormalization" for function in model.functions for node in function.node):
        try:
            model = library("onnx.inliner").inline_local_functions(model)
        except Exception as error:  # onnx's own, of a call that does not fit its function
            raise ValueError(
                f"the model's functions must be such that onnx can inline them, got {type(error).__name__}: {error}; "
                "export the model again"
            ) from error
    return model, folder


def with_data(model: ModelProto, folder: str) -> None:
    """Take external data into the model."""
    onnx = library("onnx")
    try:
        onnx.external_data_helper.load_external_data_for_model(model, folder)
    except Exception as error:
        raise ValueError(
            f"the model's external data must be in {folder or 'the current folder'!r}, "
            f"got {type(error).__name__}: {error}; keep them beside the model"
        ) from error


def batch_normalizations(model: ModelProto) -> dict[str, BatchNormalization]:
    """All nodes by name."""
    opset = _opset(model)
    nodes: dict[str, BatchNormalization] = {}
    for graph, node, scope in _nodes(model.graph, ChainMap()):
        if len(node.input) != 5 or not all(node.input) or not node.output:
            raise ValueError(
                f"BatchNormalization must have 5 inputs and an output, got {len(node.input)} and {len(node.output)} "
                f"in node {node.name!r}; export the model again"
            )
        name = node.name or node.output[0]
        if name in nodes:
            raise ValueError(f"BatchNormalization nodes must have names of their own, got {name!r} twice; rename one")
        attributes = _attributes(node, name)
        if attributes["spatial"] != 1:
            raise ValueError(
                f"node {name!r} must normalize channels, got spatial={attributes['spatial']}, statistics for each "
                "position, which opset 9 gave up; flatten its input to (N, C*H*W) and export with a newer opset"
            )
        training = attributes["training_mode"] != 0 if opset >= 14 else any(node.output[1:])
        nodes[name] = BatchNormalization(name, node, graph, scope, attributes, training)
    if not nodes:
        raise ValueError(
            f"the model must have a BatchNormalization node, got {len(model.graph.node)} nodes of other kinds; "
            "exporters fold batch norm into convolutions unless they are told to export for training"
        )
    return nodes


def graphs_inside(node: NodeProto) -> Iterator[GraphProto]:
    """The branches of an If, the body of a Loop."""
    for attribute in node.attribute:
        yield from [attribute.g] if attribute.HasField("g") else attribute.graphs


def _opset(model: ModelProto) -> int:
    onnx = library("onnx")
    newest = onnx.defs.onnx_opset_version()
    versions = [entry.version for entry in model.opset_import if entry.domain in DOMAINS]
    if len(versions) != 1 or not 7 <= versions[0] <= newest:
        raise ValueError(
            f"an ONNX model must be of opset 7 to {newest}, the newest of onnx {onnx.__version__}, "
            f"got {', '.join(map(str, versions)) or 'none, as in an empty or truncated file'}; "
            "convert it with onnx.version_converter, or update onnx"
        )
    return int(versions[0])


def _nodes(graph: GraphProto, outer: ChainMap[str, Any]) -> Iterator[tuple[GraphProto, NodeProto, Scope]]:
    """Every BatchNormalization node with its graph and scope, in the graphs of If and Loop too."""
    scope = outer.new_child({tensor.name: tensor for tensor in graph.initializer})
    scope.update({output: node for node in graph.node for output in node.output})
    for node in graph.node:
        if node.op_type == "BatchNormalization" and node.domain in DOMAINS:
            yield graph, node, scope
        for inner in graphs_inside(node):
            yield from _nodes(inner, scope)


def _attributes(node: NodeProto, name: str) -> dict[str, Any]:
    """The operator's attributes, or their defaults; float32 is read as the shortest decimal that it stands for."""
    onnx = library("onnx")
    values: dict[str, Any] = {}
    for attribute in node.attribute:
        kind = TYPES.get(attribute.name)
        if kind is None or attribute.name in values or attribute.type != onnx.AttributeProto.AttributeType.Value(kind):
            raise ValueError(
                f"node {name!r} must have each of the attributes {', '.join(DEFAULTS)} once at most, as one number, "
                f"got {attribute.name!r}; export the model again"
            )
        values[attribute.name] = float(str(np.float32(attribute.f))) if kind == "FLOAT" else attribute.i
    return DEFAULTS | values
