"""One graph of an ONNX model while norms are folded in it: who gives each value, and who reads it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from cpubn.convert._onnx_model import DOMAINS, Scope, graphs_inside, graphs_of
from cpubn.convert._sources import library

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

T = TypeVar("T", int, float, str, list[int])


class LeftError(ValueError):
    """Why a norm is left alone."""


class Graph:
    """A graph's nodes, which are put back by `write`."""

    def __init__(self, graph: GraphProto, scope: Scope) -> None:
        self.graph, self.scope = graph, scope
        self.nodes = list(graph.node)
        self.beside: dict[int, list[NodeProto]] = {id(node): [node] for node in self.nodes}  # with new ones around it
        self.makers: dict[str, NodeProto] = {}
        self.readers: defaultdict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            self._enter(node)
        self.known = set(self.makers)
        self.outputs = {output.name for output in graph.output}
        inner = [each for node in graph.node for child in graphs_inside(node) for each in graphs_of(child)]
        self.captured = {name for each in inner for node in each.node for name in node.input}
        self.captured |= {output.name for each in inner for output in each.output}

    def enter(self, node: NodeProto, other: NodeProto, *, before: bool) -> None:
        """A new node beside one that was there from the start."""
        self.beside[id(other)].insert(0 if before else len(self.beside[id(other)]), node)
        self._enter(node)

    def _enter(self, node: NodeProto) -> None:
        self.makers.update({output: node for output in node.output if output})
        for name in node.input:
            self.readers[name].append(node)

    def maker(self, name: str) -> NodeProto:
        """The node that gives a value which one node alone reads."""
        self.only_reader(name)
        if name not in self.makers:
            raise LeftError(f"its input {name!r} is given from outside")
        return self.makers[name]

    def all_readers(self, name: str) -> list[NodeProto]:
        """The nodes that read a value, if they are all that do."""
        if name in self.outputs:
            raise LeftError(f"{name!r} is an output")
        if name in self.captured:
            raise LeftError(f"{name!r} is read inside the graphs of an If, Loop or Scan")
        if not self.readers[name]:
            raise LeftError(f"nothing reads {name!r}")
        return self.readers[name]

    def only_reader(self, name: str) -> NodeProto:
        readers = self.all_readers(name)
        if len(readers) > 1:
            raise LeftError(f"{len(readers)} nodes read {name!r}: {', '.join(map(said, readers[:4]))}")
        return readers[0]

    def read(self, node: NodeProto, index: int, name: str) -> None:
        """A node reads another value than before, as an input that it may not have had."""
        while len(node.input) <= index:
            node.input.append("")
        if node.input[index]:
            self._forget(node, node.input[index])
        node.input[index] = name
        self.readers[name].append(node)

    def _forget(self, node: NodeProto, name: str) -> None:
        at = next(i for i, each in enumerate(self.readers[name]) if each is node)
        del self.readers[name][at]

    def take_out(self, node: NodeProto) -> None:
        beside = self.beside[id(node)]
        del beside[next(i for i, each in enumerate(beside) if each is node)]
        for name in node.input:
            self._forget(node, name)
        for name in node.output:
            self.makers.pop(name, None)

    def bypass(self, node: NodeProto, name: str) -> None:
        """Take out a node which alone reads a value: what gives that, gives now what the node gave."""
        self.take_out(node)
        self.rename(name, node.output[0])

    def rename(self, name: str, new: str) -> None:
        """The maker of a value gives it by another name; those who read it are not told."""
        maker = self.makers.pop(name)
        maker.output[list(maker.output).index(name)] = new
        self.makers[new] = maker

    def write(self) -> None:
        gone = self.known - set(self.makers)
        del self.graph.node[:]
        self.graph.node.extend(each for node in self.nodes for each in self.beside[id(node)])
        infos = [info for info in self.graph.value_info if info.name not in gone]
        del self.graph.value_info[:]
        self.graph.value_info.extend(infos)


def said(node: NodeProto) -> str:
    """A node for a message."""
    return f"{node.op_type} {(node.name or next(iter(node.output), ''))!r}"


def is_of(node: NodeProto, *operators: str) -> bool:
    """Whether a node is one of these operators of ONNX's own."""
    return node.domain in DOMAINS and node.op_type in operators


def attribute(node: NodeProto, name: str, default: T) -> T:
    """An attribute of a node, of the type of its default."""
    onnx = library("onnx")
    types = onnx.AttributeProto
    fields = {int: ("i", types.INT), float: ("f", types.FLOAT), str: ("s", types.STRING), list: ("ints", types.INTS)}
    field, kind = fields[type(default)]
    for each in node.attribute:
        if each.name == name:
            if each.type != kind:
                raise LeftError(f"{said(node)} has an attribute {name!r} of another type than ONNX's")
            value: Any = getattr(each, field)
            if isinstance(value, bytes):
                value = value.decode("utf-8", "replace")
            return cast(T, list(value) if isinstance(default, list) else value)
    return default


def set_attributes(node: NodeProto, **values: Any) -> None:
    """Attributes of a node; None takes one out."""
    onnx = library("onnx")
    kept = [each for each in node.attribute if each.name not in values]
    del node.attribute[:]
    given = [onnx.helper.make_attribute(name, value) for name, value in values.items() if value is not None]
    node.attribute.extend([*kept, *given])


def product(sizes: Iterable[int | None]) -> int | None:
    """None if one of them is not known."""
    total = 1
    for n in sizes:
        if n is None:
            return None
        total *= n
    return total
