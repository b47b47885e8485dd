"""Data in batches, from the first or a later one on: arrays that are sliced, files of .npy, and iterables."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sized
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cpubn.recalibration.watch import Seen, Watch


def digest_of(batch: Any) -> str:
    """By which a batch is known again: of what arrays are in it."""
    seen = hashlib.blake2b(digest_size=16)
    left = [batch]
    while left:
        found = left.pop()
        if isinstance(found, Mapping):
            left += [*found.values()]
        elif isinstance(found, list | tuple):
            left += found
        else:
            try:
                array = np.asarray(found)
                content = b"" if array.dtype.hasobject else array.tobytes()
            except Exception:  # what makes no array is known by its type alone
                array, content = np.empty(0), type(found).__name__.encode()
            seen.update(f"{array.shape} {array.dtype}".encode() + content)
    return seen.hexdigest()


def noted(watch: Watch, batch: Any, digests: bool) -> tuple[str, Seen]:
    """What layers see of a batch, behind its digest where that is wanted."""
    digest = digest_of(batch) if digests else ""  # before the network, which may write to it
    return digest, watch.of(batch)


def in_turn(watch: Watch, batches: Iterator[Any], digests: bool) -> Generator[tuple[str, Seen]]:
    for batch in batches:
        yield noted(watch, batch, digests)


class Batches(NamedTuple):
    start: Callable[[int], Iterator[Any]]  # those from that number on
    total: int | None  # how many, where that is known
    again: bool  # whether they can be gone through more than once
    digest: Callable[[Any], str] = digest_of
    # What layers see of each, in their order: `noted`, here or elsewhere.
    through: Callable[[Watch, Iterator[Any], bool], Generator[tuple[str, Seen]]] = in_turn


def batches_of(given: Any, size: int) -> Batches:
    """Of an array, whatever has a shape and slices, or of files, `size` samples each; of others as they come."""
    if isinstance(given, str | os.PathLike):
        return _slices([(partial(_open, path), _open(path)) for path in _files(Path(given))], size)
    if hasattr(given, "shape") and hasattr(given, "__getitem__"):
        if not len(given.shape):
            raise ValueError(
                "batches must have a batch axis where it is an array, got one of no dimensions; pass (N, ...)"
            )
        return _slices([(lambda: given, given)], size)
    if callable(given):
        return Batches(lambda first: islice(iter(given()), first, None), None, True)
    if not isinstance(given, Iterable):
        raise TypeError(
            f"batches must be an array, a folder of .npy files, an iterable or a function that makes one, got "
            f"{type(given).__name__}; pass for example a list of arrays"
        )
    total = len(given) if isinstance(given, Sized) else None
    return Batches(lambda first: islice(iter(given), first, None), total, not isinstance(given, Iterator))


def _slices(sources: list[tuple[Callable[[], Any], Any]], size: int) -> Batches:
    """Of arrays that are opened when their turn comes, so that one at a time is."""
    counts = [-(-array.shape[0] // size) for _, array in sources]
    openers = [opener for opener, _ in sources]

    def start(first: int) -> Iterator[Any]:
        for opener, count in zip(openers, counts, strict=True):
            array = opener() if first < count else None
            for k in range(first, count):
                yield np.asarray(array[k * size : (k + 1) * size])  # type: ignore[index]
            first = max(0, first - count)

    return Batches(start, sum(counts), True)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(path.glob("*.npy"))
        if not found:
            raise ValueError(
                f"{path} must hold .npy files, got a folder without any; np.save each part of the data there"
            )
        shapes = {file: _open(file).shape[1:] for file in found}
        for file, shape in shapes.items():
            if shape != shapes[found[0]]:
                raise ValueError(
                    f"{file} must hold samples of shape {shapes[found[0]]} like {found[0].name}, got {shape}; "
                    "keep only files of one data set in the folder"
                )
        return found
    return [path]


def _open(path: Path) -> Any:
    """Of a file that is not trusted: read where it is sliced, without pickle."""
    with open(path, "rb"):  # a missing file says so by itself
        pass
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray) or not array.ndim:
            raise ValueError("no array with a batch axis")
    except Exception as error:
        raise ValueError(
            f"{path} must be a .npy file of samples, got one that cannot be read ({type(error).__name__}: {error}); "
            "write it again with np.save"
        ) from error
    return array
