"""The norms of an ONNX model: where they stand in its graph, and what fold_onnx does with each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cpubn.convert import fold_onnx
from cpubn.convert._onnx_model import open_model
from cpubn.convert._onnx_nodes import BatchNormalization, batch_normalizations
from cpubn.inspection.places import Contents, Place, Say

SHOWN = 3  # kinds of nodes after a norm


def look_into_onnx(path: str, eps: float | None, say: Say) -> Contents:
    """What cannot be read of a model is left out with the reason, unless it is all of them: ValueError."""
    model, folder = open_model(path)
    unread: dict[str, str] = {}
    nodes = batch_normalizations(model, folder, unread)
    norms = {}
    for at, (name, node) in enumerate(nodes.items()):
        say(f"reading norm {at + 1} of {len(nodes)}")
        try:
            norms[name] = node.norm() if eps is None else replace(node.norm(), eps=eps)
        except ValueError as error:
            unread[name] = str(error)
    if not norms:
        raise ValueError(f"{path}: none of its batch norms can be read; {next(iter(unread.values()))}")
    say("looking where its norms stand")
    graphs = {id(node.graph): Neighbours(node.graph) for node in nodes.values()}
    stands = {name: _stands(nodes[name], graphs[id(nodes[name].graph)]) for name in norms}
    say("folding a copy")
    folds = folds_of(path)
    return Contents(norms, {name: Place(stands[name], *folds(name)) for name in norms}, unread)


def _stands(norm: BatchNormalization, neighbours: Neighbours) -> str:
    return neighbours.between(norm.node.input[0], norm.node.output[0])


def folds_of(path: str) -> Callable[[str], tuple[bool | None, str]]:
    """What fold_onnx makes of each norm, or why it makes nothing of this model."""
    try:
        _, report = fold_onnx(path)
    except ValueError as error:
        reason = str(error)
        return lambda name: (None, reason)
    into, left = report.folded, report.left
    return lambda name: (True, f"into {into[name]}") if name in into else (False, left[name])


class Neighbours:
    """Who gives and who takes the values of a graph."""

    def __init__(self, graph: Any) -> None:
        self.givers: dict[str, Any] = {value: node for node in graph.node for value in node.output}
        self.takers: dict[str, list[Any]] = {}
        for node in graph.node:
            for value in node.input:
                self.takers.setdefault(value, []).append(node)
        self.outputs: set[str] = {value.name for value in graph.output}

    def between(self, given: str, made: str) -> str:
        """What is before one value and after another, a norm's input and its output."""
        before = self.givers.get(given)
        after = list(dict.fromkeys(node.op_type for node in self.takers.get(made, [])))
        if len(after) > SHOWN:
            after[SHOWN:] = [f"{len(after) - SHOWN} more"]
        parts = [f"after {before.op_type} {before.name}".rstrip() if before is not None else f"after input {given}"]
        parts += [f"before {', '.join(after)}"] if after else []
        parts += ["gives an output"] if made in self.outputs else []
        return ", ".join(parts)
