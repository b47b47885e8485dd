"""ONNX models as files and messages: opened, brought to what is read here, searched and changed."""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from cpubn.ask.files import file_path, reading
from cpubn.convert._sources import library

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

Source: TypeAlias = "str | os.PathLike[str] | ModelProto"
Scope: TypeAlias = "ChainMap[str, Any]"  # what a name stands for: a tensor, the node that computes it, or an input

DOMAINS = ("", "ai.onnx")  # two names of one operator set
KIND = "an ONNX model"
OLDEST = 7  # opset that is read; what is older, onnx converts to it
MOST_NODES = 1_000_000  # of a model whose functions stand where they are called


class Type(NamedTuple):
    """Of a value: its elements, as ONNX numbers types, and its shape, in which None is not known."""

    kind: int
    shape: list[int | None] | None


def open_model(source: Source) -> tuple[ModelProto, str]:
    """A copy of a model of opset 7 or later and without functions, and the folder where its external data are."""
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
    if opset_of(model) < OLDEST:
        with_data(model, folder)
        model = _by_onnx("version_converter", "convert_version", model, OLDEST)
    if model.functions:
        _functions_must_be_few(model)
        model = _by_onnx("inliner", "inline_local_functions", model)
    _names_must_be_text(model)
    return model, folder


def opset_of(model: ModelProto) -> int:
    onnx = library("onnx")
    newest = onnx.defs.onnx_opset_version()
    versions = [entry.version for entry in model.opset_import if entry.domain in DOMAINS]
    if len(versions) != 1 or not 1 <= versions[0] <= newest:
        raise ValueError(
            f"an ONNX model must be of opset 1 to {newest}, the newest of onnx {onnx.__version__}, "
            f"got {', '.join(map(str, versions)) or 'none, as in an empty or truncated file'}; "
            "update onnx, or export the model again"
        )
    return int(versions[0])


def _names_must_be_text(model: ModelProto) -> None:
    """protobuf gives bytes for a string that is no UTF-8, as in a damaged file."""

    def names() -> Iterator[str | bytes]:
        for graph in graphs_of(model.graph):
            yield from (each.name for each in (*graph.input, *graph.output, *graph.value_info, *graph.initializer))
            yield from (tensor.values.name for tensor in graph.sparse_initializer)
            for node in graph.node:
                yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
                yield from (attribute.name for attribute in node.attribute)
        yield from (entry.domain for entry in model.opset_import)

    wrong = next((name for name in names() if isinstance(name, bytes)), None)
    if wrong is not None:
        raise ValueError(
            f"the names in an ONNX model must be UTF-8, got {wrong[:60]!r}; export it again, or take an undamaged file"
        )


def _by_onnx(module: str, function: str, model: ModelProto, *arguments: Any) -> ModelProto:
    """What a function of onnx makes of a model."""
    try:
        made: ModelProto = getattr(library(f"onnx.{module}"), function)(model, *arguments)
    except Exception as error:  # onnx's own, of what does not fit together
        raise ValueError(
            f"the model must be such that onnx.{module}.{function} takes it, got {type(error).__name__}: "
            f"{str(error)[:300]}; export the model again"
        ) from error
    return made


def _functions_must_be_few(model: ModelProto) -> None:
    """Each call of a function becomes its nodes: a few functions that call each other twice make billions."""
    functions = {(function.domain, function.name): function for function in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(nodes: Iterable[NodeProto], depth: int) -> int:
        if depth > 100:  # as of functions that call themselves
            return MOST_NODES
        total = 0
        for node in nodes:
            total += 1 + sum(size(graph.node, depth + 1) for graph in graphs_inside(node))
            called = node.domain, node.op_type
            if called in functions:
                if called not in sizes:
                    sizes[called] = size(functions[called].node, depth + 1)
                total += sizes[called]
            if total >= MOST_NODES:
                return MOST_NODES
        return total

    if size(model.graph.node, 0) >= MOST_NODES:
        raise ValueError(
            f"the model's functions must not call themselves, and come to less than {MOST_NODES} nodes where they are "
            "called, got others; export the model again without functions"
        )


def graphs_inside(node: NodeProto) -> Iterator[GraphProto]:
    """The branches of an If, the body of a Loop."""
    for attribute in node.attribute:
        yield from [attribute.g] if attribute.HasField("g") else attribute.graphs


def graphs_of(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for inner in graphs_inside(node):
            yield from graphs_of(inner)


def scopes_of(graph: GraphProto, outer: Scope | None = None) -> Iterator[tuple[GraphProto, Scope]]:
    """A graph and those inside its nodes, each with what the names that it may use stand for."""
    inputs = {value.name: value for value in graph.input}
    scope = ChainMap(inputs) if outer is None else outer.new_child(inputs)
    scope.update({tensor.values.name: tensor for tensor in graph.sparse_initializer})
    scope.update({tensor.name: tensor for tensor in graph.initializer})
    scope.update({output: node for node in graph.node for output in node.output if output})
    yield graph, scope
    for node in graph.node:
        for inner in graphs_inside(node):
            yield from scopes_of(inner, scope)


def types_of(model: ModelProto) -> dict[str, Type]:
    """What onnx's shape inference finds, of values whose type is known."""
    onnx = library("onnx")
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:  # of a model that is damaged, or too large for it
        graph = model.graph
    types: dict[str, Type] = {}
    for inner in graphs_of(graph):
        for info in (*inner.input, *inner.value_info, *inner.output):
            tensor = info.type.tensor_type
            dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
            found = Type(tensor.elem_type, dims if tensor.HasField("shape") else None)
            old = types.setdefault(info.name, found)
            if old != found:  # of one name in two branches
                types[info.name] = Type(old.kind if old.kind == found.kind else 0, None)
    return types


def external_data_must_be_here(tensor: TensorProto, folder: str) -> None:
    """A file can name any other: taken are ordinary ones in the model's own folder, as long as they say."""
    onnx = library("onnx")
    info = onnx.external_data_helper.ExternalDataInfo(tensor)
    home = os.path.realpath(folder or os.curdir)
    path = os.path.realpath(os.path.join(home, info.location))
    if os.path.commonpath([home, path]) != home or os.path.isabs(info.location):
        raise ValueError(f"its data in {info.location!r}, which is not in the model's folder")
    if not os.path.isfile(path):
        raise ValueError(f"its data in {info.location!r}, which is no file in the model's folder")
    if info.length is None and os.path.getsize(path) - (info.offset or 0) > 16 * elements(tensor.dims):
        raise ValueError(f"data in {info.location!r} that are longer than its shape {list(tensor.dims)}")


def elements(dims: Iterable[int]) -> int:
    """How many there are in a tensor of this shape."""
    total = 1
    for n in dims:
        if n < 0:
            raise ValueError(f"a dimension of {n}")
        total *= n
    return total


def with_data(model: ModelProto, folder: str) -> None:
    """Take external data into the model."""
    onnx = library("onnx")
    graphs = list(graphs_of(model.graph))
    attributes = [attribute for graph in graphs for node in graph.node for attribute in node.attribute]
    sparse = [tensor for graph in graphs for tensor in graph.sparse_initializer]
    sparse += [attribute.sparse_tensor for attribute in attributes]
    tensors = [tensor for graph in graphs for tensor in graph.initializer]
    tensors += [tensor for attribute in attributes for tensor in (attribute.t, *attribute.tensors)]
    tensors += [part for tensor in sparse for part in (tensor.values, tensor.indices)]
    for tensor in tensors:
        if onnx.external_data_helper.uses_external_data(tensor):
            try:
                external_data_must_be_here(tensor, folder)
                onnx.external_data_helper.load_external_data_for_tensor(tensor, folder)
            except Exception as error:
                raise ValueError(
                    f"external data of {tensor.name!r} must be in {folder or 'the current folder'!r}, "
                    f"got {type(error).__name__}: {error}; keep them beside the model"
                ) from error


class Names:
    """The names of a model's values and nodes: those that are taken, and new ones."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.taken: set[str] = set()
        self.numbers: dict[str, count[int]] = {}  # the next one behind a name
        for graph in graphs_of(model.graph):
            values = chain(graph.input, graph.initializer, (tensor.values for tensor in graph.sparse_initializer))
            self.taken.update(value.name for value in values)
            self.taken.update(name for node in graph.node for name in (node.name, *node.output))

    def free(self, name: str) -> bool:
        return name not in self.taken

    def new(self, wish: str) -> str:
        """A name that nothing else has."""
        numbers = self.numbers.setdefault(wish, count(1))
        name = wish if wish not in self.taken else next(filter(self.free, (f"{wish}.{k}" for k in numbers)))
        self.taken.add(name)
        return name

    def add(self, tensor: TensorProto) -> str:
        """An initializer of the whole model, which graphs inside nodes read, too; the name that it got."""
        tensor.name = self.new(tensor.name)
        graph = self.model.graph
        graph.initializer.append(tensor)
        if self.model.ir_version < 4:  # to which initializers had to be inputs too
            graph.input.append(
                library("onnx").helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
        return str(tensor.name)


def drop_unread(names: Iterable[str], model: ModelProto) -> None:
    """Take out what gives these names, where nothing reads them any more; and what nothing reads then."""
    graphs = list(graphs_of(model.graph))
    reads: dict[str, int] = {}
    for name in chain(
        (name for graph in graphs for node in graph.node for name in node.input),
        (output.name for graph in graphs for output in graph.output),
    ):
        reads[name] = reads.get(name, 0) + 1
    makers = {output: node for graph in graphs for node in graph.node for output in node.output if output}
    unread: set[str] = set()
    gone: set[str] = set()  # outputs of nodes
    pending = list(names)
    while pending:
        name = pending.pop()
        if reads.get(name, 0) or not name:
            continue
        unread.add(name)
        node = makers.get(name)
        if node is None or name in gone or any(reads.get(output, 0) for output in node.output):
            continue
        gone.update(filter(None, node.output))
        for source in node.input:
            reads[source] -= 1
            pending.append(source)
    for graph in graphs:
        stored = {tensor.name for tensor in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
        _drop(graph.node, gone, lambda node: node.output)
        _drop(graph.initializer, unread, lambda tensor: [tensor.name])
        _drop(graph.sparse_initializer, unread, lambda tensor: [tensor.values.name])
        _drop(graph.input, unread & stored, lambda value: [value.name])
        _drop(graph.value_info, unread, lambda value: [value.name])


def _drop(values: Any, gone: set[str], names_of: Callable[[Any], Iterable[str]]) -> None:
    """Take those out of a repeated field that have one of these names."""
    kept = [value for value in values if gone.isdisjoint(names_of(value))]
    if len(kept) < len(values):
        del values[:]
        values.extend(kept)
