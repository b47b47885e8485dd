"""Two ONNX models on the same inputs, by onnxruntime or by onnx's reference evaluator."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from cpubn.convert._onnx_model import elements, opset_of
from cpubn.convert._sources import library
from cpubn.functional import batch_norm
from cpubn.typing import Array

if TYPE_CHECKING:
    from onnx import ModelProto

LARGEST = 2**26  # elements of a random input
# What stands for a dimension that the model leaves open: the first one, and each of the others, until the model runs.
SIZES = ((2, 32), (1, 32), (1, 64), (1, 224), (1, 512), (1, 16000))


@dataclass(frozen=True)
class Comparison:
    """The outputs of two models.

    difference : the largest |difference|, inf where one has NaN and the other has not; None where they did not run.
    largest : the largest |value| of the first model.
    by : what ran them, or why nothing did.
    """

    difference: float | None
    largest: float
    by: str

    @property
    def relative(self) -> float | None:
        """The difference in units of the largest value."""
        return None if self.difference is None else self.difference / self.largest if self.largest else self.difference

    def __str__(self) -> str:
        if self.difference is None:
            return f"not compared: {self.by}"
        return f"largest difference of outputs {self.difference:.1e}, of values up to {self.largest:.3g} ({self.by})"


def compare(given: ModelProto, folded: ModelProto, inputs: Mapping[str, Any] | None) -> Comparison:
    """Both models on these inputs, or on random ones."""
    reason = "no engine is installed"
    candidates = _random(given) if inputs is None else iter([_checked(given, inputs)])
    for feeds in candidates:
        for engine in (_onnxruntime, _reference):
            if engine is _onnxruntime and find_spec("onnxruntime") is None:
                continue
            try:
                expected = engine(given, feeds)
            except Exception as error:  # of an operator that it does not have, a shape that does not fit
                reason = f"{engine.__name__[1:]} does not run the model: {type(error).__name__}: {str(error)[:300]}"
                continue
            try:
                got = engine(folded, feeds)
            except Exception as error:
                return Comparison(None, 0.0, f"{engine.__name__[1:]} does not run the folded model: {error}")
            kind = "random" if inputs is None else "given"
            return _compared(list(_flat(expected)), list(_flat(got)), f"{engine.__name__[1:]}, {kind} inputs")
    if inputs is not None:
        raise ValueError(
            f"inputs must be such that the model runs on them, got: {reason}; check names, shapes and types"
        )
    return Comparison(None, 0.0, reason)


def _compared(expected: list[Array], got: list[Array], by: str) -> Comparison:
    largest = max((float(abs(a[np.isfinite(a)]).max(initial=0.0)) for a in expected), default=0.0)
    if len(got) != len(expected):
        return Comparison(float("inf"), largest, by)
    return Comparison(max((_difference(a, b) for a, b in zip(expected, got, strict=True)), default=0.0), largest, by)


def _onnxruntime(model: ModelProto, feeds: Mapping[str, Array]) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        runtime = library("onnxruntime")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    providers = ["CPUExecutionProvider"]
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=providers)
    wanted = {value.name for value in session.get_inputs()}
    outputs: list[Any] = session.run(None, {name: value for name, value in feeds.items() if name in wanted})
    return outputs


def _reference(model: ModelProto, feeds: Mapping[str, Array]) -> list[Any]:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        new = [_inference()] if opset_of(model) < 14 else []
        outputs: list[Any] = library("onnx.reference").ReferenceEvaluator(model, new_ops=new).run(None, dict(feeds))
    return outputs


def _inference() -> Any:
    """BatchNormalization before opset 14, which the evaluator computes as training."""

    class BatchNormalization(library("onnx.reference.op_run").OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Array, *vectors: Array, epsilon: float = 1e-5, **_: Any) -> tuple[Array]:
            weight, bias, mean, var = vectors
            return (batch_norm(x, mean, var, weight, bias, eps=epsilon),)

    return BatchNormalization


def _flat(outputs: Any) -> Iterator[Array]:
    """All numbers, in float64, of arrays and of sequences of them."""
    for output in outputs:
        if isinstance(output, list | tuple):
            yield from _flat(output)
        elif output is not None and np.asarray(output).dtype.kind in "fiub":
            yield np.asarray(output).astype(np.float64)


def _difference(a: Array, b: Array) -> float:
    if a.shape != b.shape:
        return float("inf")
    with np.errstate(invalid="ignore"):
        apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, abs(a - b))
    return float(np.where(np.isnan(apart), np.inf, apart).max(initial=0.0))


def _wanted(model: ModelProto) -> dict[str, Any]:
    """The inputs that have no value of their own, with their types."""
    own = {tensor.name for tensor in model.graph.initializer}
    own |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    return {value.name: value.type for value in model.graph.input if value.name not in own}


def _checked(model: ModelProto, inputs: Mapping[str, Any]) -> dict[str, Array]:
    wanted = _wanted(model)
    if not isinstance(inputs, Mapping) or set(inputs) != set(wanted):
        got = ", ".join(map(repr, inputs)) if isinstance(inputs, Mapping) else type(inputs).__name__
        raise ValueError(
            f"inputs must be a mapping of arrays by the model's inputs, {', '.join(map(repr, wanted))}, "
            f"got {got or 'none'}; pass one array for each"
        )
    return {name: np.asarray(value) for name, value in inputs.items()}


def _random(model: ModelProto) -> Iterator[dict[str, Array]]:
    """The same in each call: normal numbers, and 0 and 1 for whole ones; of several sizes where they are open."""
    seen: set[tuple[tuple[int, ...], ...]] = set()
    for first, others in SIZES:
        feeds, rng = {}, np.random.default_rng(0)
        for name, kind in _wanted(model).items():
            if not kind.HasField("tensor_type"):
                return
            dims = kind.tensor_type.shape.dim
            shape = tuple(d.dim_value if d.dim_value > 0 else (others if i else first) for i, d in enumerate(dims))
            if elements(shape) > LARGEST:
                return
            dtype = library("onnx").helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type)
            floating = dtype.kind == "f" or dtype.name == "bfloat16"
            values = rng.standard_normal(shape) if floating else rng.integers(0, 2, shape)
            feeds[name] = values.astype(dtype)
        shapes = tuple(value.shape for value in feeds.values())
        if shapes not in seen:
            seen.add(shapes)
            yield feeds
