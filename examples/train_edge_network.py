"""Trains the network of edge_inference.py on two photographs, and judges it on strips of them that it never saw.

    python examples/train_edge_network.py

It learns to tell sky, pagoda, trees, petals and leaves by windows of 31 x 31 pixels. Batch norm stands between each
convolution and the next, with its ReLU: layers of cpubn, with a backward of their own. To compare with, the accuracy of
knowing nothing but colour: the class whose mean colour is nearest to the window's. The weights of the last epoch are
kept, not those of the best; but the learning rate, the augmentation and the strips were settled with this accuracy in
sight, so on photographs of other places expect less.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from edge_network import STEP, WEIGHTS, WINDOW, Network, use_one_thread
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from photographs import CLASSES, Labels, Photograph, Pixels, load, training_windows

import cpubn
from cpubn.demo import epochs, seed, whole_number
from cpubn.demo.network import cross_entropy

BATCH = 64
MOMENTUM = 0.9
RATE = 0.02  # of the first step; it falls to 0


class Descent:
    """Stochastic gradient descent with momentum: velocity = momentum * velocity + dw,   w = w - rate * velocity."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.velocities: list[NDArray[np.floating]] | None = None

    def step(self, windows: Pixels, labels: Labels, rate: float) -> float:
        """One step on one minibatch; its loss before the step."""
        scores = self.network(windows)[:, :, 0, 0]
        loss, dscores = cross_entropy(scores, labels)
        self.network.backward(dscores[:, :, None, None])
        parameters = list(self.network.parameters())
        self.velocities = self.velocities or [np.zeros_like(w) for w, _ in parameters]
        for (w, dw), velocity in zip(parameters, self.velocities, strict=True):
            velocity *= MOMENTUM
            velocity += dw
            w -= rate * velocity
        for _, bn in self.network.blocks:
            bn.zero_grad()
        return loss


def new_network(photographs: list[Photograph], rng: np.random.Generator) -> Network:
    """Untrained, but for the mean and variance of the training pixels, the moments of both photographs added up."""
    network = Network(len(CLASSES), rng)
    china, flower = (cpubn.moments(p.training_pixels[None].astype(np.float32), layout="NHWC") for p in photographs)
    pixels = china + flower
    network.mean, network.var = pixels.mean, pixels.var()
    return network


def varied(windows: Pixels, rng: np.random.Generator) -> Pixels:
    """Half of the windows mirrored, and red, green and blue of each scaled by up to 30 %, as another light would."""
    mirrored = rng.random((len(windows), 1, 1, 1)) < 0.5
    light = rng.uniform(0.7, 1.3, (len(windows), 1, 1, 3))
    return np.clip(np.where(mirrored, windows[:, :, ::-1], windows) * light, 0, 255).astype(np.uint8)


def train_epoch(descent: Descent, windows: Pixels, labels: Labels, rate: float, rng: np.random.Generator) -> float:
    """One pass over the windows in minibatches; the mean of their losses."""
    losses = []
    for start in range(0, len(labels) - BATCH + 1, BATCH):
        batch = slice(start, start + BATCH)
        losses.append(descent.step(varied(windows[batch], rng), labels[batch], rate))
    return float(np.mean(losses))


def held_out_accuracy(predict: Callable[[Pixels], Labels], photographs: list[Photograph]) -> float:
    """Share of the held-out windows that are predicted right, the mean over the classes."""
    return float(np.mean([right.mean() for p in photographs for right in p.judge(predict(p.pixels)).values()]))


def by_colour(windows: Pixels, labels: Labels) -> Callable[[Pixels], Labels]:
    """Predicts the class whose mean colour in the training windows is nearest to the window's."""
    means = np.stack([windows[labels == label].mean(axis=(0, 1, 2)) for label in range(len(CLASSES))])

    def predict(pixels: Pixels) -> Labels:
        seen = sliding_window_view(pixels, (WINDOW, WINDOW), axis=(0, 1))[::STEP, ::STEP].mean(axis=(3, 4))
        return np.square(seen[:, :, None] - means).sum(axis=3).argmin(axis=2)

    return predict


def window_count(text: str) -> int:
    return whole_number(text, BATCH, 10**6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=epochs, default=40, help="default: 40")
    parser.add_argument("--windows", type=window_count, default=2048, help="drawn for each epoch (default: 2048)")
    parser.add_argument("--seed", type=seed, default=0, help="of first weights and windows (default: 0)")
    parser.add_argument("--output", type=Path, default=WEIGHTS, help=f"default: {WEIGHTS.name} beside this script")
    options = parser.parse_args()
    if not options.output.parent.is_dir():
        parser.error(f"argument --output: must name a file in a folder that exists, got '{options.output}'")

    use_one_thread()
    photographs = load()
    rng = np.random.default_rng(options.seed)
    network = new_network(photographs, rng)
    descent = Descent(network)
    colour = held_out_accuracy(by_colour(*training_windows(photographs, 2048, rng)), photographs)
    print(f"Classes: {', '.join(CLASSES)}. Held-out accuracy by colour alone: {colour:.1%}\n")
    print("epoch    loss   held-out accuracy   seconds")
    start = time.perf_counter()
    for epoch in range(options.epochs):
        windows, labels = training_windows(photographs, options.windows, rng)
        network.train(True)
        loss = train_epoch(descent, windows, labels, RATE * (1 - epoch / options.epochs), rng)
        network.train(False)
        accuracy = held_out_accuracy(lambda pixels: network(pixels[None])[0].argmax(axis=0), photographs)
        print(f"{epoch + 1:5d}{loss:8.4f}{accuracy:20.1%}{time.perf_counter() - start:10.1f}", flush=True)
    network.save(options.output)
    print(f"\nWrote {options.output} ({options.output.stat().st_size / 1000:.0f} KB)")


if __name__ == "__main__":
    main()
