"""Names for the types that annotations repeat, and what many modules ask of arrays."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]  # of samples
Vector: TypeAlias = NDArray[np.float64]  # one value per channel
AxisOrder: TypeAlias = Literal["NCHW", "NHWC"]  # channels on axis 1, or last; of any rank
# What names one of them: also in capitals or small letters throughout.
Layout: TypeAlias = Literal[
    "NCHW", "NC", "NCL", "NCDHW", "channels_first", "nchw", "nc", "ncl", "ncdhw",
    "NHWC", "NLC", "NDHWC", "channels_last", "nhwc", "nlc", "ndhwc",
]  # fmt: skip
# A name, a name with its parameters, a function compiled by Numba, or that and its derivative.
ActivationLike: TypeAlias = str | tuple[Any, ...] | Callable[[float], float] | None


@lru_cache(maxsize=64)  # the types that are taken, in either byte order; those of records have no end
def name_of(dtype: np.dtype[Any]) -> str:
    """dtype.name, which NumPy puts together anew each time that it is asked for."""
    return dtype.name


class Addresses:
    """What NumPy makes an array of: memory that it cannot read, and whose owner lives as long as the array."""

    def __init__(self, interface: dict[str, Any], owner: Any) -> None:
        self.__array_interface__ = interface
        self.owner = owner
