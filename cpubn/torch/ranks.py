"""Ranks of torch.distributed."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed as dist

from cpubn.typing import Vector


class Ranks:
    """The processes of a group of torch.distributed, as the `comm` of a layer; each of them makes one of these.

    Parameters
    ----------
    process_group : of a backend that takes tensors on the CPU, such as gloo; None for the one of all processes.

    Raises
    ------
    ValueError, RuntimeError : by allgather, as torch.distributed does, where there is no such group.

    Examples
    --------
    >>> import numpy as np, torch, cpubn.torch
    >>> torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    >>> cpubn.torch.Ranks().allgather(np.ones(3)).shape
    (1, 3)
    >>> torch.distributed.destroy_process_group()
    """

    def __init__(self, process_group: Any = None) -> None:
        self.process_group = process_group

    def allgather(self, values: Vector) -> Vector:
        """The arrays (n,) float64 of all ranks, (ranks, n); n must be the same on all of them."""
        got = torch.empty((dist.get_world_size(self.process_group), len(values)), dtype=torch.float64)
        dist.all_gather(list(got), torch.from_numpy(values), self.process_group)
        return got.numpy()  # type: ignore[no-any-return]
