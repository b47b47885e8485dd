"""torch.nn's batch norms on cpubn's kernels, for tensors on the CPU; to be imported by name.

    model = cpubn.torch.convert(model)      # in place: parameters, buffers, hooks and optimizers stay

BatchNorm1d, BatchNorm2d and BatchNorm3d are subclasses of torch's, with the same arguments, state_dict and results to
rounding. What they do not take (tensors on other devices, within transforms of torch.func, or so small that a call of
torch's own is faster) torch computes. SyncBatchNorm is of a batch that is spread over torch.distributed's processes.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(f"cpubn.torch needs torch, which cannot be imported: {error}; install it for the CPU") from error

from cpubn.torch.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d, SyncBatchNorm
from cpubn.torch.ranks import Ranks
from cpubn.torch.swap import convert, convert_sync_batchnorm, revert

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Ranks",
    "SyncBatchNorm",
    "convert",
    "convert_sync_batchnorm",
    "revert",
]
