from typing import Any, ClassVar

from numpy.typing import NDArray
from typing_extensions import disjoint_base

from cpubn.backends.epilogue import Epilogue
from cpubn.backends.prologue import Prologue, Statistics
from cpubn.backends.weights import Weights

_Array = NDArray[Any]

__pyx_capi__: dict[str, object]

@disjoint_base
class CompiledKernels:
    ANY_TYPE: ClassVar[bool]
    @property
    def name(self) -> str: ...
    @property
    def __name__(self) -> str: ...
    def __new__(cls, table: object, name: str) -> CompiledKernels: ...
    def moments(self, x: _Array, stats: _Array, threads: int, weights: Weights | None = None) -> None: ...
    def normalize(
        self,
        x: _Array,
        affine: _Array,
        epilogue: Epilogue,
        y: _Array,
        threads: int,
        weights: Weights | None = None,
    ) -> None: ...
    def train_forward(
        self,
        x: _Array,
        weight: _Array,
        bias: _Array,
        eps: float,
        stats: _Array,
        epilogue: Epilogue,
        y: _Array,
        threads: int,
        weights: Weights | None = None,
    ) -> None: ...
    def gradient_sums(
        self,
        dy: _Array,
        x: _Array,
        statistics: Statistics,
        prologue: Prologue,
        sums: _Array,
        threads: int,
        weights: Weights | None = None,
    ) -> None: ...
    def backward(
        self,
        dy: _Array,
        x: _Array,
        statistics: Statistics,
        prologue: Prologue,
        sums: _Array,
        dx: _Array,
        threads: int,
        weights: Weights | None = None,
    ) -> None: ...
    def pack_signs(self, y: _Array, low: float, high: float, nan: bool, bits: _Array, threads: int) -> None: ...

def openmp_max_threads() -> int: ...
def cpu_features() -> frozenset[str]: ...
def calm() -> int: ...
def restore(before: int) -> None: ...
def order_of(outer: int, channels: int, inner: int) -> tuple[bool, int, int, int, int, int, int]: ...
