"""HDF5 files, read in a process of their own: in a damaged one the C library can crash, or loop for ever.

The process is this file, run by its path: it imports NumPy and h5py alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from subprocess import PIPE
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Path: TypeAlias = tuple[str, ...]

SECONDS, MEMORY = 30, 8 << 30  # for one file
ALARM = -14  # what a process ends with whose time is over, where there are signals
OBJECTS, DEPTH = 200_000, 64  # groups and arrays that are looked at, within each other


@dataclass(frozen=True)
class Contents:
    """What a file holds, as far as it belongs to a Keras model."""

    config: str | None
    groups: dict[Path, str | None]  # with the name of the layer whose weights they hold, where it is said
    arrays: dict[Path, Vector]


@dataclass(frozen=True)
class Vector:
    layer: Path  # the group of the model's layer, where files say it
    shape: tuple[int, ...]
    values: NDArray[Any] | None  # None of what is no vector of floating numbers


def contents(paths: Sequence[str], most: int, seconds: int = SECONDS) -> Iterator[Contents | str]:
    """Of each file, or why it cannot be read.

    most : bytes of vectors that are taken from one; where there are more, that is why.
    seconds : for each.
    """
    if getattr(sys, "frozen", False):  # where the executable is no Python, but the program itself
        raise RuntimeError("HDF5 files are read by a second Python, which a frozen program does not have")
    left, late = list(paths), f"it took longer than {seconds} s"
    while left:
        command = [sys.executable, "-I", __file__, json.dumps([list(map(str, sys.path)), most, seconds])]
        with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
            given = "\0".join(left).encode(errors="surrogateescape")
            try:
                output, errors = process.communicate(given, timeout=(seconds + 5) * len(left))
                code = process.returncode
                end = (
                    late if code == ALARM else errors.decode(errors="replace").strip()[-200:] or f"it ended with {code}"
                )
            except subprocess.TimeoutExpired:
                process.kill()
                output, _ = process.communicate()
                end = late
        answers = list(_answers(output))
        yield from answers
        if len(answers) < len(left):
            yield f"the HDF5 library failed in it: {end}"
        left = left[len(answers) + 1 :]


def _answers(output: bytes) -> Iterator[Contents | str]:
    """What the other process wrote, as far as it came."""
    at = 0
    while at + 16 <= len(output):
        size, data = (int.from_bytes(output[at + i : at + i + 8], "little") for i in (0, 8))
        start = at + 16 + size
        if len(output) < start + data:
            return
        answer = json.loads(output[at + 16 : start])
        at = start + data
        if isinstance(answer, str):
            yield answer
            continue
        yield Contents(
            answer["config"],
            {tuple(path): name for path, name in answer["groups"]},
            {
                tuple(path): Vector(
                    tuple(layer),
                    tuple(shape),
                    None if begin is None else np.frombuffer(output, dtype, shape[0], start + begin),
                )
                for path, layer, shape, dtype, begin in answer["arrays"]
            },
        )


def _main() -> None:
    sys.path[:], most, seconds = json.loads(sys.argv[1])
    paths = sys.stdin.buffer.read().decode(errors="surrogateescape").split("\0")
    try:
        import resource
        import signal

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        alarm = signal.alarm  # which ends the process, in a loop of C as well
    except (ImportError, AttributeError, ValueError, OSError):  # not on this system; the parent waits no longer
        alarm = int
    for path in paths:
        alarm(seconds)
        try:
            answer, data = _contents(path, most)
        except Exception as error:
            answer, data = f"{type(error).__name__}: {error}", b""
        text = json.dumps(answer).encode()
        for part in (len(text).to_bytes(8, "little"), len(data).to_bytes(8, "little"), text, data):
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
    alarm(0)
    os._exit(0)  # without h5py's own end


def _contents(path: str, most: int) -> tuple[Any, bytes]:
    """Only what the file itself holds: a link elsewhere could lead to any file, and a group can hold itself."""
    import h5py

    with h5py.File(path, "r") as file:
        config = file.attrs.get("model_config")
        config = config.decode() if isinstance(config, bytes) else config
        root = file.get("model_weights", file)
        groups: list[Any] = []
        arrays: list[Any] = []
        data = bytearray()
        branches: list[tuple[Path, Path, Any]] = [((), (), root)]
        while branches:
            here, layer, group = branches.pop()
            name = group.attrs.get("name")
            groups.append((here, name if isinstance(name, str) else None))
            for key in group:
                if len(groups) + len(arrays) > OBJECTS or len(here) > DEPTH:
                    raise ValueError(f"it must hold at most {OBJECTS} objects in {DEPTH} levels, got more")
                if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                    raise ValueError(f"it must hold its arrays itself, got a link at {'/'.join((*here, key))!r}")
                item = group[key]
                if isinstance(item, h5py.Group):
                    marked = not layer and any(name.startswith("weight_names") for name in item.attrs)
                    branches.append(((*here, key), (*here, key) if marked else layer, item))
                elif isinstance(item, h5py.Dataset):
                    arrays.append(((*here, key), layer, item.shape or (), *_taken(item, data, most)))
        return {"config": config if isinstance(config, str) else None, "groups": groups, "arrays": arrays}, bytes(data)


def _taken(array: Any, data: bytearray, most: int) -> tuple[str | None, int | None]:
    """The type of a vector of floating numbers, and where its bytes begin among all of them."""
    half = array.dtype.str == "|V2" and array.attrs.get("dtype") == "bfloat16"
    if array.ndim != 1 or array.is_virtual or array.external is not None or not (half or array.dtype.kind == "f"):
        return None, None
    if array.nbytes > most - len(data):
        raise ValueError(f"its vectors must take at most {most >> 20} MiB, got more at {array.name!r}")
    values = array[()]
    if half:
        values = (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    begin = len(data)
    data += values.tobytes()
    return values.dtype.str, begin


if __name__ == "__main__":
    _main()
