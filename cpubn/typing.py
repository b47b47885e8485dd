"""Names for annotations: what cpubn's arguments are, and what its results are::

    def block(x: NDArray[np.float32], activation: cpubn.typing.Activation) -> NDArray[np.float32]:
        return cpubn.BatchNorm2d(64, activation=activation)(x)

A result is of the type of its input: of an NDArray[np.float32] another one. Where a ``dtype`` is given, and of lists
and integers, it is an NDArray[Any].

What a layer may lack, such as its weight with ``affine=False``, is typed as if it were there, so that a line such as
``bn.weight += 1`` passes. On a GPU, arrays are typed as on the host, which is true of what both can do.
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol, Required, TypeAlias, TypedDict, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Activation",
    "Array",
    "AxisOrder",
    "Backend",
    "BackwardOptions",
    "Communicator",
    "Constants",
    "Count",
    "Floating",
    "ForwardOptions",
    "Layout",
    "Options",
    "Values",
    "Vector",
]

Array: TypeAlias = NDArray[Any]  # of samples
Vector: TypeAlias = NDArray[np.float64]  # one value per channel
Count: TypeAlias = Any  # values per channel: an int, or where channels differ int64 or float64, (C,)
Values: TypeAlias = ArrayLike | None  # the same where it is only read, or None
# What the samples of an input are, and so those of the result.
Floating = TypeVar("Floating", bound=np.floating[Any])

AxisOrder: TypeAlias = Literal["NCHW", "NHWC"]  # channels on axis 1, or last; of any rank
# What names one of them: also in capitals or small letters throughout.
Layout: TypeAlias = Literal[
    "NCHW", "NC", "NCL", "NCDHW", "channels_first", "nchw", "nc", "ncl", "ncdhw",
    "NHWC", "NLC", "NDHWC", "channels_last", "nhwc", "nlc", "ndhwc",
]  # fmt: skip

# A name, a name with its parameters, a function compiled by Numba, or that and its derivative.
Activation: TypeAlias = (
    Literal["relu", "relu6", "hardswish", "silu", "gelu", "sigmoid", "tanh", "softplus", "mish", "elu"]
    | tuple[Literal["leaky_relu", "elu"], float]
    | tuple[Literal["clip"], float, float]
    | Callable[[Any], Any]
    | tuple[Callable[[Any], Any], Callable[[Any], Any]]
)
Backend: TypeAlias = Literal["cython", "numba", "numpy", "cuda"]


# What becomes of NaN in the data.
Missing: TypeAlias = Literal["propagate", "omit"]
# What becomes of batches in training with one value in a channel, with none, or with NaN or infinity in it.
OnSingle: TypeAlias = Literal["raise", "running"]
OnEmpty: TypeAlias = Literal["keep", "raise"]
OnNonfinite: TypeAlias = Literal["propagate", "raise", "skip"]


class Constants(TypedDict, total=False):
    """What FrozenBatchNorm takes by name, beside what its type depends on."""

    weight: Required[ArrayLike | None]
    bias: Required[ArrayLike | None]
    running_mean: Required[ArrayLike]
    running_var: Required[ArrayLike]
    eps: float
    layout: Layout
    activation: Activation | None
    out_layout: Layout | None
    backend: Backend | None


class Communicator(Protocol):
    """What joins the ranks of a batch, of a layer's ``comm``: mpi4py's communicators, and cpubn's own, are some."""

    def allgather(self, values: Vector, /) -> Any:
        """The arrays (n,) float64 that all ranks passed, in the order of ranks: (ranks, n), or a list of them."""


class Counted(TypedDict, total=False):
    """What says which elements of a batch count, and how often."""

    mask: ArrayLike | None
    lengths: ArrayLike | None
    weights: ArrayLike | None
    nan: Missing


class Masked(Counted, total=False):
    """The same of a forward."""

    masked_output: float


class Options(Counted, total=False):
    """What batch_norm and batch_norm_backward both take by name."""

    layout: Layout
    activation: Activation | None
    out: object  # and not Any, by which mypy would lose the type of the result
    like: object
    backend: Backend | None


class ForwardOptions(Options, total=False):
    """What batch_norm takes by name beside dtype and return_moments, on which the type of its result depends."""

    residual: ArrayLike | None
    out_layout: Layout | None
    masked_output: float
    on_single: OnSingle
    on_empty: OnEmpty
    on_nonfinite: OnNonfinite


class BackwardOptions(Options, total=False):
    """What batch_norm_backward takes by name beside residual, on which the type of its result depends."""

    eps: float
    training: bool
    bias: ArrayLike | None
    y: ArrayLike | None
    sums: ArrayLike | None
