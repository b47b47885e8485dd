"""How a walk (outer, channel, inner) is shared out to blocks of threads: a function of its shape alone.

A block has the samples of a few neighbouring channels, of each a chunk: samples from k * size on, counted along outer
and inner. The lanes of a channel take them in turn, so that neighbours in a block read neighbours in memory. Since no
figure of the device enters, and chunks are merged in a fixed order, the bits are the same on every run.
"""

from typing import NamedTuple

# Threads of a block, and of one that merges the chunks of a channel. Both are read when a kernel is compiled.
THREADS = 256
MERGERS = 32
# Elements that a thread asks for before it uses the first: one load at a time would leave memory waiting.
UNROLL = 4
# Lanes that read side by side: a warp.
SIDE_BY_SIDE = 32
# Samples of a lane where nothing is summed, and at the least where something is.
SAMPLES = 16
# Blocks that sum, where there are samples enough: several for every multiprocessor of the largest devices.
BLOCKS = 2048
# Chunks of a channel at the most: the merge takes them MERGERS at a time.
CHUNKS = 512


class Tile(NamedTuple):
    """Thread t of a block has channel t // run % wide of the block's, and lane t // (run * wide) * run + t % run."""

    channels: int
    inner: int
    samples: int  # of a channel
    wide: int  # channels of a block
    run: int  # neighbouring threads of one channel
    lanes: int  # threads of one channel
    tiles: int  # blocks from the first channel to the last
    size: int  # samples of a chunk
    chunks: int

    @property
    def blocks(self) -> int:
        return self.tiles * self.chunks


def tile_of(shape: tuple[int, int, int], sums: bool) -> Tile:
    outer, channels, inner = shape
    samples, side = outer * inner, min(SIDE_BY_SIDE, THREADS)
    if inner >= side:
        wide, run = 1, THREADS
    else:
        wide, run = side // inner, inner
        wide = -(-channels // -(-channels // wide))  # evenly
    tiles, lanes = -(-channels // wide), THREADS // (wide * run) * run
    chunks = -(-samples // (lanes * SAMPLES))
    if sums:
        chunks = max(1, min(chunks, BLOCKS // tiles, CHUNKS))
    size = -(-samples // chunks)
    return Tile(channels, inner, samples, wide, run, lanes, tiles, size, -(-samples // size))
