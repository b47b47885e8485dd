from collections.abc import Callable
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from cpubn.backends.compiled.planner import CompiledKernels
from cpubn.backends.epilogue import Activation, Quantization
from cpubn.backends.weights import Weights
from cpubn.typing import AxisOrder

_Array = NDArray[Any]
_Count = int | _Array | None  # of weights their sums, None where nothing was summed
_Vectors = tuple[object, object, object, object, object]

@final
class Calls:
    def __new__(cls, of: CompiledKernels, threads: Callable[[int], int]) -> Calls: ...
    def affine(
        self,
        coefficients: tuple[_Array, _Array],
        how: tuple[Activation | None, Quantization | None, np.dtype[Any] | None, AxisOrder, AxisOrder],
    ) -> Affine: ...
    def infer(self, x: object, vectors: _Vectors, how: tuple[Any, ...]) -> _Array | None: ...
    def train(self, x: object, vectors: _Vectors, how: tuple[Any, ...]) -> tuple[_Array, _Count, _Array] | None: ...
    def moments(self, x: object, layout: object, weights: Weights | None = None) -> tuple[_Count, _Array] | None: ...
    def witness(self, arrays: tuple[object, ...]) -> int: ...
    def backward(self, asked: tuple[Any, ...]) -> tuple[_Array, _Array, _Array, _Array | None] | None: ...

@final
class Affine:
    def __new__(
        cls,
        calls: Calls,
        coefficients: tuple[_Array, _Array],
        how: tuple[Activation | None, Quantization | None, np.dtype[Any] | None, AxisOrder, AxisOrder],
    ) -> Affine: ...
    def __call__(self, x: object, residual: object = None, out: object = None) -> _Array | None: ...

def axes_of(x: _Array, axis: int) -> tuple[tuple[int, ...], int]: ...
