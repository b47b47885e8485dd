"""The batch norms of a model, from torch's to these and back, by their class alone."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn

from cpubn.torch.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d, SyncBatchNorm

CLASSES = {nn.BatchNorm1d: BatchNorm1d, nn.BatchNorm2d: BatchNorm2d, nn.BatchNorm3d: BatchNorm3d}
BACK = {ours: theirs for theirs, ours in CLASSES.items()} | {SyncBatchNorm: nn.SyncBatchNorm}

M = TypeVar("M")


def convert(model: M) -> M:
    """Make the batch norms of a model cpubn's, in place.

    Only the class of a layer changes: parameters, buffers, hooks and what an optimizer holds of it stay.

    Parameters
    ----------
    model : a torch.nn.Module
        Layers of other classes, such as subclasses of your own and SyncBatchNorm, are left alone.

    Returns
    -------
    The model.

    Raises
    ------
    TypeError : it is no module.

    Examples
    --------
    >>> import torch, cpubn.torch
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
    >>> cpubn.torch.convert(model)[1].__class__.__module__
    'cpubn.torch.modules'
    """
    for module in _modules(model):
        if type(module) in CLASSES:
            module.__class__ = CLASSES[type(module)]
    return model


def revert(model: M) -> M:
    """Make the batch norms of a model torch's own again, in place.

    Parameters
    ----------
    model : a torch.nn.Module.

    Returns
    -------
    The model.

    Raises
    ------
    ValueError : with nothing changed, where one of them has an activation, which torch's have not.
    TypeError : it is no module.

    Examples
    --------
    >>> import torch, cpubn.torch
    >>> model = torch.nn.Sequential(cpubn.torch.BatchNorm2d(8))
    >>> type(cpubn.torch.revert(model)[0])
    <class 'torch.nn.modules.batchnorm.BatchNorm2d'>
    """
    ours = [module for module in _modules(model) if type(module) in BACK]
    for module in ours:
        if module.activation is not None:
            raise ValueError(
                f"layers must have no activation to become torch's, got one with {module.activation!r}; "
                "set its activation to None, and let a module of torch's follow"
            )
    for module in ours:
        vars(module).pop("activation", None)
        module.__class__ = BACK[type(module)]
    return model


def convert_sync_batchnorm(module: M, process_group: Any = None) -> M:
    """Make all batch norms of a model SyncBatchNorm, in place, as torch.nn.SyncBatchNorm.convert_sync_batchnorm.

    Only a layer's class changes: parameters, buffers, hooks, what an optimizer holds of it, a fused activation stay.

    Parameters
    ----------
    module : a torch.nn.Module, whose norms are torch's, cpubn's, or of subclasses of them.
    process_group : as of SyncBatchNorm.

    Returns
    -------
    The module.

    Raises
    ------
    TypeError : it is no module.
    ValueError : a layer does not know its channels yet.

    Examples
    --------
    >>> import torch, cpubn.torch
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
    >>> type(cpubn.torch.convert_sync_batchnorm(model)[1]).__name__
    'SyncBatchNorm'
    """
    norms = [m for m in _modules(module) if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        if isinstance(norm, nn.modules.lazy.LazyModuleMixin):
            raise ValueError(
                f"batch norms must know their channels, got {type(norm).__name__}; call the model once before"
            )
    for norm in norms:
        norm.__class__ = SyncBatchNorm
        norm.process_group = process_group
    return module


def _modules(model: Any) -> list[Any]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}; pass the model itself")
    return list(model.modules())
