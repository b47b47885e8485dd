"""What the ranks of a layer tell each other: one allgather a pass, in which an error travels as well.

A rank sends the pass, the number of channels, whether it failed, its count, and its vectors; or, if it failed, what the
error says. So either all ranks have the same numbers, or all raise. Text is sent as whole numbers of six bytes each,
which any transport of float64 keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cpubn.backends import host, register
from cpubn.typing import Array, Communicator, Vector

PASS, CHANNELS, FAILED, COUNT, HEADER = range(5)
ROWS = {"forward": 3, "backward": 2}  # vectors that a rank sends: mean, low word and m2; the two sums of gradients
CODES = dict(enumerate(ROWS))
# Numbers that a rank sends at least, so that there is room for what an error says.
ROOM, BYTES = 64, 6


def communicator(comm: Any) -> Communicator | None:
    """None, or an object with a method `allgather`."""
    if comm is not None and not callable(getattr(comm, "allgather", None)):
        raise TypeError(
            f"comm must have a method allgather(array), got {type(comm).__name__}; pass cpubn.mpi.world(), for example"
        )
    return comm  # type: ignore[no-any-return]


def exchanged(
    comm: Communicator, name: str, channels: int, own: Callable[[], tuple[float, Any]]
) -> tuple[Vector, Array]:
    """Counts (ranks,), and vectors (ranks, rows, C) of all ranks; own: makes this rank's.

    Where `own` raises, that goes on from here on its rank, and the others raise RuntimeError.
    """
    rows = ROWS[name]
    sent, failure = np.zeros(HEADER + max(rows * channels, ROOM)), None
    sent[PASS], sent[CHANNELS] = list(ROWS).index(name), channels
    try:
        sent[COUNT], vectors = own()
        sent[HEADER : HEADER + rows * channels] = np.ravel(vectors)
    except BaseException as error:  # an interrupt, too, would leave the other ranks waiting
        sent[FAILED], failure = 1.0, error
        sent[HEADER:] = _packed(f"{type(error).__name__}: {error}", sent.size - HEADER)
    try:
        got = _received(comm.allgather(sent), sent)
    except Exception:
        if failure is None:
            raise
    if failure is not None:
        raise failure
    _check_header(got)
    return got[:, COUNT], got[:, HEADER : HEADER + rows * channels].reshape(-1, rows, channels)


@register.calm()
def merged(counts: Vector, stats: Array) -> tuple[int, Array]:
    """Count and stats (3, C), mean, its low word and m2, of all ranks' counts (ranks,) and stats (ranks, 3, C).

    In the order of ranks, so that all have the same bits, run after run.
    """
    total, whole = 0, np.zeros(stats.shape[1:])
    for count, own in zip(map(int, counts), stats, strict=True):
        if count:
            whole = np.array(host.merge(total, tuple(whole), count, tuple(own)) if total else own)
            total += count
    return total, whole


def enough(total: int) -> None:
    """Values of all ranks for statistics of their own; of none, there is nothing to normalize."""
    if total == 1:
        raise ValueError(
            "the batch's own statistics need more than 1 value per channel, got 1 on all ranks together; "
            "pass a larger batch, or call eval() on the layer first"
        )


@register.calm()
def summed(vectors: Array) -> Array:
    """The sum over ranks of (ranks, rows, C), in their order."""
    total = np.zeros(vectors.shape[1:])
    with np.errstate(all="ignore"):
        for own in vectors:
            total += own
    return total


def _received(rows: Any, sent: Vector) -> Array:
    """What allgather gave, (ranks, numbers)."""
    shapes = sorted({np.shape(row) for row in rows})
    if shapes != [sent.shape]:
        raise ValueError(
            f"allgather must give a row of shape {sent.shape} of every rank, got "
            f"{', '.join(map(str, shapes)) or 'none'}; build the layer alike on all ranks, and call layers in one order"
        )
    return np.array(rows, dtype=np.float64)


def _check_header(got: Array) -> None:
    """That all ranks were in one pass of one layer, and that none failed."""
    if (got[:, : CHANNELS + 1] != got[0, : CHANNELS + 1]).any():
        each = (f"{CODES.get(code, 'another call')} of {n:g} channels" for code, n in got[:, : CHANNELS + 1])
        ranks = "; ".join(f"{text} on rank {rank}" for rank, text in enumerate(each))
        raise RuntimeError(
            f"all ranks must be in the same pass of the same layer, got {ranks}; call layers in one order on all ranks"
        )
    if got[:, FAILED].any():
        rank = int(got[:, FAILED].argmax())
        text = _unpacked(got[rank, HEADER:])
        raise RuntimeError(f"every rank must get through, got an error on rank {rank}: {text}; mend it there")


def _packed(text: str, size: int) -> Vector:
    """As much of it as `size` numbers take."""
    raw = text.encode()[: size * BYTES].ljust(size * BYTES, b"\0")
    return np.array([int.from_bytes(raw[k : k + BYTES], "big") for k in range(0, len(raw), BYTES)], np.float64)


def _unpacked(numbers: Vector) -> str:
    raw = b"".join(int(number).to_bytes(BYTES, "big") for number in numbers)
    return raw.rstrip(b"\0").decode(errors="ignore")
