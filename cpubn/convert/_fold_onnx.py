"""Whole ONNX models without their batch norms: each as part of the layer before or after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from cpubn.convert._fold_check import Comparison, compare
from cpubn.convert._fold_graph import Graph, LeftError
from cpubn.convert._fold_layers import Context
from cpubn.convert._fold_nodes import fold_after, fold_before
from cpubn.convert._onnx_model import Names, Source, drop_unread, open_model, with_data
from cpubn.convert._onnx_nodes import BatchNormalization, batch_normalizations

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class FoldReport:
    """What became of a model's batch norms.

    Attributes
    ----------
    folded : by name, the layers that each is part of now.
    left : by name, why each of the others is still there.
    comparison : of the outputs of both models, or None where it was not asked for.

    Examples
    --------
    >>> print(convert.FoldReport({"bn": "conv"}, {}))
    folded 1 of 1 batch norms
      bn: into conv
    """

    folded: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    comparison: Comparison | None = None

    @property
    def difference(self) -> float | None:
        """The largest ``|difference|`` of the outputs of both models; None where they were not compared."""
        return None if self.comparison is None else self.comparison.difference

    def __str__(self) -> str:
        total = len(self.folded) + len(self.left)
        lines = [f"folded {len(self.folded)} of {total} batch norms"]
        lines += [f"  {name}: into {where}" for name, where in self.folded.items()]
        lines += [f"left {len(self.left)}"] * bool(self.left)
        lines += [f"  {name}: {why}" for name, why in self.left.items()]
        lines += [str(self.comparison)] if self.comparison is not None else []
        return "\n".join(map(printable, lines))


def fold_onnx(
    model: Source, inputs: Mapping[str, ArrayLike] | None = None, *, check: bool = False
) -> tuple[ModelProto, FoldReport]:
    """A copy of a model in which each batch norm of inference is part of the layer before or after it, where it can be.

    bn(W x + b) = (scale * W) x + (scale * b + shift) for a Conv, ConvTranspose, Gemm or MatMul before it, also through
    an Add of constants, which is a bias; else W bn(x) + b = (W * scale) x + (W shift + b) for those after it, where
    that is exact: see fold_conv, fold_linear, fold_into_next_conv and fold_into_next_linear of cpubn.

    Parameters
    ----------
    model : a file, or an onnx.ModelProto, which is not changed
        Read as from_onnx reads it: external data are taken in, opsets before 7 converted to it, functions that the
        model defines put where they are called.
    inputs : arrays by the names of the model's inputs, to compare the outputs of both models.
    check : whether to compare them without `inputs`, on random ones: normal, or 0 and 1 where they are not floating.

    Returns
    -------
    model, report : an onnx.ModelProto, and a FoldReport
        `report.folded` and `report.left` say by name where each norm went, or why it is left;
        `report.difference` is the largest one of all outputs, and `print(report)` shows all of it. The models are run
        by onnxruntime if it is installed, without its own optimizations, else by onnx's reference evaluator.

    Notes
    -----
    Left alone is a norm that normalizes by its batch; one whose input is an output of the model, or is read by others,
    too, where it stands behind a layer; one before a layer that pads with zeros, where others would have to stand in
    their place that are not the same for all channels; layers with quantized weights, or weights that depend on the
    inputs; and what would not fit the layer's type. Weights that several layers share become each layer's own.
    Transposes and Identities may stand between. An initializer that is an input besides counts as a constant, and is
    gone where nothing reads it any more.

    Raises
    ------
    ValueError, TypeError, OSError : as from_onnx does; what is wrong with one norm alone is in report.left.

    Examples
    --------
    >>> model, report = convert.fold_onnx(convert.new_onnx(cpubn.BatchNorm2d(3).freeze()))
    >>> report.folded, list(report.left)
    ({}, ['BatchNormalization'])
    """
    return fold_and_say(model, inputs, check, lambda what: None)


def fold_and_say(
    model: Source, inputs: Mapping[str, ArrayLike] | None, check: bool, say: Callable[[str], None]
) -> tuple[ModelProto, FoldReport]:
    """The same, which says what it does."""
    say("reading the model")
    proto, folder = open_model(model)
    left: dict[str, str] = {}
    nodes = batch_normalizations(proto, folder, left)
    with_data(proto, folder)
    given = _copy(proto) if check or inputs is not None else None
    say("folding its norms")
    report = FoldReport(left=left)
    with np.errstate(all="ignore"):  # the folds look at their results
        Folding(proto, nodes).run(report)
    if given is None:
        return proto, report
    say("comparing both models")
    return proto, FoldReport(report.folded, report.left, compare(given, proto, inputs))


class Folding:
    """The norms of one model in turn: first into the layers before them, then what is left into those after."""

    def __init__(self, model: ModelProto, nodes: dict[str, BatchNormalization]) -> None:
        self.model, self.nodes = model, nodes
        for bn in nodes.values():
            _ = bn.constants.types  # found while the model is as it was
        self.names, self.replaced = Names(model), set[str]()
        places = {id(bn.graph): (bn.graph, bn.scope) for bn in nodes.values()}
        self.graphs = {key: Graph(*place) for key, place in places.items()}

    def run(self, report: FoldReport) -> None:
        reasons: dict[str, str] = {}
        frozen: dict[str, Any] = {}
        for name, bn in self.nodes.items():
            try:
                if bn.training:
                    raise LeftError("it normalizes by its batch")
                norm = bn.norm()
                frozen[name] = replace(norm, eps=float(np.float32(norm.eps))).freeze()  # what the node computes with
                report.folded[name] = fold_before(bn.node, frozen[name], self._context(bn))
            except ValueError as error:
                reasons[name] = str(error)
            if name in report.folded:
                self.replaced.update(bn.node.input[1:])
        for name in [name for name in reversed(self.nodes) if name in reasons and name in frozen]:
            bn = self.nodes[name]
            try:
                report.folded[name] = fold_after(bn.node, frozen[name], self._context(bn))
            except ValueError as error:
                reasons[name] = f"before it, {reasons[name]}; after it, {error}"
            else:
                self.replaced.update(bn.node.input[1:])
        report.left.update({name: reasons[name] for name in self.nodes if name not in report.folded})
        for graph in self.graphs.values():
            graph.write()
        drop_unread(self.replaced, self.model)

    def _context(self, bn: BatchNormalization) -> Context:
        return Context(self.graphs[id(bn.graph)], bn.constants, self.names, self.replaced)


def printable(line: str) -> str:
    """A line of names that a file has made up, which could steer a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def _copy(model: ModelProto) -> ModelProto:
    copy = type(model)()
    copy.CopyFrom(model)
    return copy
