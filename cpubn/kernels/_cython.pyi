from collections.abc import Callable
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from cpubn._epilogue import Activation, Epilogue, Quantization

_Array = NDArray[Any]

ANY_TYPE: bool

def moments(x: _Array, stats: _Array, threads: int) -> None: ...
def normalize(x: _Array, affine: _Array, epilogue: Epilogue, y: _Array, threads: int) -> None: ...
def train_forward(
    x: _Array,
    weight: _Array,
    bias: _Array,
    eps: float,
    stats: _Array,
    epilogue: Epilogue,
    y: _Array,
    threads: int,
) -> None: ...
def gradient_sums(dy: _Array, x: _Array, mean: _Array, sums: _Array, threads: int) -> None: ...
def train_backward(
    dy: _Array,
    x: _Array,
    mean: _Array,
    var: _Array,
    weight: _Array,
    eps: float,
    sums: _Array,
    dx: _Array,
    threads: int,
) -> None: ...
def activation_gradient(
    dy: _Array, x: _Array, affine: _Array | None, epilogue: Epilogue, g: _Array, threads: int
) -> None: ...
def pack_signs(y: _Array, low: float, high: float, nan: bool, bits: _Array, threads: int) -> None: ...
def apply_signs(dy: _Array, bits: _Array, slope: float, g: _Array, threads: int) -> None: ...
def openmp_max_threads() -> int: ...
def cpu_features() -> frozenset[str]: ...

@final
class DirectAffine:
    def __new__(
        cls,
        narrow: _Array,
        wide: _Array,
        activation: Activation | None,
        quantization: Quantization | None,
        dtype: np.dtype[Any] | None,
        layout: str,
        out_layout: str,
        threads: Callable[[int], int],
    ) -> DirectAffine: ...
    def __call__(self, x: object, residual: object = None, out: object = None) -> _Array | None: ...

def infer_directly(
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
    threads: Callable[[int], int],
) -> tuple[_Array, _Array] | None: ...
def backward_directly(
    dy: object,
    x: object,
    mean: object,
    var: object,
    weight: object,
    eps: object,
    training: bool,
    layout: object,
    out: object,
    threads: Callable[[int], int],
) -> tuple[_Array, _Array, _Array] | None: ...
def moments_directly(x: object, layout: object, threads: Callable[[int], int]) -> _Array | None: ...
