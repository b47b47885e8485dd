"""Where a thread stands in a walk, and how it goes on: the device's side of tiles.py."""

from typing import TypeAlias

from cpubn.backends.gpu.target import Value, device

Numbers: TypeAlias = tuple[int, ...]  # of a Tile, whose names a kernel does not know
Place: TypeAlias = tuple[int, int, int, int]  # the first element, and the steps along the walk


@device
def lesser(a: Value, b: Value) -> Value:
    return a if a < b else b


@device
def larger(a: Value, b: Value) -> Value:
    """Of a and NaN: a."""
    return b if b > a else a


@device
def channel_of(tile: Numbers, thread: int, block: int) -> tuple[int, int]:
    """The channel's place in the block, and the channel, which may lie beyond the last."""
    wide, run, tiles = tile[3], tile[4], tile[6]
    column = thread // run % wide
    return column, block % tiles * wide + column


@device
def share_of(tile: Numbers, thread: int, block: int) -> tuple[int, int, int]:
    """The lane, the first sample of the block's chunk, and how many samples of it are the lane's."""
    channels, samples, wide, run, lanes, tiles, size = tile[0], tile[2], tile[3], tile[4], tile[5], tile[6], tile[7]
    lane = thread // (run * wide) * run + thread % run
    start = block // tiles * size
    left = lesser(size, samples - start) - lane
    _, channel = channel_of(tile, thread, block)
    return lane, start, (left + lanes - 1) // lanes if left > 0 and lane < lanes and channel < channels else 0


@device
def offset_of(place: Place, tile: Numbers, channel: int, sample: int) -> int:
    """Where in an array's flat memory a sample of a channel lies; place: its start and its steps along the walk."""
    start, outer_step, channel_step, inner_step = place
    inner = tile[1]
    return start + sample // inner * outer_step + channel * channel_step + sample % inner * inner_step


@device
def steps_of(place: Place, tile: Numbers) -> tuple[int, int]:
    """From one sample of a lane to its next, and what is added to that beyond the end of an inner run."""
    _, outer_step, _, inner_step = place
    inner, lanes = tile[1], tile[5]
    return lanes // inner * outer_step + lanes % inner * inner_step, outer_step - inner * inner_step


@device
def offsets_of(j: int, shape: Numbers, first: Numbers, second: Numbers) -> tuple[int, int]:
    """Where element j, in C order, of an array of 5 axes lies in two of that shape, by their steps."""
    rest, in_first, in_second = j, 0, 0
    for axis in range(5):
        along = rest % shape[4 - axis]
        rest //= shape[4 - axis]
        in_first += along * first[4 - axis]
        in_second += along * second[4 - axis]
    return in_first, in_second
