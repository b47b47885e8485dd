"""What arrays tell of themselves: the name of their type, and where their memory is."""

from functools import cache, lru_cache
from importlib import import_module
from typing import Any

import numpy as np


@lru_cache(maxsize=64)  # the types that are taken, in either byte order; those of records have no end
def name_of(dtype: np.dtype[Any]) -> str:
    """dtype.name, which NumPy puts together anew each time that it is asked for."""
    return dtype.name


@cache
def bfloat16() -> np.dtype[Any]:
    """The type, which is ml_dtypes'."""
    try:
        kind: np.dtype[Any] = np.dtype(import_module("ml_dtypes").bfloat16)
    except ImportError as error:
        raise ValueError(
            f"dtype 'bfloat16' must have ml_dtypes, which cannot be imported: {error}; "
            'install it with pip install "cpubn[half]"'
        ) from error
    return kind


class Addresses:
    """What NumPy makes an array of: memory that it cannot read, and whose owner lives as long as the array."""

    def __init__(self, interface: dict[str, Any], owner: Any) -> None:
        self.__array_interface__ = interface
        self.owner = owner
