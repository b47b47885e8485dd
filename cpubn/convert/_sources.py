"""Where files come from: paths, optional libraries, and what to say of a file that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from cpubn.convert._content import KINDS, content_of

MOST = 1 << 28  # bytes that are unpacked of one file beyond its own size: vectors of channels are far from it


def file_path(path: Any) -> str:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a string or a path, got {type(path).__name__}; pass the name of the file")
    return os.fsdecode(path)


def library(name: str, way: str = 'pip install "cpubn[convert]"') -> Any:
    """A module of an optional library."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{name.partition('.')[0]} must be installed to read or write this format, got: {error}; {way}"
        ) from error


def no_other(path: str, *contents: str) -> None:
    """A file of another kind says which it is, and who reads it."""
    content = content_of(path)
    kind, reader = KINDS[content]
    if content not in contents and reader is not None:
        raise ValueError(
            f"{path} must be {KINDS[contents[0]][0]}, got {kind}; read it with cpubn.convert.{reader}, or any with read"
        )


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


@contextmanager
def content_errors(path: str) -> Iterator[None]:
    """Whatever a file holds that cannot be is a ValueError, a wrong type as well."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


class Allowance:
    """How much may still be unpacked of a file, which may say that it holds far more than it has bytes."""

    def __init__(self, size: int = MOST) -> None:
        self.left = size

    def take(self, size: int, what: str) -> None:
        self.left -= size
        if self.left < 0:
            raise ValueError(
                f"{what} and what was read before it take more than {MOST >> 20} MiB once unpacked, which no batch "
                "norms do"
            )
