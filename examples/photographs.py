"""scikit-learn's two sample photographs, with boxes in which a person marked what is to be seen.

A vertical strip of each photograph is held out: boxes inside it judge, boxes outside it train, and none is on both
sides, so no training window shares a pixel with a judged one. What is in no box (edges, the lake, a bud) does neither.
"""

from dataclasses import dataclass

import numpy as np
from edge_network import STEP, WINDOW
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]

CLASSES = ("sky", "pagoda", "trees", "petals", "leaves")


@dataclass(frozen=True)
class Box:
    """Pixels from (left, top) up to, and without, (right, bottom)."""

    name: str
    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Photograph:
    name: str
    pixels: Pixels  # (427, 640, 3)
    held_out: tuple[int, int]  # the strip, from this column up to, and without, that one
    boxes: tuple[Box, ...]

    @property
    def training_pixels(self) -> Pixels:
        return np.delete(self.pixels, slice(*self.held_out), axis=1)

    @property
    def training_boxes(self) -> list[Box]:
        start, stop = self.held_out
        return [box for box in self.boxes if box.right <= start or box.left >= stop]

    @property
    def held_out_boxes(self) -> list[Box]:
        start, stop = self.held_out
        return [box for box in self.boxes if box.left >= start and box.right <= stop]

    def judge(self, predicted: Labels) -> dict[str, NDArray[np.bool_]]:
        """Of each class, whether each window inside a held-out box is right in `predicted`, the whole map."""
        rows, columns = predicted.shape
        top, left = np.arange(rows)[:, None] * STEP, np.arange(columns) * STEP
        held_out: dict[str, NDArray[np.bool_]] = {}
        for box in self.held_out_boxes:
            within = (box.top <= top) & (top + WINDOW <= box.bottom) & (box.left <= left) & (left + WINDOW <= box.right)
            held_out[box.name] = held_out.get(box.name, False) | within
        return {name: predicted[where] == CLASSES.index(name) for name, where in held_out.items()}


CHINA = (
    Box("sky", 0, 0, 180, 50),
    Box("sky", 0, 50, 120, 92),
    Box("sky", 0, 92, 85, 140),
    Box("sky", 480, 0, 640, 130),
    Box("pagoda", 150, 92, 205, 125),
    Box("pagoda", 122, 125, 205, 330),
    Box("pagoda", 100, 240, 205, 330),
    Box("trees", 0, 190, 35, 270),
    Box("trees", 0, 345, 150, 427),
    Box("trees", 150, 375, 205, 427),
    Box("trees", 480, 310, 560, 427),
    Box("trees", 560, 220, 640, 427),
    Box("trees", 590, 165, 640, 220),
    # Held out.
    Box("sky", 230, 0, 480, 60),
    Box("sky", 330, 60, 480, 195),
    Box("pagoda", 205, 85, 260, 125),
    Box("pagoda", 205, 125, 290, 330),
    Box("trees", 360, 345, 400, 427),
    Box("trees", 400, 320, 480, 427),
)
FLOWER = (
    Box("petals", 195, 155, 240, 290),
    Box("petals", 240, 112, 305, 332),
    Box("leaves", 0, 0, 165, 427),
    Box("leaves", 165, 0, 305, 75),
    # Held out.
    Box("petals", 305, 112, 370, 332),
    Box("petals", 370, 155, 415, 290),
    Box("petals", 305, 395, 440, 427),
    Box("leaves", 305, 0, 460, 75),
    Box("leaves", 460, 0, 640, 385),
)


def load() -> list[Photograph]:
    try:
        from sklearn.datasets import load_sample_images

        china, flower = load_sample_images().images
    except ImportError as error:
        needed = "scikit-learn, and Pillow with which it reads photographs"
        raise SystemExit(f'this example needs {needed}; install with: pip install "cpubn[demo]"') from error
    return [Photograph("china.jpg", china, (205, 480), CHINA), Photograph("flower.jpg", flower, (305, 640), FLOWER)]


def training_windows(photographs: list[Photograph], count: int, rng: np.random.Generator) -> tuple[Pixels, Labels]:
    """(count, 31, 31, 3) from anywhere in the training boxes, of every class as many, and their classes, (count,)."""
    places: list[list[tuple[Pixels, int, int]]] = [[] for _ in CLASSES]
    for photograph in photographs:
        for box in photograph.training_boxes:
            corners = np.ndindex(box.bottom - box.top - WINDOW + 1, box.right - box.left - WINDOW + 1)
            places[CLASSES.index(box.name)] += [(photograph.pixels, box.top + y, box.left + x) for y, x in corners]
    labels = rng.permutation(np.arange(count) % len(CLASSES))
    windows = np.empty((count, WINDOW, WINDOW, 3), np.uint8)
    for window, label in zip(windows, labels, strict=True):
        pixels, y, x = places[label][rng.integers(len(places[label]))]
        window[...] = pixels[y : y + WINDOW, x : x + WINDOW]
    return windows, labels
