"""Files: read without trust, whatever they hold, and written whole or not at all."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from cpubn.typing import Array

MOST = 1 << 28  # bytes that are unpacked of one file beyond its own size: vectors of channels are far from it
ARCHIVE = "an .npz archive of arrays"
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # as NumPy writes them


def file_path(path: Any) -> str:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a string or a path, got {type(path).__name__}; pass the name of the file")
    return os.fsdecode(path)


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
def holding(path: Any, kind: str, cure: str = "") -> Iterator[None]:
    """Whatever a file holds that cannot be is a ValueError that names it; cure: what to do, if the error has none."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{path} must be {kind}, but {error}{cure}") from error


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


@contextmanager
def archive_of(path: str) -> Iterator[tuple[list[str], Callable[[str], Array]]]:
    """The names of what is in an .npz file, and a function that reads one of them, without pickle."""
    allowance = Allowance()
    with reading(path, ARCHIVE):
        archive = zipfile.ZipFile(path)
    with archive:
        with reading(path, ARCHIVE):
            for member in archive.infolist():
                archive.open(member).close()  # compares the two places where its name stands
        keys = [name.removesuffix(".npy") for name in archive.namelist()]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"{path} must hold each array once, got {twice!r} twice; write it again")

        def take(key: str) -> Array:
            with reading(path, ARCHIVE):
                entry = archive.getinfo(f"{key}.npy")
                allowance.take(entry.file_size, key)
                if entry.compress_type not in PACKED:
                    raise ValueError(f"{key} is compressed in a way that NumPy does not write")
                stream = io.BytesIO(archive.read(entry))  # whole, so that its checksum is compared
                array: Array = np.lib.format.read_array(stream, allow_pickle=False)
                if stream.read(1):
                    raise ValueError(f"{key} is longer than its shape {array.shape}")
            return array

        yield keys, take


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of what is there once it is whole."""
    path = os.path.realpath(path)  # a link stays one
    folder, name = os.path.split(path)
    handle, part = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
    try:
        with open(handle, "wb") as file:
            yield file
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(part, 0o666 & ~umask)  # as any new file has it
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


def write_archive(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """An .npz file of exactly that name, the whole of it or none."""
    with writing(file_path(path)) as file:  # given a name, NumPy would add to it
        np.savez(file, allow_pickle=False, **arrays)
