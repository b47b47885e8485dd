"""Memory for results. Small blocks are used again by their stream: giving them back to CUDA would wait for the GPU.

Work on a stream runs in turn, so that what is launched after a block was let go of cannot disturb what was before.
"""

from typing import Any

from cpubn.kernels import _cuda_target

# Vectors of some thousand channels. Larger results are few, and what is kept of them would be missed elsewhere.
SMALL = 1 << 16
LEAST = 256

_unused: dict[tuple[int, int, int], list[tuple[Any, int]]] = {}


class Block:
    """Who lets go of it hands it to the next one on the same stream."""

    __slots__ = ("address", "kept", "key", "memory")

    def __init__(self, size: int, device: int, stream: int) -> None:
        self.key = size, device, stream
        self.kept = _unused.setdefault(self.key, [])
        try:
            self.memory, self.address = self.kept.pop()
        except IndexError:
            self.memory, self.address = _cuda_target.new(size, device)

    def __del__(self) -> None:
        if hasattr(self, "address"):  # else there was no memory left
            self.kept.append((self.memory, self.address))


def take(size: int, device: int, stream: int) -> tuple[Any, int]:
    """The owner of at least so many bytes, and their address."""
    if size > SMALL:
        return _cuda_target.new(size, device)
    block = Block(max(LEAST, 1 << (size - 1).bit_length()), device, stream)
    return block, block.address
