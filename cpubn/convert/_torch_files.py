"""torch.save's files, read by torch.load, which takes nothing from them but numbers and containers."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from cpubn.ask.files import MOST, Allowance, reading
from cpubn.convert._content import KINDS, SCRIPT, TORCH, content_of
from cpubn.convert._sources import library, no_other
from cpubn.typing import Array

WAY = "pip install torch"
ENTRIES, DEPTH = 1_000_000, 32  # of mappings within mappings


def load(path: str) -> Any:
    """What torch.save was given."""
    no_other(path, TORCH, SCRIPT)
    torch = library("torch", WAY)
    if content_of(path) == SCRIPT:
        raise ValueError(
            f"{path} must be a file of torch.save, got a TorchScript program; if you trust it, pass the module "
            "torch.jit.load(path), or save its state_dict()"
        )
    with reading(path, KINDS[TORCH][0]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how old files and types are
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                allowance = Allowance(os.path.getsize(path) + MOST)
                for entry in archive.infolist():
                    allowance.take(entry.file_size, entry.filename)
        return torch.load(path, map_location="cpu", weights_only=True)


def flat(state: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in mappings within mappings, as in a checkpoint, by its keys joined by dots."""
    leaves: dict[str, Any] = {}
    branches: list[tuple[str, Mapping[Any, Any], int]] = [("", state, 0)]
    seen = 0
    while branches:
        prefix, branch, depth = branches.pop()
        inner = []
        for key, value in branch.items():
            seen += 1
            if seen > ENTRIES or depth > DEPTH:
                raise ValueError(
                    f"a torch state_dict must hold at most {ENTRIES} entries, in mappings of at most {DEPTH} levels, "
                    "got more; pass the part of it that is the model"
                )
            if isinstance(value, Mapping):
                inner.append((f"{prefix}{key}.", value, depth + 1))
            else:
                leaves[f"{prefix}{key}"] = value
        branches += reversed(inner)
    return leaves


def as_tensor(array: Array) -> Any:
    """A tensor of the array's own memory."""
    torch = library("torch", WAY)
    if array.dtype.name == "bfloat16":  # which torch does not take from NumPy
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)
