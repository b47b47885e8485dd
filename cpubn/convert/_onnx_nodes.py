"""The BatchNormalization nodes of an ONNX model, and the numbers that they have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cpubn.convert._names import of_batch_norm, old_weight
from cpubn.convert._norm import UNKNOWN, Norm, Unknown, Variance
from cpubn.convert._onnx_constants import Constants
from cpubn.convert._onnx_model import DOMAINS, Scope, opset_of, scopes_of
from cpubn.convert._sources import library
from cpubn.typing import Array

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

INPUTS = {1: "weight", 2: "bias", 3: "running_mean", 4: "running_var"}
DEFAULTS = {"epsilon": 1e-5, "momentum": 0.9, "spatial": 1, "training_mode": 0}  # of every version of the operator
TYPES = {"epsilon": "FLOAT", "momentum": "FLOAT", "spatial": "INT", "training_mode": "INT"}


@dataclass(frozen=True)
class BatchNormalization:
    name: str
    node: NodeProto
    graph: GraphProto
    scope: Scope
    constants: Constants
    opset: int

    @property
    def attributes(self) -> dict[str, Any]:
        """The operator's attributes, or their defaults; float32 is read as the shortest decimal that it stands for."""
        onnx = library("onnx")
        values: dict[str, Any] = {}
        for attribute in self.node.attribute:
            kind = TYPES.get(attribute.name)
            if (
                kind is None
                or attribute.name in values
                or attribute.type != onnx.AttributeProto.AttributeType.Value(kind)
            ):
                raise ValueError(
                    f"node {self.name!r} must have each of the attributes {', '.join(DEFAULTS)} once at most, as one "
                    f"number, got {attribute.name!r}; export the model again"
                )
            values[attribute.name] = float(str(np.float32(attribute.f))) if kind == "FLOAT" else attribute.i
        if values.get("spatial", 1) != 1:
            raise ValueError(
                f"node {self.name!r} must normalize channels, got spatial={values['spatial']}, statistics for each "
                "position, which opset 9 gave up; flatten its input to (N, C*H*W) and export with a newer opset"
            )
        return DEFAULTS | values

    @property
    def training(self) -> bool:
        """Whether it normalizes by its batch."""
        return self.attributes["training_mode"] != 0 if self.opset >= 14 else any(self.node.output[1:])

    def vector(self, index: int) -> Array:
        """An input's values."""
        name = self.node.input[index]
        what = f"input {name!r} of node {self.name!r}"
        array = self.constants.value(name, self.scope, what)
        if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
            raise ValueError(
                f"{what} must be float16, bfloat16, float32 or float64, got {array.dtype}; "
                "export the model again, or take an undamaged file"
            )
        return array

    def norm(self, variance: Variance | Unknown = UNKNOWN) -> Norm:
        """Its numbers; `variance` holds where the node does not say which one it averages."""
        attributes = self.attributes
        with np.errstate(invalid="ignore"):  # a NaN may be one that signals
            return of_batch_norm(
                self.name,
                Norm,
                **{field: self.vector(i) for i, field in INPUTS.items()},
                eps=attributes["epsilon"],
                momentum=of_batch_norm(self.name, old_weight, attributes["momentum"]),
                variance="biased" if self.training and variance is UNKNOWN else variance,
            )


def batch_normalizations(
    model: ModelProto, folder: str = "", left: dict[str, str] | None = None
) -> dict[str, BatchNormalization]:
    """All nodes by name.

    left : if given, what is no batch norm that can be told by its name comes to stand there, with the reason.
    """
    opset, constants = opset_of(model), Constants(model, folder)
    nodes: dict[str, BatchNormalization] = {}
    count = 0
    for graph, node, scope in _nodes(model.graph):
        count += 1
        name = node.name or next(filter(None, node.output), f"the {count}. BatchNormalization")
        reason = None
        if len(node.input) != 5 or not all(node.input) or not node.output or not node.output[0]:
            reason = (
                f"BatchNormalization must have 5 inputs and an output, got {len(node.input)} and {len(node.output)} "
                f"in node {node.name!r}; export the model again"
            )
        elif name in nodes:
            reason = f"BatchNormalization nodes must have names of their own, got {name!r} twice; rename one"
        if reason is None:
            nodes[name] = BatchNormalization(name, node, graph, scope, constants, opset)
        elif left is None:
            raise ValueError(reason)
        else:
            left[name if name not in nodes else f"{name} ({count}.)"] = reason
    if not count:
        raise ValueError(
            f"the model must have a BatchNormalization node, got {len(model.graph.node)} nodes of other kinds; "
            "exporters fold batch norm into convolutions unless they are told to export for training"
        )
    return nodes


def _nodes(graph: GraphProto) -> Iterator[tuple[GraphProto, NodeProto, Scope]]:
    """Every BatchNormalization node with its graph and scope, in the graphs of If and Loop too."""
    for inner, scope in scopes_of(graph):
        for node in inner.node:
            if node.op_type == "BatchNormalization" and node.domain in DOMAINS:
                yield inner, node, scope
