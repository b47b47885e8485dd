"""Where files come from: paths, optional libraries, and what to say of a file that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any


def file_path(path: Any) -> str:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a string or a path, got {type(path).__name__}; pass the name of the file")
    return os.fsdecode(path)


def library(name: str) -> Any:
    """A module of an optional library."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{name.partition('.')[0]} must be installed to read or write this format, got: {error}; "
            'pip install "cpubn[convert]"'
        ) from error


@contextmanager
def reading(path: str, kind: str) -> Iterator[None]:
    """Whatever goes wrong in a file that can be opened is wrong with the file."""
    with open(path, "rb"):  # a missing file says so by itself
        pass
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{path} must be {kind}, got one that cannot be read ({type(error).__name__}: {error}); "
            "write or download it again"
        ) from error
