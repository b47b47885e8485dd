"""Where files come from: optional libraries, and what to say of a file that is another kind or holds what cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from cpubn.convert._content import KINDS, content_of


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
def content_errors(path: str) -> Iterator[None]:
    """Whatever a file holds that cannot be is a ValueError, a wrong type as well."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
