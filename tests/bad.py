"""What is wrong with each kind of argument, and what the message must say: shared by the error tests.

Each entry is (value, exception, pattern); every pattern names what must hold and what was got.
"""

import re

import numpy as np

DATA = {
    "integers": (np.ones((4, 3), int), TypeError, "must be .*float32.* or .*, got .*int64.*float32"),
    "booleans": (np.ones((4, 3), bool), TypeError, "must be .*float32.* or .*, got .*bool"),
    "complex": (np.ones((4, 3), complex), TypeError, "must be .*float32.* or .*, got .*complex128"),
    "objects": (np.ones((4, 3), object), TypeError, "must be .*float32.* or .*, got .*object"),
    "strings": (np.full((4, 3), "1.0"), TypeError, "must be .*float32.* or .*, got .*<U3"),
    "long double": (np.ones((4, 3), np.longdouble), TypeError, "must be .*float32.* or .*, got .*float"),
    "a list of integers": ([[1, 2, 3], [4, 5, 6]], TypeError, "must be .*float32.* or .*, got .*list"),
    "None": (None, TypeError, "must be .*float32.* or .*, got NoneType; pass an array"),
    "masked": (np.ma.ones((4, 3)), TypeError, r"must be a plain array, got a masked array.*filled\("),
    "masked rows": (
        [np.ma.ones(3), *np.ones((3, 3))],
        TypeError,
        r"must be a plain array, got a masked array.*filled\(",
    ),
    "a tuple with masked numbers": (
        ([[1.0, np.ma.masked, 1.0]] * 4,),
        TypeError,
        r"must be a plain array, got a masked array.*filled\(",
    ),
}
# Of what has a value for each channel and is only read, which may be of integers, too.
CHANNELS = {kind: wrong for kind, wrong in DATA.items() if "integers" not in kind} | {
    "integers beyond float64": (
        np.full((4, 3), 2**53 + 1), (TypeError, ValueError),
        "must (hold whole numbers that float64 has, got 9007199254740993; round|be .*float32 or float64, got .*int64)",
    ),
    "integers beyond 64 bits": ([[2**64] * 3], TypeError, "must be .*float32.* or .*, got .*object"),
}  # fmt: skip
X = {f"x of {kind}": ("x", *bad) for kind, bad in DATA.items()} | {
    "x of rank 0": ("x", np.float32(1), ValueError, "x must have 2 to 5 dimensions, got 0"),
    "x of rank 1": ("x", np.ones(3), ValueError, "x must have 2 to 5 dimensions, got 1.*newaxis"),
    "x of rank 6": ("x", np.ones((4, 3, 1, 1, 1, 1)), ValueError, "x must have 2 to 5 dimensions, got 6.*reshape"),
}
LAYOUT = {
    f"layout {layout!r}": (
        "layout",
        layout,
        ValueError,
        f"layout must be 'NCHW' .*'NHWC' .*got {re.escape(repr(layout))}",
    )
    for layout in ("CHWN", "NCHW ", "channels", "", None, 1, b"NCHW", ["NCHW"], ("N", "C"))
}
EPS = {
    f"eps {eps!r}": ("eps", eps, error, f"eps must be .* got {re.escape(repr(eps))}")
    for eps, error in [(-1e-5, ValueError), (np.nan, ValueError), (np.inf, ValueError), (True, TypeError),
                       (None, TypeError), ("1e-5", TypeError), (1e-5j, TypeError)]
}  # fmt: skip
MOMENTUM = {
    f"momentum {momentum!r}": ("momentum", momentum, error, f"momentum must be .* from 0 to 1.* got {momentum!r}")
    for momentum, error in [(-0.1, ValueError), (1.1, ValueError), (np.nan, ValueError), (np.inf, ValueError),
                            (True, TypeError), ("0.1", TypeError)]
}  # fmt: skip


def flag(name):
    """What counts as true or false, but is no bool."""
    return {
        f"{name} {value!r}": (name, value, TypeError, f"{name} must be True or False, got {value!r}; pass a bool")
        for value in ("eval", "False", 2, None)
    }


BACKEND = {
    "an unknown backend": ("backend", "torch", ValueError, "backend must be .*numpy.* got 'torch'"),
    "a backend that is no string": ("backend", 3, (TypeError, ValueError), "backend must be .*numpy.* got 3"),
}

ACTIVATION = {
    f"activation {value!r}": ("activation", value, error, f"activation must be .* got {re.escape(repr(value))}")
    for value, error in [("RELU", ValueError), ("swish", ValueError), ("", ValueError), (1, ValueError),
                         (True, ValueError), ((), ValueError), (("leaky_relu", 0.1, 0.2), ValueError),
                         ("leaky_relu", ValueError), (("leaky_relu",), ValueError), (("relu", 1.0), ValueError),
                         ("clip", ValueError),
                         (("clip", 1.0), ValueError), (("clip", 0.0, 1.0, 2.0), ValueError),
                         (("clip", 1.0, 0.0), ValueError), (("clip", 0.0, np.nan), ValueError),
                         (("clip", "0", "1"), (TypeError, ValueError)), (("clip", None, 1.0), (TypeError, ValueError)),
                         (("leaky_relu", True), (TypeError, ValueError)), (("leaky_relu", np.inf), ValueError),
                         (("leaky_relu", np.nan), ValueError), (("leaky_relu", 1j), (TypeError, ValueError)),
                         (("elu", np.inf), ValueError), (("elu", 1.0, 2.0), ValueError), (("elu", None), ValueError),
                         (np.tanh, (TypeError, ValueError)), (abs, (TypeError, ValueError)),
                         ([["relu"]], (TypeError, ValueError)), ({"relu": 1}, (TypeError, ValueError))]
}  # fmt: skip
RESIDUAL = {
    f"residual of {kind}": ("residual", *value)
    for kind, value in DATA.items()
    if kind not in ("None", "a list of integers")
} | {
    f"residual of shape {np.shape(value)}": (
        "residual", value, ValueError, rf"residual must .*\(4, 3\), got {re.escape(str(np.shape(value)))}"
    )
    for value in (np.ones((3, 4)), np.ones((1, 3)), np.ones((4, 3, 1)), np.ones(3), 1.0)
} | {
    f"residual of {dtype}": ("residual", np.ones((4, 3), dtype), TypeError, f"residual must .*float64, got {dtype}")
    for dtype in ("float32", "float16")
}  # fmt: skip
OUT_LAYOUT = {
    f"out_layout {layout!r}": (
        "out_layout",
        layout,
        ValueError,
        f"out_layout must be 'NCHW' .*'NHWC' .*got {re.escape(repr(layout))}",
    )
    for layout in ("CHWN", "HWC", "", 1, b"NHWC", ["NHWC"], np.array(["NHWC", "NCHW"]))
}
# Of which np.dtype itself makes other errors than TypeError, or a dtype of no name.
NO_DTYPE = (
    *(
        ",",
        "f4,,f4",
        "(2",
        "f99",
        "\0",
        "float32 ",
        b"\xff",
        (np.float32, -5),
        (np.float32, 10**30),
        (np.float32, "S2"),
    ),
    *([("a", "f4"), ("a", "f4")], [("a",)], {"names": ["a"]}, {}, [], (), np.ones(3), "f4,f4", (np.float32, 2)),
)
DTYPE = {
    f"dtype {dtype!r}": ("dtype", dtype, (TypeError, ValueError), "dtype must be .*float32.* got .*pass")
    for dtype in ("int8", "uint8", np.int64, "real", bool, complex, np.longdouble, object, 3, "float8", *NO_DTYPE)
}


def vector(name, *, optional):
    """Everything that can be wrong with a per-channel vector of 3."""
    wrong = {}
    for shape in [(2,), (4,), (0,), (), (1,), (3, 1), (1, 3), (1, 3, 1, 1)]:
        match = rf"{name} must have shape \(3,\), .*layout.*got {re.escape(str(shape))}"
        wrong[f"{name} of shape {shape}"] = (name, np.ones(shape), ValueError, match)
    for kind, (value, error, match) in CHANNELS.items():
        if not (optional and value is None):
            row = value if value is None else value[0]
            wrong[f"{name} of {kind}"] = (name, row, error, f"{name} {match}")
    return wrong


def out():
    """Everything that can be wrong with an output for x of shape (4, 3), but for what it overlaps."""
    read_only = np.ones((4, 3))
    read_only.flags.writeable = False
    one_row = np.lib.stride_tricks.as_strided(np.ones(3), (4, 3), (0, 8))
    windows = np.lib.stride_tricks.as_strided(np.ones(9), (4, 3), (16, 8))
    return {
        "out of another shape": ("out", np.ones((3, 4)), ValueError, r"out must have .*\(4, 3\), got \(3, 4\)"),
        "out of another rank": ("out", np.ones((4, 3, 1)), ValueError, r"out must have .*\(4, 3\), got \(4, 3, 1\)"),
        "out of another dtype": ("out", np.ones((4, 3), np.float32), TypeError, "out must .*float64, got float32"),
        "out of integers": ("out", np.ones((4, 3), int), TypeError, "out must .*float64, got int64"),
        "out that is read-only": ("out", read_only, ValueError, "out must be writeable, got a read-only"),
        "out that is a list": (
            "out",
            [[1.0] * 3] * 4,
            TypeError,
            "out must be a writable array, got list",
        ),
        "out that is masked": ("out", np.ma.ones((4, 3)), TypeError, "out must be a .*array, got .*[mM]asked"),
        "out with a stride of zero": ("out", one_row, ValueError, "out must not overlap itself, got"),
        "out of overlapping windows": ("out", windows, ValueError, "out must not overlap itself, got"),
    }
