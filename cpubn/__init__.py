"""Batch normalization for NumPy arrays on the CPU, without a deep-learning framework.

    y, batch = cpubn.batch_norm(x, running_mean, running_var, weight, bias, training=True, return_moments=True)
    dx, dweight, dbias = cpubn.batch_norm_backward(dy, x, batch, batch.var(), weight)

BatchNorm1d, BatchNorm2d and BatchNorm3d are torch.nn's layers on plain arrays; FrozenBatchNorm is what inference calls.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from cpubn.backends.choice import (
    available_backends,
    get_backend,
    get_num_threads,
    set_num_threads,
    use_backend,
)
from cpubn.backends.report import show_config
from cpubn.folding import fold_conv, fold_into_next_conv, fold_into_next_linear, fold_linear, surround, verify_fold
from cpubn.frozen import FrozenBatchNorm
from cpubn.functional import batch_norm, batch_norm_backward, moments
from cpubn.halves import gradient_sums
from cpubn.images import normalize_images
from cpubn.layers import BatchNorm1d, BatchNorm2d, BatchNorm3d
from cpubn.layers.kept import no_grad
from cpubn.statistics import Moments
from cpubn.version import __version__ as __version__

if TYPE_CHECKING:
    from cpubn import convert as convert, typing as typing
    from cpubn.inspection.health import health as health
    from cpubn.recalibration.recalibrate import recalibrate as recalibrate
else:

    def __getattr__(name):
        """What most programs do not need is imported when it is first asked for."""
        if name == "convert":
            return import_module("cpubn.convert")
        if name == "health":
            return import_module("cpubn.inspection.health").health
        if name == "recalibrate":
            return import_module("cpubn.recalibration.recalibrate").recalibrate
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def get_include() -> str:
    """Where cpubn.h is: the compiled kernels as functions of C, C++ and Cython.

    Returns
    -------
    The path of the folder, for a compiler's -I.

    Examples
    --------
    >>> cpubn.get_include().endswith("include")
    True
    """
    return str(Path(__file__).parent / "include")


def __dir__() -> list[str]:
    """What is public: neither what happens to be imported here nor the modules that it comes from."""
    return sorted([*__all__, "__version__", "convert", "typing"])


__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "FrozenBatchNorm",
    "Moments",
    "available_backends",
    "batch_norm",
    "batch_norm_backward",
    "fold_conv",
    "fold_into_next_conv",
    "fold_into_next_linear",
    "fold_linear",
    "get_backend",
    "get_include",
    "get_num_threads",
    "gradient_sums",
    "health",
    "moments",
    "no_grad",
    "normalize_images",
    "recalibrate",
    "set_num_threads",
    "show_config",
    "surround",
    "use_backend",
    "verify_fold",
]
