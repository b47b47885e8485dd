"""The order of summation: a function of the walk's shape alone, which is why every thread count gives the same bits.

A channel of a walk (outer, channel, inner) is cut into chunks of at most CHUNK samples, each summed about a pivot of
its own; chunks are merged in turn into spans, and at most SPANS spans, in turn, into the channel. Spans are what
threads share out where there are fewer channels than threads.
"""

from typing import NamedTuple

# Samples of a channel about one pivot, which as a sample bounds the cancellation: (mean - pivot)**2 <= CHUNK * var.
CHUNK = 65536
# Rows of a chunk where channels are columns: enough to hide the merge behind the sums, few enough to share out.
TALL = 1024
# Several such chunks are cut to a multiple of so many, about equally high, for threads to share evenly: (3136, 256, 1)
# has 4 of 784 rows, and not 3 of 1024 and one of 64, which took 1.25 times as long on two threads.
EVEN = 4
# Inner runs shorter than this are summed as columns (outer, channel * inner) and folded: as rows they drown in tails.
SHORT = 320
# 64 spans of 32 bytes a channel are the 2 KB that a call may take beside its output.
SPANS = 64


class Order(NamedTuple):
    """Chunk k covers outer rows [k // pieces * rows, ...) and inner elements [k % pieces * piece, ...)."""

    columns: bool  # channel * inner are summed as columns; otherwise each inner run as a row
    rows: int  # outer rows of a chunk
    piece: int  # inner elements of a chunk
    pieces: int  # chunks across one inner run
    chunks: int  # chunks of a channel
    span: int  # chunks of a span
    spans: int  # spans of a channel


def order_of(outer: int, inner: int) -> Order:
    columns = inner < SHORT
    piece = min(inner, CHUNK)
    pieces = -(-inner // piece)
    rows = CHUNK // inner if inner < CHUNK else 1
    if columns:
        rows = min(rows, TALL)
        if rows < outer:
            chunks = -(-outer // (EVEN * rows)) * EVEN
            rows = -(-outer // chunks)
    chunks = -(-outer // rows) * pieces
    span = -(-chunks // SPANS)
    return Order(columns, rows, piece, pieces, chunks, span, -(-chunks // span))
