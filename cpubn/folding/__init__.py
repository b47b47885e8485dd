"""Batch norm of inference as part of the convolution or matrix before or after it, and a look whether that is right."""

from cpubn.folding.fold import fold_conv, fold_into_next_conv, fold_into_next_linear, fold_linear
from cpubn.folding.padding import surround
from cpubn.folding.verify import verify_fold

__all__ = ["fold_conv", "fold_into_next_conv", "fold_into_next_linear", "fold_linear", "surround", "verify_fold"]
