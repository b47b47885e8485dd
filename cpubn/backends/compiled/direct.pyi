from collections.abc import Callable
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from cpubn.backends.compiled.planner import CompiledKernels
from cpubn.backends.epilogue import Activation, Quantization
from cpubn.typing import AxisOrder

_Array = NDArray[Any]

class DirectKernels(CompiledKernels):
    def affine(
        self,
        narrow: _Array,
        wide: _Array,
        activation: Activation | None,
        quantization: Quantization | None,
        dtype: np.dtype[Any] | None,
        layout: AxisOrder,
        out_layout: AxisOrder,
        threads: Callable[[int], int],
    ) -> DirectAffine: ...
    def infer_directly(
        self,
        x: object,
        running_mean: object,
        running_var: object,
        weight: object,
        bias: object,
        momentum: object,
        eps: object,
        layout: object,
        activation: Activation | None,
        residual: object,
        dtype: np.dtype[Any] | None,
        out_layout: object,
        out: object,
        threads: Callable[[int], int],
    ) -> _Array | None: ...
    def train_directly(
        self,
        x: object,
        running_mean: object,
        running_var: object,
        weight: object,
        bias: object,
        momentum: object,
        eps: object,
        layout: object,
        activation: Activation | None,
        residual: object,
        out: object,
        tracked: _Array | None,
        threads: Callable[[int], int],
    ) -> tuple[_Array, _Array] | None: ...
    def witness(self, x: object, output: object, residual: object) -> int | None: ...
    def backward_directly(
        self,
        dy: object,
        x: object,
        mean: object,
        low: object,
        var: object,
        weight: object,
        eps: object,
        training: bool,
        layout: object,
        out: object,
        threads: Callable[[int], int],
    ) -> tuple[_Array, _Array, _Array] | None: ...
    def moments_directly(self, x: object, layout: object, threads: Callable[[int], int]) -> _Array | None: ...

def calm() -> int: ...
def restore(before: int) -> None: ...

@final
class DirectAffine:
    def __new__(
        cls,
        kernels: DirectKernels,
        narrow: _Array,
        wide: _Array,
        activation: Activation | None,
        quantization: Quantization | None,
        dtype: np.dtype[Any] | None,
        layout: AxisOrder,
        out_layout: AxisOrder,
        threads: Callable[[int], int],
    ) -> DirectAffine: ...
    def __call__(self, x: object, residual: object = None, out: object = None) -> _Array | None: ...
