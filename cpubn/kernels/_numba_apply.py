"""The results of the Numba backend: y and dx from coefficients, and how threads share out sums and results."""
# mypy: allow-untyped-defs, allow-untyped-calls

import numpy as np
from numba import prange

from cpubn import _algebra
from cpubn.kernels._numba_jit import compiled, identity, inlined, u
from cpubn.kernels._numba_sums import add_span, lay_out, put_spans

# Columns whose coefficients are laid out side by side; of narrower rows several are applied at once.
COLUMNS = 1024
# Of so few rows, runs at least so long are applied one after the other: their coefficients are not worth laying out.
FEW_ROWS, LONG_RUN = 4, 16
# What is applied to each normalized value, by (z, low, high). _numba_compile makes modules of this source with others;
# an argument would be called through a pointer, for which Numba keeps no machine code on disk.
activate = globals().get("activate", identity)
# What a job is made of: the sums of every span; their sum in turn; the coefficients from it; y.
SPANS, SUMS, COEFFICIENTS, APPLY = 1, 2, 4, 8


@compiled
def plus(z, residual, at, j):
    """z + residual[j]; z itself where the residual is ()."""
    return z if len(residual) == 0 else z + residual.flat[u(at) + j * u(residual.step)]


@inlined
def forward_run(x, x_at, residual, residual_at, limits, y, y_at, n, centre, scale, shift):
    """y[j] = activate((x[j] - centre) * scale + shift + residual[j]), for one channel.

    x, residual, y (n,) real; the coefficients real, or float64 where real cannot hold them.
    No copy where y is x: LLVM then takes the loop without vectors, which still keeps up with memory.
    Reads n elements of x and of the residual, writes n of y.
    """
    x_flat, y_flat, real = x.flat, y.flat, y.flat.dtype.type
    x_at, x_step, y_at, y_step = u(x_at), u(x.step), u(y_at), u(y.step)
    for element in range(n):
        j = u(element)
        z = real((x_flat[x_at + j * x_step] - centre) * scale + shift)
        y_flat[y_at + j * y_step] = activate(plus(z, residual, residual_at, j), limits[0], limits[1])


@inlined
def forward_columns(x, x_at, residual, residual_at, limits, y, y_at, n, v, at, columns):
    """y[j] = activate((x[j] - centre[j]) * scale[j] + shift[j] + residual[j]), for columns from `at` on.

    x, residual, y (n,) real; v (3 * columns,) real: centre, scale, shift.
    Coefficients laid out beforehand, not one channel after another: a channel may be a single column.
    Reads n elements of x and of the residual, writes n of y.
    """
    x_flat, y_flat = x.flat, y.flat
    x_at, x_step, y_at, y_step = u(x_at), u(x.step), u(y_at), u(y.step)
    centre, scale, shift = u(at), u(at + columns), u(at + 2 * columns)
    for element in range(n):
        j = u(element)
        z = (x_flat[x_at + j * x_step] - v[centre + j]) * v[scale + j] + v[shift + j]
        y_flat[y_at + j * y_step] = activate(plus(z, residual, residual_at, j), limits[0], limits[1])


@inlined
def backward_run(dy, dy_at, x, x_at, dx, dx_at, n, centre, r, s, k, scale):
    """dx[j] = scale * ((dy[j] - k) - ((x[j] - centre) * r) * s), for one channel.

    dy, x, dx (n,) real; the coefficients as in `forward_run`.
    In this order: r * s * scale, taken out of the loop, may underflow.
    Reads n elements of dy and of x, writes n of dx.
    """
    dy_flat, x_flat, dx_flat = dy.flat, x.flat, dx.flat
    dy_at, dy_step, x_at, x_step, dx_at, dx_step = u(dy_at), u(dy.step), u(x_at), u(x.step), u(dx_at), u(dx.step)
    for element in range(n):
        j = u(element)
        x_hat = (x_flat[x_at + j * x_step] - centre) * r
        dx_flat[dx_at + j * dx_step] = scale * ((dy_flat[dy_at + j * dy_step] - k) - x_hat * s)


@inlined
def backward_columns(dy, dy_at, x, x_at, dx, dx_at, n, v, at, columns):
    """dx[j] = scale[j] * ((dy[j] - k[j]) - ((x[j] - centre[j]) * r[j]) * s[j]), for columns from `at` on.

    dy, x, dx (n,) real; v (5 * columns,) real: centre, r, s, k, scale.
    In this order, as in `backward_run`.
    Reads n elements of dy and of x, writes n of dx.
    """
    dy_flat, x_flat, dx_flat = dy.flat, x.flat, dx.flat
    dy_at, dy_step, x_at, x_step, dx_at, dx_step = u(dy_at), u(dy.step), u(x_at), u(x.step), u(dx_at), u(dx.step)
    centre, r, s = u(at), u(at + columns), u(at + 2 * columns)
    k, scale = u(at + 3 * columns), u(at + 4 * columns)
    for element in range(n):
        j = u(element)
        x_hat = (x_flat[x_at + j * x_step] - v[centre + j]) * v[r + j]
        dx_flat[dx_at + j * dx_step] = v[scale + j] * ((dy_flat[dy_at + j * dy_step] - v[k + j]) - x_hat * v[s + j])


@compiled
def is_wide(dy, v, at, each):
    """Whether float32 would overflow or lose digits with the coefficients v[at], v[at + each] and so on."""
    if len(dy) == 0:
        return _algebra.forward_is_wide(v[at], v[at + each], v[at + 2 * each])
    return _algebra.backward_is_wide(v[at], v[at + each], v[at + 2 * each], v[at + 3 * each], v[at + 4 * each])


@compiled
def place_of(view, o, c):
    """Where in its flat memory a view, or (), has its first element of channel c in outer row o."""
    return 0 if len(view) == 0 else view.start + o * view.outer + c * view.channel


@compiled
def apply_run(dy, x, residual, limits, y, o, c, n, v, at, each):
    """n elements of channel c in outer row o, with the coefficients v[at], v[at + each] and so on.

    In v's type where that is the wider one.
    """
    x_at, y_at = x.start + o * x.outer + c * x.channel, y.start + o * y.outer + c * y.channel
    if len(dy) == 0:
        place = place_of(residual, o, c)
        centre, scale, shift = v[at], v[at + each], v[at + 2 * each]
        forward_run(x, x_at, residual, place, limits, y, y_at, n, centre, scale, shift)
    else:
        dy_at = dy.start + o * dy.outer + c * dy.channel
        r, s, k, scale = v[at + each], v[at + 2 * each], v[at + 3 * each], v[at + 4 * each]
        backward_run(dy, dy_at, x, x_at, y, y_at, n, v[at], r, s, k, scale)


@compiled
def apply_columns(dy, x, residual, limits, y, o, c, n, v, at, columns):
    """n columns from outer row o and channel c on, with the coefficients v from `at` on."""
    x_at, y_at = x.start + o * x.outer + c * x.channel, y.start + o * y.outer + c * y.channel
    if len(dy) == 0:
        place = place_of(residual, o, c)
        forward_columns(x, x_at, residual, place, limits, y, y_at, n, v, at, columns)
    else:
        backward_columns(dy, dy.start + o * dy.outer + c * dy.channel, x, x_at, y, y_at, n, v, at, columns)


@compiled
def lie_end_to_end(dy, x, residual, y, width):
    """Whether the runs of consecutive outer rows, of that width, are one run."""
    return meets(x, width) and meets(y, width) and meets(dy, width) and meets(residual, width)


@compiled
def meets(view, width):
    return True if len(view) == 0 else view.outer == width * view.step


@inlined
def apply_block(dy, x, residual, limits, y, coefficients, walk, first, last, o_first, o_last, vectors):
    """y of outer rows o_first ... o_last and channels first ... last.

    coefficients (3 or 5 times C,) float64; vectors (3 or 5 times columns,) real, to lay them out column by column.
    """
    channels, inner, rows = walk.channels, walk.inner, o_last - o_first
    kinds = coefficients.size // channels
    width, columns, wide = (last - first) * inner, vectors.size // kinds, 0
    for c in range(first, last):
        wide += is_wide(dy, coefficients, c, channels)
    if not walk.columns or (rows < FEW_ROWS and inner >= LONG_RUN):
        for c in range(first, last):
            for kind in range(kinds):
                vectors[kind] = coefficients[c + kind * channels]
            for o in range(o_first, o_last):
                if wide > 0 and is_wide(dy, coefficients, c, channels):
                    apply_run(dy, x, residual, limits, y, o, c, inner, coefficients, c, channels)
                else:
                    apply_run(dy, x, residual, limits, y, o, c, inner, vectors, 0, 1)
    else:
        # Rows of columns that lie end to end are applied together, as many as there is room for.
        together = min(columns // width, rows) if wide == 0 and lie_end_to_end(dy, x, residual, y, width) else 1
        for kind in range(kinds):
            lay_out(coefficients, first + kind * channels, last - first, inner, vectors, kind * columns)
            for column in range(kind * columns + width, kind * columns + together * width):
                vectors[column] = vectors[column - width]
        for o in range(o_first, o_last, together):
            c = first
            while c < last:
                start = c
                while c < last and (wide == 0 or not is_wide(dy, coefficients, c, channels)):
                    c = c + 1 if wide > 0 else last
                n, at = min(together, o_last - o) * (c - start) * inner, (start - first) * inner
                apply_columns(dy, x, residual, limits, y, o, start, n, vectors, at, columns)
                if c < last:
                    apply_run(dy, x, residual, limits, y, o, c, inner, coefficients, c, channels)
                    c += 1


@compiled
def set_coefficients(dy, x, walk, first, last, out, given, eps, v):
    """v of channels first ... last: centre, scale, shift from moments; or centre, r, s, k, scale from gradient sums."""
    real = x.flat.dtype.type
    n, count = walk.channels, np.float64(walk.outer * walk.inner)
    for c in range(first, last):
        if len(dy) == 0:
            v[c] = _algebra.centre(out[0, c], real)
            var = out[2, c] / count
            v[c + n], v[c + 2 * n] = _algebra.affine(out[0, c], out[1, c], var, given[0, c], given[1, c], eps, v[c])
        else:
            mean, var, weight = given[0, c], given[1, c], given[2, c]
            v[c] = _algebra.centre(mean, real)
            r, s, k, scale = _algebra.gradient(count, mean, var, weight, eps, v[c], out[0, c], out[1, c])
            v[c + n], v[c + 2 * n], v[c + 3 * n], v[c + 4 * n] = r, s, k, scale


def work(dy, x, residual, limits, y, given, eps, coefficients, states, out, sums, vectors, walk, job, part, parts):
    """The share of thread `part` of `parts`: some spans of groups, blocks of outer rows, or whole groups of channels.

    given (weight, bias) or (mean, var, weight), each of C; coefficients (3 or 5 times C,); states (spans, 3 or 2, C);
    out (3 or 2, C): all float64, and what the job does not use may be empty. A thread needs beside its arrays sums
    (parts, 4, lanes of a group) float64 and vectors (parts, 3 or 5 times columns) real, small enough for its cache.
    """
    blocks = (walk.outer + walk.block - 1) // walk.block
    units = walk.groups
    if job == SPANS:
        units *= walk.spans
    elif job == APPLY:
        units *= blocks
    for unit in range(units * part // parts, units * (part + 1) // parts):
        group, span_first, span_last, o_first, o_last = unit, 0, walk.spans, 0, walk.outer
        if job == SPANS:
            group, span_first = unit // walk.spans, unit % walk.spans
            span_last = span_first + 1
        elif job == APPLY:
            group, block = (
                (unit % walk.groups, unit // walk.groups) if walk.interleaved else (unit // blocks, unit % blocks)
            )
            o_first, o_last = block * walk.block, min((block + 1) * walk.block, walk.outer)
        first, last = group * walk.group, min((group + 1) * walk.group, walk.channels)
        if job & SPANS:
            for span in range(span_first, span_last):
                add_span(dy, x, given, walk, first, last, span, states[span], sums[part])
        if job & SUMS:
            put_spans(dy, walk, first, last, states, out)
        if job & COEFFICIENTS:
            set_coefficients(dy, x, walk, first, last, out, given, eps, coefficients)
        if job & APPLY:
            apply_block(
                dy,
                x,
                residual,
                limits,
                y,
                coefficients,
                walk,
                first,
                last,
                o_first,
                o_last,
                vectors[part],
            )


def team(task, dy, x, residual, limits, y, given, eps, coefficients, states, out, sums, vectors, walk, job, parts):
    """`work` by all threads. By pointer, since `prange` would have LLVM work through it three times more."""
    for part in prange(parts):
        task(
            dy,
            x,
            residual,
            limits,
            y,
            given,
            eps,
            coefficients,
            states,
            out,
            sums,
            vectors,
            walk,
            job,
            np.int64(part),
            parts,
        )
