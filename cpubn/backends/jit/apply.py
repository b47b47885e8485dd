"""The elementwise pass of the Numba backend: that of backends/compiled/apply.pxd, in the same words.

    forward:    y  = activation((x - centre) * scale + shift + residual)
    backward:   dx = scale * ((g - k) - ((x - centre) * r) * s),  or g * scale in inference

Arrays are flat and contiguous; y may be x or the residual, and dx may be dy or x: of a run, the last lanes are computed
first, since those before them overlap them.
"""
# mypy: allow-untyped-defs, allow-untyped-calls

from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from cpubn.backends.jit.lanes import lanes
from cpubn.backends.jit.prologue import compiled, gradient_of, is_there, part_of, part_of_source
from cpubn.backends.jit.samples import load, store, stream

CENTRE, FACTOR, SHIFT, RSTD, SLOPE, LEVEL = range(6)


class Ends(NamedTuple):
    """What a forward pass ends with, its parameters in the type that is computed in; the residual may not be there."""

    residual: object
    low: object
    high: object


class Table(NamedTuple):
    """Coefficients, kind by kind: of columns that are repeated or, where the period is 0, of channels."""

    values: object
    length: int  # from one kind to the next
    period: int
    past: bool  # results are written past the cache


@compiled
def coefficient(table, kind, column):
    """Of lanes from a column on, or of one channel."""
    at = kind * table.length + column
    return load(table.values, at) if table.period > 0 else lanes(table.values[at])


@compiled
def before_line(y, first):
    """Elements from `first` to the next cache line."""
    return -(y.ctypes.data // y.itemsize + first) % (64 // y.itemsize)


@compiled
def forward_lanes(activate, x, ends, i, table, column):
    """y of the lanes from element i on."""
    z = load(x, i) - coefficient(table, CENTRE, column)
    z = z * coefficient(table, FACTOR, column) + coefficient(table, SHIFT, column)
    return ended(activate, ends, i, z)


def ended(activate, ends, i, z):
    """activation(z + residual)."""
    raise NotImplementedError


@overload(ended, error_model="numpy")
def ended_by(activate, ends, i, z):
    residual, active = is_there(ends.types[0]), not isinstance(activate, types.NoneType)
    if residual and active:
        return lambda activate, ends, i, z: activate(z + load(ends.residual, i), ends.low, ends.high)
    if residual:
        return lambda activate, ends, i, z: z + load(ends.residual, i)
    if active:
        return lambda activate, ends, i, z: activate(z, ends.low, ends.high)
    return lambda activate, ends, i, z: z


def store_where(to, i, value):
    """Store lanes in an array, where there is one."""
    raise NotImplementedError


@overload(store_where, error_model="numpy")
def store_where_there(to, i, value):
    if is_there(to):
        return lambda to, i, value: store(to, i, value)
    return lambda to, i, value: None


@compiled
def backward_lanes(derive, x, source, g_to, is_scale, i, table, column):
    """dx of the lanes from element i on; their g where it is wanted."""
    d = load(x, i) - coefficient(table, CENTRE, column)
    scale = coefficient(table, FACTOR, column)
    g = gradient_of(derive, source, i, d * scale + coefficient(table, SHIFT, column))
    store_where(g_to, i, g)
    if is_scale:
        return g * scale
    x_hat = d * coefficient(table, RSTD, column)
    return scale * ((g - coefficient(table, LEVEL, column)) - x_hat * coefficient(table, SLOPE, column))


@compiled
def forward_run(activate, x, ends, y, first, n, table, column):
    """At least as many elements from `first` on as there are lanes."""
    count, lead = 128 // x.itemsize, before_line(y, first) if table.past else 0
    head = rest = lanes(x.dtype.type(0))
    # The first and the last lanes before the others; written once, since LLVM would make each call a copy.
    for block in range(-2 if table.past else -1, (n - lead) // count):
        j = 0 if block == -2 else n - count if block == -1 else lead + block * count
        at = column if table.period == 0 else (column + j) % table.period
        value = forward_lanes(activate, x, ends, first + j, table, at)
        if block == -2:
            head = value
        elif block == -1:
            rest = value
        elif table.past:
            stream(y, first + j, value)
        else:
            store(y, first + j, value)
    if table.past:
        store(y, first, head)
    store(y, first + n - count, rest)


@compiled
def backward_run(derive, x, source, g_to, is_scale, dx, first, n, table, column):
    """At least as many elements from `first` on as there are lanes, as in `forward_run`."""
    count, lead = 128 // x.itemsize, before_line(dx, first) if table.past else 0
    head = rest = lanes(x.dtype.type(0))
    for block in range(-2 if table.past else -1, (n - lead) // count):
        j = 0 if block == -2 else n - count if block == -1 else lead + block * count
        at = column if table.period == 0 else (column + j) % table.period
        value = backward_lanes(derive, x, source, g_to, is_scale, first + j, table, at)
        if block == -2:
            head = value
        elif block == -1:
            rest = value
        elif table.past:
            stream(dx, first + j, value)
        else:
            store(dx, first + j, value)
    if table.past:
        store(dx, first, head)
    store(dx, first + n - count, rest)


@compiled
def forward_part(activate, x, ends, y, first, n, table, column):
    """Any number of elements: a few go through arrays of as many as there are lanes."""
    count, start, many, made = 128 // x.itemsize, first, n, y
    if n < count:
        zeros = np.zeros(count, x.dtype)
        x, ends = part_of(x, first, n, zeros), Ends(part_of(ends.residual, first, n, zeros), ends.low, ends.high)
        start, many, made = 0, count, np.empty(count, x.dtype)
    forward_run(activate, x, ends, made, start, many, table, column)
    if n < count:
        put_part(y, first, n, made)


@compiled
def backward_part(derive, x, source, g_to, is_scale, dx, first, n, table, column):
    """Any number of elements: a few go through arrays of as many as there are lanes."""
    count, start, many, made, g = 128 // x.itemsize, first, n, dx, g_to
    if n < count:
        zeros = np.zeros(count, x.dtype)
        x, source, g = part_of(x, first, n, zeros), part_of_source(source, first, n, zeros), part_of(g, first, n, zeros)
        start, many, made = 0, count, np.empty(count, x.dtype)
    backward_run(derive, x, source, g, is_scale, made, start, many, table, column)
    if n < count:
        put_part(dx, first, n, made)
        put_part(g_to, first, n, g)


def put_part(to, first, n, made):
    """The first n elements into a flat array, where there is one."""
    raise NotImplementedError


@overload(put_part, error_model="numpy")
def put_part_in(to, first, n, made):
    if not is_there(to):
        return lambda to, first, n, made: None

    def put(to, first, n, made):
        for k in range(n):
            to[first + k] = made[k]

    return put
