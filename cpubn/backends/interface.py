"""What arrays tell of themselves: the name of their type, and where their memory is."""

from functools import lru_cache
from typing import Any

import numpy as np


@lru_cache(maxsize=64)  # the types that are taken, in either byte order; those of records have no end
def name_of(dtype: np.dtype[Any]) -> str:
    """dtype.name, which NumPy puts together anew each time that it is asked for."""
    return dtype.name


class Addresses:
    """What NumPy makes an array of: memory that it cannot read, and whose owner lives as long as the array."""

    def __init__(self, interface: dict[str, Any], owner: Any) -> None:
        self.__array_interface__ = interface
        self.owner = owner
