"""Training on the handwritten digits that ship inside scikit-learn: 1797 images of 8 x 8 pixels."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from cpubn.demo.network import Array, Network, cross_entropy

BATCH = 32
TARGET = 0.97


@dataclass(frozen=True)
class Digits:
    """Pixels from 0 to 1, (images, 64), and the digit that each image shows, (images,)."""

    pixels: Array
    digits: NDArray[np.int64]
    held_out_pixels: Array
    held_out_digits: NDArray[np.int64]


def load(seed: int) -> Digits:
    """A quarter of the images, with every digit's share, is held out."""
    pixels, digits = load_digits(return_X_y=True)
    scaled = (pixels / 16.0).astype(np.float32)
    x, held_x, t, held_t = train_test_split(scaled, digits, test_size=0.25, stratify=digits, random_state=seed)
    return Digits(x, t, held_x, held_t)


@dataclass
class Run:
    """One training: a network, a learning rate, and the held-out accuracy after each epoch so far."""

    network: Network
    rate: float
    accuracies: list[float] = field(default_factory=list)
    diverged: bool = False

    @property
    def epochs_to_target(self) -> int | None:
        return next((n for n, accuracy in enumerate(self.accuracies, 1) if accuracy >= TARGET), None)


def accuracy(scores: Array, digits: NDArray[np.int64]) -> float:
    return float((scores.argmax(axis=1) == digits).mean())


def train(run: Run, data: Digits, epochs: int, rng: np.random.Generator) -> Iterator[None]:
    """Train epoch by epoch; each ends with an entry in `run.accuracies`, or with `run.diverged` and no more epochs."""
    for _ in range(epochs):
        # A rate that is too high overflows: that is a result here, not a warning.
        with np.errstate(over="ignore", invalid="ignore"):
            run.diverged = not train_epoch(run, data, rng)
            if run.diverged:
                return
            run.network.train(False)
            scores = run.network(data.held_out_pixels)
        run.accuracies.append(accuracy(scores, data.held_out_digits))
        yield


def train_epoch(run: Run, data: Digits, rng: np.random.Generator) -> bool:
    """One pass over the images in random minibatches; False as soon as a loss is not finite."""
    run.network.train(True)
    shuffled = rng.permutation(len(data.digits))
    # The last few images wait for another epoch: the statistics of a batch of two or three would be poor.
    for start in range(0, len(shuffled) - BATCH + 1, BATCH):
        batch = shuffled[start : start + BATCH]
        loss, dscores = cross_entropy(run.network(data.pixels[batch]), data.digits[batch])
        if not np.isfinite(loss):
            return False
        run.network.backward(dscores)
        run.network.descend(run.rate)
    return True
