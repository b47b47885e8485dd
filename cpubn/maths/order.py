"""The order of summation: a function of the walk's shape alone, which is why every thread count gives the same bits.

A channel of a walk (outer, channel, inner) is summed in lanes, 32 of float32 or 16 of float64, and in chunks of about
CHUNK samples; chunks are added up in turn into spans, and at most SPANS spans, in turn, into the channel. Spans are
what threads share out where there are fewer channels than threads.

Long inner runs are rows: 32 samples of one channel are added to the lanes at once. Shorter ones are columns: lanes are
neighbours of one outer row, of several channels, and rows of few columns are laid end to end until there are enough.
"""

from typing import NamedTuple

# Samples of a chunk: so many bound the error of float64 lanes, and are enough for a thread to sum at once.
CHUNK = 65536
# Rows of a chunk where channels are columns: enough to hide the fold behind the sums, few enough to share out.
TALL = 1024
# Several such chunks are cut to a multiple of so many, about equally high, for threads to share evenly: (3136, 256, 1)
# has 4 of 784 rows, and not 3 of 1024 and one of 64, which took 1.25 times as long on two threads.
EVEN = 4
# Inner runs shorter than the lanes are columns; so are short ones of several outer rows, which lie far apart: channel
# by channel, (32, 2048, 49) took 3 times as long.
SHORT, FEW_ROWS, LANES = 256, 8, 32
# Rows of fewer columns are laid end to end.
WIDE = 256
# 64 spans of 16 bytes a channel are half of the 2 KB that a call may take beside its output.
SPANS = 64


class Order(NamedTuple):
    """Chunk k is piece k % pieces of the inner runs of level k // pieces; n parts of m are cut at m * i // n."""

    columns: bool  # channel * inner are columns; otherwise each inner run is a row
    together: int  # outer rows laid end to end; the last of these rows may be shorter
    levels: int  # parts of the outer rows, of columns as they were laid together
    pieces: int  # parts of an inner run
    chunks: int  # of a channel
    span: int  # chunks of a span
    spans: int  # of a channel


def order_of(outer: int, channels: int, inner: int) -> Order:
    columns = inner < LANES or (inner < SHORT and outer >= FEW_ROWS)
    together = min(outer, max(1, WIDE // (channels * inner))) if columns else 1
    rows, pieces = -(-outer // together), 1
    if columns:
        levels = -(-rows // max(1, min(TALL, CHUNK // (together * inner))))
        if levels > 1:
            levels = min(rows, -(-levels // EVEN) * EVEN)
    else:
        pieces = -(-inner // CHUNK)
        levels = -(-rows // max(1, CHUNK // inner))
    chunks = levels * pieces
    span = -(-chunks // SPANS)
    return Order(columns, together, levels, pieces, chunks, span, -(-chunks // span))
