"""The constants of an ONNX model: what is stored in it, and what onnx's reference evaluator makes of that."""

from __future__ import annotations

from collections import ChainMap
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cpubn.convert._onnx_model import (
    DOMAINS,
    Scope,
    Type,
    elements,
    external_data_must_be_here,
    opset_of,
    types_of,
)
from cpubn.convert._sources import library
from cpubn.typing import Array

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

LARGEST = 2**26  # elements of one value
MOST = 2**27  # elements of all that are computed for a model
MOST_STEPS = 1000  # nodes that one value depends on
SHAPES = 1024  # elements of an input that a shape may be made of

# What may be computed: operators whose work and memory are as their inputs and outputs are. Files are never trusted,
# and the others can ask for hours or gigabytes in a few bytes.
OPERATORS = frozenset(
    """Abs Add And Cast CastLike Ceil Clip Concat Constant ConstantOfShape DequantizeLinear Div Equal Exp Expand Flatten
    Floor Gather Greater GreaterOrEqual Identity Less LessOrEqual Log Max Mean Min Mul Neg Not Or Pow QuantizeLinear
    Range Reciprocal ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape
    Round Shape Sigmoid Sign Size Slice Softplus Split Sqrt Squeeze Sub Sum Tanh Tile Transpose Unsqueeze Where
    Xor""".split()  # noqa: SIM905
)


class Constants:
    """The values of a model that are the same whatever its inputs are."""

    def __init__(self, model: ModelProto, folder: str) -> None:
        self.model, self.folder, self.opset = model, folder, opset_of(model)
        self.computed: dict[tuple[int, str], tuple[Array, frozenset[str]]] = {}  # by where a name stands, and the name
        self.places: dict[int, Any] = {}  # that are known by their id, which so stays theirs
        self.total = 0

    @cached_property
    def types(self) -> dict[str, Type]:
        return types_of(self.model)

    def value(self, name: str, scope: Scope, what: str) -> Array:
        """What a name stands for; an initializer that is an input besides is a constant, too."""
        return self._take(name, scope, what)[0]

    def made_by(self, name: str, scope: Scope, what: str) -> frozenset[str]:
        """The operators that it is computed with."""
        return self._take(name, scope, what)[1]

    def _take(self, name: str, scope: Scope, what: str) -> tuple[Array, frozenset[str]]:
        try:
            return self._depth_first(name, scope)
        except Exception as error:  # ours, or whatever a damaged tensor or node is to NumPy and onnx
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ValueError(
                f"{what} must be a readable constant, got {reason[:300]}; fold constants before, export the model "
                "again, or keep its external data beside it"
            ) from error

    def _depth_first(self, name: str, scope: Scope) -> tuple[Array, frozenset[str]]:
        """A node after those that it depends on, without recursion."""
        known = ChainMap[tuple[int, str], tuple[Array, frozenset[str]]]({}, self.computed)
        begun: set[tuple[int, str]] = set()
        pending = [(name, scope)]
        while pending:
            name, scope = pending[-1]
            scope = _where(name, scope)
            key, source = (id(scope.maps[0]), name), scope[name]
            inputs = _needed(source)
            keys = [(id(_where(other, scope).maps[0]), other) for other in inputs]
            missing = [other for other, its in zip(inputs, keys, strict=True) if its not in known]
            if key in known:
                pending.pop()
            elif not hasattr(source, "op_type"):
                known[key] = self._stored(source), frozenset()
            elif missing:
                if key in begun:
                    raise ValueError(f"{name!r}, which depends on itself")
                _may_be_computed(source)
                begun.add(key)
                if len(begun) > MOST_STEPS:
                    raise ValueError(f"one that more than {MOST_STEPS} nodes compute")
                pending += [(other, scope) for other in missing]
            else:
                _may_be_computed(source)
                values = {other: known[its][0] for other, its in zip(inputs, keys, strict=True)}
                values |= {other: self._like(other) for other in source.input if other and other not in values}
                made_by = frozenset([source.op_type]).union(*(known[its][1] for its in keys))
                self.places[key[0]] = scope.maps[0]
                for output, value in self._run(source, values).items():
                    known[key[0], output] = self.computed[key[0], output] = value, made_by
        return known[key]

    def _like(self, name: str) -> Array:
        """Nothing, of the type of a value."""
        if name not in self.types:
            raise ValueError(f"one of the type of {name!r}, which is not known")
        return np.empty(0, library("onnx").helper.tensor_dtype_to_np_dtype(self.types[name].kind))

    def _stored(self, source: Any) -> Array:
        """An initializer."""
        onnx = library("onnx")
        if isinstance(source, onnx.TensorProto):
            return self._tensor(source)
        if isinstance(source, onnx.SparseTensorProto):
            return self._dense(source)
        raise ValueError(f"one that depends on the input {source.name!r}")

    def _tensor(self, tensor: TensorProto) -> Array:
        onnx = library("onnx")
        _must_be_small(elements(tensor.dims))
        if tensor.data_type in (onnx.TensorProto.STRING, onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
            raise ValueError(f"one of {onnx.TensorProto.DataType.Name(tensor.data_type)}")
        if onnx.external_data_helper.uses_external_data(tensor):
            external_data_must_be_here(tensor, self.folder)
        array: Array = onnx.numpy_helper.to_array(tensor, base_dir=self.folder)
        return array

    def _dense(self, sparse: Any) -> Array:
        """values[i] stands at indices[i], which is a place in each dimension, or one in all of them counted through."""
        _must_be_small(elements(sparse.dims))
        values, indices = self._tensor(sparse.values), self._tensor(sparse.indices)
        shape = tuple(sparse.dims)
        dense = np.zeros(shape, values.dtype)
        places = np.ravel_multi_index(tuple(indices.T), shape) if indices.ndim == 2 else indices
        if (places < 0).any():
            raise ValueError("a sparse tensor whose indices are below 0")
        dense.reshape(-1)[places] = values
        return dense

    def _run(self, node: NodeProto, values: dict[str, Array]) -> dict[str, Array]:
        """The outputs of one node, once it is known how large they will be."""
        onnx = library("onnx")
        if node.op_type == "Constant" and len(node.attribute) == 1:
            (attribute,) = node.attribute
            if attribute.name == "value":
                return {node.output[0]: self._tensor(attribute.t)}
            if attribute.name == "sparse_value":
                return {node.output[0]: self._dense(attribute.sparse_tensor)}
        plain = onnx.NodeProto()
        plain.CopyFrom(node)
        plain.domain = ""
        kinds = {name: _kind(value) for name, value in values.items()}
        small = {name: onnx.numpy_helper.from_array(v, name) for name, v in values.items() if v.size <= SHAPES}
        schema = onnx.defs.get_schema(plain.op_type, self.opset, "")
        opsets = [onnx.helper.make_opsetid("", self.opset)]
        types = onnx.shape_inference.infer_node_outputs(schema, plain, kinds, small, opset_imports=opsets)
        for output in filter(None, plain.output):
            self._must_be_known(types.get(output), plain.op_type)
        inputs = [onnx.helper.make_value_info(name, kind) for name, kind in kinds.items()]
        outputs = [onnx.helper.make_value_info(name, types[name]) for name in plain.output if name]
        graph = onnx.helper.make_graph([plain], "constant", inputs, outputs)
        model = onnx.helper.make_model(graph, opset_imports=opsets)
        if plain.op_type == "DequantizeLinear" and self.opset < 19:  # before which the evaluator does not have it
            model = library("onnx.version_converter").convert_version(model, 19)
        with np.errstate(all="ignore"):
            results = library("onnx.reference").ReferenceEvaluator(model).run(None, values)
        return {value.name: np.asarray(result) for value, result in zip(outputs, results, strict=True)}

    def _must_be_known(self, kind: Any, operator: str) -> None:
        onnx = library("onnx")
        tensor = None if kind is None else kind.tensor_type
        if not tensor or not tensor.HasField("shape") or any(not d.HasField("dim_value") for d in tensor.shape.dim):
            raise ValueError(f"an output of {operator} whose size is not known beforehand")
        if tensor.elem_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
            raise ValueError(f"an output of {operator} that is no number")
        size = elements(d.dim_value for d in tensor.shape.dim)
        _must_be_small(size)
        self.total += size
        if self.total > MOST:
            raise ValueError(f"one of constants that are more than {MOST} numbers together")


def _where(name: str, scope: Scope) -> Scope:
    """The scope in which a name stands."""
    for depth, names in enumerate(scope.maps):
        if name in names:
            return type(scope)(*scope.maps[depth:])
    raise ValueError(f"{name!r}, which nothing gives")


def _needed(source: Any) -> list[str]:
    """The inputs of a node whose values it depends on; of the other of CastLike it is the type."""
    if not hasattr(source, "op_type"):
        return []
    return [name for name in (source.input[:1] if source.op_type == "CastLike" else source.input) if name]


def _may_be_computed(node: NodeProto) -> None:
    if node.domain not in DOMAINS or node.op_type not in OPERATORS:
        kind = node.op_type if node.domain in DOMAINS else f"{node.domain}.{node.op_type}"
        raise ValueError(f"one that is computed by {kind}")


def _must_be_small(size: int) -> None:
    if size > LARGEST:
        raise ValueError(f"one of {size} elements, of which {LARGEST} are taken at most")


def _kind(value: Array) -> Any:
    onnx = library("onnx")
    return onnx.helper.make_tensor_type_proto(onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
