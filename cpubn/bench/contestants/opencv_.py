"""OpenCV: what it has for the first layer, bytes (N, H, W, C) to normalized planes, in the ways that its users write.

Splitting the bytes and scaling plane by plane was the fastest (2 cores, 1080 x 1920: 1.9 ms; a table of 256 floats in
place of the arithmetic 2.4, blobFromImages 4.9, subtract and multiply before the split 11).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from cpubn.bench.case import Case, Prepared
from cpubn.bench.contestants import Contestant
from cpubn.typing import Array

VERSION = cv2.__version__
PLANES = "split, then addWeighted of each plane into a reused output"
TABLE = "split, then LUT of each plane into a reused output"
BLOB = "blobFromImagesWithParams; its output is fresh"


def contestants(threads: int) -> list[Contestant]:
    cv2.setNumThreads(threads)
    return [
        Contestant("opencv", "NCHW", {"input": arithmetic}, PLANES),
        Contestant("opencv-table", "NCHW", {"input": table}, TABLE),
        Contestant("opencv-blob", "NCHW", {"input": blob}, BLOB),
    ]


def plane_by_plane(case: Case, normalize: Callable[[int, Array, Array], object]) -> Prepared:
    """Each image split, and normalize(channel, bytes, floats) of its planes."""
    x, y = case.x("NHWC"), case.y()
    planes = list(np.empty(y.shape[1:], np.uint8))

    def call() -> None:
        for image, output in zip(x, y, strict=True):
            cv2.split(image, planes)
            for channel, plane in enumerate(planes):
                normalize(channel, plane, output[channel])

    return Prepared(call, lambda: y)


def arithmetic(case: Case, layout: str) -> Prepared:
    factor = 1 / np.sqrt(case.var)
    scales, shifts = factor.tolist(), (-case.mean * factor).tolist()

    def normalize(channel: int, plane: Array, output: Array) -> object:
        return cv2.addWeighted(plane, scales[channel], plane, 0, shifts[channel], output, cv2.CV_32F)

    return plane_by_plane(case, normalize)


def table(case: Case, layout: str) -> Prepared:
    tables = list((np.arange(256, dtype=np.float32) - case.mean[:, np.newaxis]) / np.sqrt(case.var)[:, np.newaxis])
    return plane_by_plane(case, lambda channel, plane, output: cv2.LUT(plane, tables[channel], output))


def blob(case: Case, layout: str) -> Prepared:
    x = case.x("NHWC")
    parameters = cv2.dnn.Image2BlobParams()
    parameters.scalefactor, parameters.mean = (
        (*v.tolist(), *[0.0] * (4 - len(v))) for v in (1 / np.sqrt(case.var), case.mean)
    )

    def call() -> Array:
        return np.asarray(cv2.dnn.blobFromImagesWithParams(list(x), parameters))

    return Prepared(call, call)
