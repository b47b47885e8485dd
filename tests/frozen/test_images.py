"""normalize_images: torchvision's ToTensor and Normalize, of pictures in every shape that they come in."""

import numpy as np
import pytest

import cpubn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 9, 7, 3), np.uint8)
GRAY = RNG.integers(0, 256, (37, 41), np.uint8)


def expected(images, mean, std, scale=1 / 255, out_layout="NCHW"):
    made = (images.astype(np.float64) * scale - np.asarray(mean)) / np.asarray(std)
    return np.moveaxis(made, -1, -3) if out_layout == "NCHW" else made


@pytest.mark.parametrize("out_layout", ["NCHW", "NHWC", "channels_first"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_every_shape_of_pictures(dtype, out_layout):
    order = "NHWC" if out_layout == "NHWC" else "NCHW"
    how = {"out_layout": out_layout, "dtype": dtype}
    tolerance = {"float16": 2e-3, "float32": 1e-6, "float64": 1e-12}[dtype]
    batch = expected(COLOUR, MEAN, STD, out_layout=order)
    gray = expected(GRAY[..., None], 0.5, 0.25, out_layout=order)
    for images, mean, std, wanted in [
        (COLOUR, MEAN, STD, batch), (list(COLOUR), MEAN, STD, batch), (tuple(COLOUR), MEAN, STD, batch),
        (COLOUR[:1], MEAN, STD, batch[:1]), ([COLOUR[2]], MEAN, STD, batch[2:3]), (COLOUR[2], MEAN, STD, batch[2]),
        (GRAY, 0.5, 0.25, gray), ([GRAY, GRAY], [0.5], np.array([0.25]), np.stack([gray, gray])),
        (GRAY[..., None], 0.5, 0.25, gray),
    ]:  # fmt: skip
        got = cpubn.normalize_images(images, mean, std, **how)
        assert got.dtype == dtype
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)
        out = np.empty_like(got)
        assert cpubn.normalize_images(images, mean, std, **how, out=out) is out
        np.testing.assert_array_equal(out, got)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int16", "float16", "float32", "float64"])
def test_pictures_of_other_types(dtype):
    images = (COLOUR // 2).astype(dtype)
    got = cpubn.normalize_images(images, 0.1, STD, scale=1.0)
    np.testing.assert_allclose(got, expected(images, 0.1, STD, 1.0), rtol=1e-6, atol=1e-6)


def test_views_are_walked():
    wide = RNG.integers(0, 256, (20, 30, 4), np.uint8)
    got = cpubn.normalize_images(wide[::2, ::-1, :3], MEAN, STD)
    np.testing.assert_allclose(got, expected(wide[::2, ::-1, :3], MEAN, STD), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"images": GRAY[0]}, ValueError, r"images must have shape \(H, W\), .* got \(41,\)"),
        ({"images": COLOUR[None]}, ValueError, r"images must have shape .* got \(1, 5, 9, 7, 3\)"),
        ({"images": [COLOUR]}, ValueError, r"images\[0\] must have shape \(H, W\) or \(H, W, C\), got \(5, 9, 7, 3\)"),
        ({"images": []}, ValueError, "images must hold at least one picture, got none"),
        (
            {"images": [COLOUR[0], COLOUR[1, 1:]]},
            ValueError,
            r"one size and type, got uint8 \(8, 7, 3\) in images\[1\]",
        ),
        ({"images": [COLOUR[0], COLOUR[1].astype("f4")]}, ValueError, r"got float32 .* in images\[1\] and uint8"),
        ({"images": COLOUR.astype(np.int64)}, TypeError, "images must be an array of .* got ndarray of int64"),
        ({"mean": (0.5, 0.5)}, ValueError, r"mean must be a number, or of shape \(3,\), one .* got \(2,\)"),
        (
            {"images": COLOUR[0].T},
            ValueError,
            r"mean must be .* got \(3,\); channels stand last: of \(C, H, W\) pass np.m",
        ),
        ({"mean": None}, TypeError, "mean must be a finite number, or one for each channel, got None"),
        ({"std": (1.0, 0.0, 1.0)}, ValueError, "std must be above 0 in every channel, got 0"),
        ({"std": (1.0, -1.0, 1.0)}, ValueError, "std must be above 0 in every channel, got -1"),
        ({"scale": 0}, ValueError, "scale must be a number from 1e-30"),
        ({"out_layout": "HWC"}, ValueError, "out_layout must be 'NCHW'"),
        ({"dtype": "uint8"}, TypeError, "dtype must be"),
        ({"out": np.empty((5, 3, 9, 7))}, TypeError, "out must have the result's dtype float32, got float64"),
        ({"out": np.empty((3, 9, 7), "f4")}, ValueError, r"out must have the result's shape \(5, 3, 9, 7\)"),
    ],
)
def test_what_is_refused(given, error, match):
    with pytest.raises(error, match=match):
        cpubn.normalize_images(**{"images": COLOUR, "mean": MEAN, "std": STD} | given)
