"""Memory for results. Small blocks are used again by their stream: giving them back to CUDA would wait for the GPU.

Work on a stream runs in turn, so that what is launched after a block was let go of cannot disturb what was before.
"""

from typing import Any

from cpubn.backends.gpu import target as _cuda_target

# Vectors of some thousand channels. Larger results are few, and what is kept of them would be missed elsewhere.
SMALL = 1 << 16
LEAST = 256

# Blocks that there may be before one that is let go of is given back: some for each stream.
MOST = 4096

_unused: dict[tuple[int, int, int], list[int]] = {}
# By address. Not in the block: what dies with it in a cycle of references is freed before the block knows.
_memory: dict[int, Any] = {}


class Block:
    """Who lets go of it hands it to the next one on the same stream."""

    __slots__ = ("address", "key")

    def __init__(self, size: int, device: int, stream: int) -> None:
        self.key = size, device, stream
        try:
            self.address = _unused.setdefault(self.key, []).pop()
        except IndexError:
            memory, self.address = _cuda_target.new(size, device)
            _memory[self.address] = memory

    @property
    def memory(self) -> Any:
        return _memory[self.address]

    def __del__(
        self, memory: Any = _memory, unused: Any = _unused, most: int = MOST
    ) -> None:  # at exit globals are gone
        if not hasattr(self, "address"):  # there was no memory left
            return
        if len(memory) <= most:
            unused[self.key].append(self.address)
        else:
            del memory[self.address]


def take(size: int, device: int, stream: int) -> tuple[Any, int]:
    """The owner of at least so many bytes, and their address."""
    if size > SMALL:
        return _cuda_target.new(size, device)
    block = Block(max(LEAST, 1 << (size - 1).bit_length()), device, stream)
    return block, block.address
