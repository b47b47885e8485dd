"""Names for the types that annotations repeat."""

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]  # float32 or float64
Vector: TypeAlias = NDArray[np.float64]  # one value per channel
Layout: TypeAlias = Literal["NCHW", "NHWC"]
