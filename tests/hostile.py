"""What users, files and mistakes bring for arguments, and memory in which a stray write shows: for fuzz_api.py."""

import warnings

import numpy as np

SHAPE = 4, 3, 5, 6
NUMBERS = (
    *(0, 1, 2, -1, 0.5, -0.5, 1e-5, 1e30, 1e300, np.nan, np.inf, -np.inf, True, None, "1", "", b"1", 1j),
    *(2**31, 2**63, -(2**63), 10**400, np.float16(1), np.float64(2), np.int8(3), np.array(1.0), np.array([1.0, 2.0])),
    *([], (), {}, object(), int, np.nan * 1j, np.datetime64("2020")),
)
WORDS = (
    *("NCHW", "NHWC", "nchw", "channels_last", "NC", "CHWN", "", "NCHW\0", b"NCHW", None, 0, True, ["NCHW"], ("N",)),
    *(np.str_("NHWC"), np.array(["NCHW"]), object(), "relu", "OIHW", "HWIO", "é" * 999),
)
ACTIVATIONS = (
    *(None, "relu", "silu", "gelu", "sigmoid", "tanh", "relu6", "hardswish", ("leaky_relu", 0.1), ("clip", -1, 1)),
    *(["elu", 0.5], ("relu",), (), [], "RELU", ("clip", 1, -1), ("clip", np.nan, 1), ("leaky_relu", np.inf), len),
    *(("leaky_relu", "0.1"), ("clip", 0), {"relu": 1}, 7, ("clip", -1e300, 1e300), (("relu",), 1), np.array("relu")),
    *(("leaky_relu", 10**400), (len, len), ("elu", np.array([1.0]))),
)
DTYPES = (
    *(None, "float32", "float64", "float16", np.float32, "f4", ">f4", "uint8", "int8", complex, object, "U3", "V7"),
    *("f4,f4", (np.float32, 2), (np.float32, 10**30), "float33", "\0", b"\xff", 3, [], {}, "datetime64[s]", "g"),
)
KINDS = (
    "?",
    "b",
    "B",
    "h",
    "H",
    "i",
    "q",
    "Q",
    "e",
    "f",
    "d",
    "g",
    "F",
    "O",
    "S3",
    "U2",
    "M8[s]",
    ">f4",
    "V4",
    "f4,f4",
)
SHAPES = (
    *(
        (),
        (0,),
        (1,),
        (3,),
        (2, 3),
        (3, 1),
        (4, 3),
        (0, 3),
        (4, 0),
        (4, 3, 5),
        (4, 3, 5, 6),
        (4, 5, 6, 3),
        (1, 3, 1, 1),
    ),
    *((4, 3, 0, 6), (1, 1, 1, 1, 1, 1), (4, 3, 5, 6, 1), (6, 5, 3, 4), (3, 3, 2, 2)),
)


def pick(rng, sequence):
    return sequence[int(rng.integers(len(sequence)))]


class Memory:
    """Every array that a call is given lies in memory of its own, with other bytes before, behind and between."""

    def __init__(self, rng):
        self.rng, self.laid = rng, []

    def lay(self, values):
        """A view of these values in one of many ways."""
        rng, values = self.rng, np.asarray(values)
        if values.dtype.hasobject or values.ndim == 0:
            return values
        steps = [pick(rng, (1, 1, 1, 2, -1, -3)) for _ in values.shape]
        lengths = [n * abs(step) for n, step in zip(values.shape, steps, strict=True)]
        by = pick(rng, (0, 0, 0, 1, values.dtype.itemsize))
        order = rng.permutation(values.ndim) if rng.random() < 0.2 else range(values.ndim)
        base = rng.integers(0, 256, 128 + int(np.prod(lengths)) * values.dtype.itemsize).astype(np.uint8)

        def view_of(base):
            inner = base[64 - by : base.size - 64 - by].view(values.dtype).reshape(lengths)
            return inner[tuple(slice(None, None, step) for step in steps)]

        view_of(base)[...] = values
        view, before = view_of(base).transpose(order), base.copy()
        self.laid.append((view, base, view_of(before).transpose(order), before))
        if rng.random() < 0.05:
            view.flags.writeable = False
        return view

    def changed(self, writable):
        """Whether memory is not as it was, but for the elements of arrays in `writable`."""
        for view, base, was, before in self.laid:
            if any(view is array for array in writable):
                was[...] = view
            if not np.array_equal(base, before):
                return True
        return False


def samples(memory, shape=SHAPE, kind="f"):
    """Values of a type, and now and then some that are not finite."""
    rng = memory.rng
    with np.errstate(all="ignore"):
        values = rng.normal(1, 3, shape)
        if rng.random() < 0.3 and values.size:
            values.flat[int(rng.integers(values.size))] = pick(rng, (np.nan, np.inf, -1e38, 1e300, 0.0, -0.0, 1e-45))
        return memory.lay(np.nan_to_num(values).astype(kind) if np.dtype(kind).kind in "iub" else values.astype(kind))


def vector(memory, n=3, low=-2.0):
    return memory.lay(memory.rng.uniform(low, 2.0, n).astype(pick(memory.rng, ("f4", "f8"))))


def hostile_array(memory):
    rng = memory.rng
    kind, shape = pick(rng, KINDS), pick(rng, SHAPES)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        zeros = np.zeros(shape, kind)
        choice = rng.random()
        if choice < 0.4:
            return memory.lay(zeros)
        if choice < 0.6:
            return samples(memory, shape, pick(rng, ("e", "f", "d", ">f4", ">f8", "b", "H")))
        return pick(rng, (
            None, zeros.tolist(), [[1.0, 2.0], [3.0]], "array", np.ma.masked_array([1.0, 2.0, 3.0], [0, 1, 0]), 3.5, [],
            np.broadcast_to(np.float32(1), SHAPE), np.lib.stride_tricks.as_strided(np.ones(9), SHAPE, (0, 8, 0, 8)),
            object(), {"a": 1}, iter([1.0]), memoryview(b"12345678"), np.matrix([[1.0, 2.0]]), [None, 1.0], np.float32,
            [10**400, 1, 2], [[[[[[[1.0]]]]]]], np.float64(2), range(3), b"abc", np.ones(3, "f4")[::-1], -np.ones(3),
        ))  # fmt: skip
