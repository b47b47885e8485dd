"""Calls that hypothesis draws: values, what counts of them, vectors and options; and every kind of strides for them."""

from typing import NamedTuple

import cases
import masked
import numpy as np
import oracle
import views
from hypothesis import HealthCheck, Phase, settings, strategies as st
from passes import dtype_of

LAYOUTS = "NCHW", "NHWC"
INTEGERS = "uint8", "int8", "uint16", "int16"
# By type: the largest power of ten of a value, and of mean/std.
REACH = {"float16": (4, 3), "bfloat16": (37, 3), "float32": (37, 7), "float64": (120, 6)}
LENGTHS = 1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65, 100, 321, 600
MOST = 1500  # values
BAD = np.nan, np.inf, -np.inf


def examples(count):
    """So many, the same on every run; under --hypothesis-profile=thorough as many as that has, others on every run."""
    chosen = settings.default
    if chosen != settings.get_profile("thorough"):
        chosen = settings(max_examples=count, derandomize=True, database=None, report_multiple_bugs=False)
    return settings(
        chosen,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def _moved(values, start):
    """The axes from `start` on in memory, then those before it."""
    axes = [*range(values.ndim)]
    return views.in_order(values, (*axes[start:], *axes[:start]))


# Arrays of the same values. The first ones lie in memory in the order of their axes.
IN_ORDER = {
    "contiguous": lambda v: np.copy(v, order="C"),
    "sliced": lambda v: views.stepped(v, *(2 + axis % 2 for axis in range(v.ndim))),
    "the last axis sliced": lambda v: views.stepped(v, *[1] * (v.ndim - 1), 3),
    "reversed": lambda v: views.stepped(v, *[-1] * v.ndim),
    "sliced and reversed": lambda v: views.stepped(v, *((-1, 2, 1, -2, 3)[axis] for axis in range(v.ndim))),
    "misaligned by a byte": views.misaligned,
    "misaligned by an element": lambda v: views.misaligned(v, v.itemsize),
    "read-only": views.read_only,
}
OTHERS = {
    "Fortran order": lambda v: np.copy(v, order="F"),
    "transposed": lambda v: _moved(v, 1),
    "transposed and sliced": lambda v: views.stepped(_moved(v, v.ndim - 1), *(2 - axis % 2 for axis in range(v.ndim))),
    "byte-swapped": lambda v: views.swapped(v) if v.dtype.kind != "V" else v.copy(),  # ml_dtypes has no other order
}
KINDS = IN_ORDER | OTHERS
ZERO = "zero strides"


class Call(NamedTuple):
    """Samples as they lie in memory in the order of their axes, the same along the axes `repeated`."""

    layout: str
    x: object
    dy: object
    repeated: tuple
    eps: float
    vectors: tuple  # running mean, running variance, weight, bias
    how: dict  # which elements count
    weights: object  # the same in full, None where all count
    dtype: str | None  # of y
    out_layout: str | None
    into: str  # where results go: to a "new" array, to one of their own that is "in order", or "in place"
    cut: int  # where a batch of parts is cut
    alike: bool  # dy has x's kind of strides, else it is contiguous

    def __repr__(self):
        """Short, but for small arrays."""
        shown = ((n, v if getattr(v, "size", 0) < 9 else f"{v.dtype} {v.shape}") for n, v in self._asdict().items())
        return f"Call({', '.join(f'{n}={v!r}' for n, v in shown)})"

    def kinds(self):
        return [*KINDS, *([ZERO] if self.repeated else [])]

    def lay(self, values, kind):
        """A copy with that kind of strides."""
        if kind != ZERO:
            return KINDS[kind](values)
        return np.broadcast_to(values[once(self.repeated, values.ndim)], values.shape)

    @property
    def channels(self):
        return self.x.shape[oracle.channel_axis(self.x, self.layout)]


@st.composite
def shapes(draw, layout):
    """At least two values a channel."""
    shape = draw(st.lists(st.sampled_from(LENGTHS), min_size=2, max_size=5))
    while np.prod(shape) > MOST:
        place = int(np.argmax(shape))
        shape[place] //= 2
    if np.prod(shape) == shape[1 if layout == "NCHW" else -1]:
        shape[0] = 2
    return tuple(shape)


def once(repeated, ndim):
    """One place along each axis that is repeated."""
    return tuple(slice(0, 1) if axis in repeated else slice(None) for axis in range(ndim))


def values(draw, shape, dtype, rng, layout):
    """Floats around a mean of up to REACH standard deviations; or integers over all of their range."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    most, ratio = REACH[dtype.name]
    far = draw(st.sampled_from([None, *range(ratio + 1)]))
    size = draw(st.integers(-6 if dtype.name == "float16" else -most, most - (far or 0) - 1))
    x = rng.standard_normal(shape)
    spread = draw(st.sampled_from(["normal", "normal", "two values", "zeros"]))
    if spread == "two values":
        x = np.sign(x)
    elif spread == "zeros":
        x = np.maximum(x, 0)
    x = 10.0**size * (x + (0 if far is None else 10.0**far))
    channels = np.moveaxis(x, oracle.channel_axis(x, layout), 0)
    if draw(st.booleans()):
        channels[0] = channels[0].flat[0]  # a constant
    return x.astype(dtype)


def promised(x, layout):
    """Whether no channel is farther from 0 than promised: a few values may lie nearer to each other than was drawn."""
    if x.dtype.kind in "iu":
        return True
    mean, var = oracle.moments(x, layout)
    return bool((abs(mean) <= 10.0 ** max(REACH[x.dtype.name][1], 4) * np.sqrt(var))[var > 0].all())


@st.composite
def calls(draw, dtype, layout, masks):
    """A call of samples of that type; with at least two values a channel, all of them within what is promised."""
    dtype = dtype_of(dtype)
    is_float = dtype.name in REACH
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(shapes(layout))
    x = values(draw, shape, dtype, rng, layout)
    repeated = tuple(axis for axis in range(1, x.ndim) if draw(st.sampled_from([False, False, False, True])))
    if promised(x, layout):
        x = np.copy(np.broadcast_to(x[once(repeated, x.ndim)], shape), order="C")
    else:
        x = rng.integers(0, 100, shape).astype(dtype)
        repeated = ()
    dy = x
    if is_float:
        dy = cases.make_gradient(draw(st.sampled_from([*cases.GRADIENTS])), x.astype(float), layout).astype(dtype)
    running = cases.running(x, layout)
    channels = len(running[0])
    weight = rng.uniform(-2, 2, channels).astype(np.float32)
    weight[1::5] = 0
    bias = rng.integers(-16, 17, channels) / 8  # which any type holds
    how, weights = draw(counted(x, layout, rng)) if masks else ({}, None)
    if weights is not None:
        repeated = ()
        if is_float:
            x, dy = masked.spoilt(x, dy, how, weights, rng)
    elif is_float and draw(st.integers(0, 3)) == 3:
        spoilt = draw(st.sampled_from([x, dy]))
        spoilt.reshape(-1)[draw(st.integers(0, x.size - 1))] = draw(st.sampled_from(BAD))
        repeated = ()
    return Call(
        *(layout, x, dy, repeated),
        eps=draw(st.sampled_from([1e-5, 0.5] if dtype == np.float16 else [1e-5, 1e-12, 0.5])),
        vectors=(*running, weight, bias),
        how=how,
        weights=weights,
        dtype=draw(st.sampled_from(["float16", "float32", "float64", *([None, None, None] * is_float)])),
        out_layout=draw(st.sampled_from([None, None, *LAYOUTS])),
        into=draw(st.sampled_from(["new", "in order", "in place"])),
        cut=draw(st.integers(0, len(x))),
        alike=draw(st.booleans()),
    )


@st.composite
def counted(draw, x, layout, rng):
    """Arguments that say which elements count, and the weights in full; none in some of the calls."""
    holds_nan = x.dtype.name in REACH
    kinds = [k for k in masked.KINDS if (x.ndim == 3 or k != "lengths") and (holds_nan or k not in masked.WITH_NAN)]
    kind = draw(st.sampled_from([None, None, None, *kinds]))
    if kind is None:
        return {}, None
    how, weights = masked.which(kind, x, layout, rng)
    counts = masked.channels(weights, layout).sum(axis=1, dtype=float)
    enough = ((counts > 1) | (counts == 0)).all() and counts.any()
    return (how, weights) if enough else ({}, None)
