"""What a message says to do with what is no array of numbers: where it is an expression, that is taken."""

import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

import cpubn

PLAIN = np.arange(12, dtype=np.float32).reshape(4, 3)


class Table:
    """What NumPy and this package see of a pandas table."""

    def __init__(self, *rows):
        self.rows = rows

    def __array__(self, dtype=None, copy=None):
        return np.array(self.rows, dtype=object)

    def select_dtypes(self, kind):
        return PLAIN


class Series:
    def to_numpy(self):
        return PLAIN


RECORDS = np.zeros(4, [("a", "f4"), ("b", "f4")])
WAYS = {
    "a sparse matrix": (scipy.sparse.csr_matrix(PLAIN), "x.toarray()"),
    "a sparse array": (scipy.sparse.coo_array(PLAIN), "x.toarray()"),
    "a sparse matrix in an array": (np.asarray(scipy.sparse.csr_matrix(PLAIN)), "x.item().toarray()"),
    "a column": (Series(), "x.to_numpy()"),
    "a table with text": (Table([1.0, "male"], [2.0, "female"]), "x.select_dtypes('number')"),
    "bytes": (PLAIN.tobytes(), "np.frombuffer(x, dtype='uint8').reshape(shape)"),
    "a mapping": ({"key": PLAIN}, "x[key]"),
    "a generator": ((row for row in PLAIN.tolist()), "np.asarray(list(x), dtype='float32')"),
    "complex numbers": (PLAIN * 1j, "np.abs(x)"),
    "times": (PLAIN.astype("M8[s]"), "(x - x.min()) / np.timedelta64(1, 's')"),
    "spans of time": (PLAIN.astype("m8[s]"), "x / np.timedelta64(1, 's')"),
    "records": (RECORDS, "np.lib.recfunctions.structured_to_unstructured(x)"),
    "void": (PLAIN.view("V4"), "x.view('float32')"),
    "whole numbers": (PLAIN.astype(int).tolist(), "np.asarray(x, dtype='float32')"),
    "objects that are numbers": (PLAIN.astype(object), "np.asarray(x, dtype='float32')"),
    "decimals": ([[Decimal(1)], [Decimal(2)]], "np.asarray(x, dtype='float32')"),
    "numbers in text": (PLAIN.astype(str), "np.asarray(x, dtype='float32')"),
}


@pytest.mark.parametrize(("x", "way"), WAYS.values(), ids=list(WAYS))
def test_an_expression_that_is_named_works(x, way):
    with pytest.raises(TypeError, match=rf"^x must be an array of .*, got .*{re.escape(way)}$"):
        cpubn.moments(x)
    import numpy.lib.recfunctions  # noqa: F401  # which NumPy does not import by itself

    found = eval(way, {"np": np, "x": x, "key": "key", "shape": (4, -1)})
    assert np.isfinite(cpubn.moments(found).mean).all()


NO_WAY = {
    "None": (None, "got NoneType; pass an array: .*cv2.imread"),
    "a path": (Path("x.npy"), r"; pass an array: of a file .*np.load\(x\)"),
    "its name": ("x.npy", r"got str .*; pass an array: of a file .*np.load\(x\)"),
    "words": ([["a", "b"], ["1", "2"]], "got list of <U1; it holds text, 'a': encode"),
    "words among objects": (np.array([[1.0, "x" * 99]], object), "it holds text, 'xxx.{0,40}: encode"),
    "a gap": (np.array([[1.0, None]]), "it holds NoneType, None: put a number in its place"),
    "an array of arrays": (np.array([PLAIN, PLAIN[1:]], object), r"; pass each by itself.*sum\(cpubn.moments"),
    "anything": (object(), "got object; pass an array of it$"),
}


@pytest.mark.parametrize(("x", "match"), NO_WAY.values(), ids=list(NO_WAY))
def test_where_no_expression_helps_the_message_says_what_is_there(x, match):
    with pytest.raises(TypeError, match=match) as caught:
        cpubn.moments(x)
    assert "np.asarray(x, " not in str(caught.value)


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (
            [np.ones((3, 4, 5)), np.ones((3, 4, 6))],
            r"got list of parts of different shapes, \(3, 4, 5\) and \(3, 4, 6\)",
        ),
        (([1.0, 2.0], [1.0]), r"got tuple of parts of different shapes, \(2,\) and \(1,\)"),
        ([[[1.0], [1.0, 2.0]], [[1.0], [1.0, 2.0]]], r"got list of parts of different shapes, \(1,\) and \(2,\)"),
    ],
)
def test_pictures_of_different_sizes_are_told_to_come_one_by_one(x, match):
    with pytest.raises(TypeError, match=match + r"; pass each by itself, .*x\[i\]\[np.newaxis\]; .*sum\(cpubn.moments"):
        cpubn.moments(x)


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (3, 1, 1), (3, 1), (1, 3)])
def test_vectors_with_axes_of_one_are_told_to_lose_them(shape):
    x, weight = np.ones((4, 3)), np.ones((3, 3, 1, 1))
    state = cpubn.BatchNorm1d(3).state_dict() | {"weight": np.ones(shape)}
    norm = {"weight": np.ones(3), "bias": np.ones(3), "running_mean": np.ones(3), "running_var": np.ones(3)}
    calls = {
        "bias": lambda v: cpubn.batch_norm(x, None, None, None, v, training=True),
        "weight": lambda v: cpubn.BatchNorm1d(3).load_state_dict(state),
        "running_mean": lambda v: cpubn.FrozenBatchNorm(**norm | {"running_mean": v}, eps=1e-5),
        "m2": lambda v: cpubn.Moments(1, np.ones(3), v),
        "mean": lambda v: cpubn.normalize_images(np.ones((2, 2, 3)), v, [1, 1, 1]),
        "conv_bias": lambda v: cpubn.fold_conv(weight, v, cpubn.FrozenBatchNorm(**norm, eps=1e-5)),
    }
    for name, call in calls.items():
        said = name.removeprefix("conv_")
        with pytest.raises(ValueError, match=rf"{said} must .*shape .*; pass {said}.reshape\(-1\)$"):
            call(np.ones(shape))
    with pytest.raises(ValueError, match=r"; pass np.reshape\(bias, -1\)$"):
        calls["bias"](np.ones(shape).tolist())


def test_gray_pictures_among_those_in_colour_are_what_is_suspected():
    gray = cpubn.moments(np.ones((2, 5, 512), np.uint8), layout="NHWC")
    colour = cpubn.moments(np.ones((2, 5, 6, 3), np.uint8), layout="NHWC")
    for one, other in ((gray, colour), (colour, gray)):
        with pytest.raises(ValueError, match=r"gray pictures with layout 'NHWC'.*x\[..., np.newaxis\]"):
            one + other
    with pytest.raises(ValueError, match=r"merge moments of the same layer$"):
        gray + cpubn.Moments.empty(256)
