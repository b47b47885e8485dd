"""Where the norms of an ONNX model stand, and which of them fold_onnx folds, and why it leaves the others."""

from __future__ import annotations

from typing import Any

from cpubn.convert._onnx_nodes import batch_normalizations, open_model
from cpubn.inspection.places import Place


def in_graph(path: str) -> dict[str, Place]:
    model, _ = open_model(path)
    return {
        name: Place(_between(node.node, node.graph), "unknown", None)
        for name, node in batch_normalizations(model).items()
    }


def _between(node: Any, graph: Any) -> str:
    """The nodes before and after it."""
    before = next((other for other in graph.node if node.input[0] in other.output), None)
    after = [other for other in graph.node if node.output[0] in other.input]
    parts = [f"after {before.op_type} {before.name}".rstrip() if before is not None else "at an input"]
    if any(output.name == node.output[0] for output in graph.output):
        parts.append("at an output")
    if after:
        parts.append(f"before {', '.join(dict.fromkeys(other.op_type for other in after))}")
    return ", ".join(parts)
