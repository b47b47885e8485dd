"""Layers like torch.nn's: what they compute, the vectors that they own, and what they keep for backward."""

from cpubn.layers.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d"]
