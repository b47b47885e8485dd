"""Two photographs through a trained network without a framework: batch norm frozen, and folded into the convolutions.

    python examples/edge_inference.py

Bytes as they come from a decoder, (H, W, 3) uint8, are normalized and turned to (3, H, W) float32 in one pass. Then
come four blocks of convolution, batch norm and ReLU, and a score for each class of each window, 8 pixels apart. Both
networks must predict the same. The weights are those that train_edge_network.py wrote, beside this file.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from statistics import median

import numpy as np
from edge_network import WEIGHTS, Array, Conv, Network, use_one_thread
from photographs import CLASSES, Labels, Photograph, load

import cpubn

RUNS = 15
SYMBOLS = np.array(list(" #%o."))  # of CLASSES, in the map that is printed
STAGES = ("input normalization", "convolutions", "batch norm and ReLU, or ReLU alone", "the whole network")


class Inference:
    """The network as blocks of a convolution and what follows it in place; `seconds` holds each run's time by stage."""

    def __init__(self, network: Network, blocks: Sequence[tuple[Conv, Callable[..., Array]]]) -> None:
        self.network, self.blocks = network, blocks
        self.seconds: list[list[float]] = []

    def __call__(self, photograph: Photograph) -> Array:
        """Scores, (classes, rows, columns)."""
        clock = [time.perf_counter()]
        x = self.network.normalize(photograph.pixels[None])
        clock.append(time.perf_counter())
        for conv, follow in self.blocks:
            x = conv(x)
            clock.append(time.perf_counter())
            x = follow(x, out=x)
            clock.append(time.perf_counter())
        scores = self.network.head(x)
        clock.append(time.perf_counter())
        spent = [end - start for start, end in pairwise(clock)]
        self.seconds.append([spent[0], sum(spent[1::2]), sum(spent[2::2]), clock[-1] - clock[0]])
        return scores[0]


def frozen(network: Network) -> Inference:
    """Batch norm with its ReLU is one pass over what the convolution wrote."""
    return Inference(network, [(conv, bn.freeze()) for conv, bn in network.blocks])


def folded(network: Network) -> Inference:
    """Batch norm is gone, into weights and biases that the convolutions now have; ReLU stays, as a pass of NumPy."""
    relu = partial(np.maximum, np.float32(0))
    blocks = []
    for conv, bn in network.blocks:
        weight, bias = cpubn.fold_conv(conv.weight, conv.bias, bn)
        blocks.append((Conv(weight, bias, conv.stride), relu))
    return Inference(network, blocks)


def main() -> None:
    use_one_thread()
    photographs = load()
    network = Network.load(WEIGHTS)
    networks = {"frozen": frozen(network), "folded": folded(network)}
    scores = {name: [run(photograph) for photograph in photographs] for name, run in networks.items()}
    predicted = {name: [each.argmax(axis=0) for each in two] for name, two in scores.items()}

    show_maps(photographs, predicted["frozen"])
    show_accuracy(photographs, predicted)
    windows = sum(each.size for each in predicted["frozen"])
    equal = sum(np.count_nonzero(a == b) for a, b in zip(*predicted.values(), strict=True))
    difference = max(np.abs(a - b).max() for a, b in zip(*scores.values(), strict=True))
    print(f"\nFrozen and folded: {equal} of {windows} predictions are equal;", end=" ")
    print(f"the largest difference of scores is {difference:.1e}.")
    show_times(photographs, networks)


def show_maps(photographs: list[Photograph], predicted: list[Labels]) -> None:
    legend = ", ".join(f"{name} '{symbol}'" for name, symbol in zip(CLASSES, SYMBOLS, strict=True))
    print(f"What the network sees: {legend}\n")
    # Half of the columns and a quarter of the rows: a character is twice as high as wide.
    pictures = [SYMBOLS[labels[::4, ::2]] for labels in predicted]
    print("   ".join(photograph.name.ljust(pictures[0].shape[1]) for photograph in photographs).rstrip())
    for rows in zip(*pictures, strict=True):
        print("   ".join("".join(row) for row in rows).rstrip())


def show_accuracy(photographs: list[Photograph], predicted: dict[str, list[Labels]]) -> None:
    print(f"\n{'held-out accuracy':26}{'windows':>8}" + "".join(f"{name:>10}" for name in predicted))
    shares = []
    for number, photograph in enumerate(photographs):
        judged = [photograph.judge(maps[number]) for maps in predicted.values()]
        for name, right in judged[0].items():
            shares.append([by_class[name].mean() for by_class in judged])
            show_row(f"{photograph.name:12}{name:14}{right.size:8}", shares[-1])
    show_row(f"{'mean of the classes':34}", np.mean(shares, axis=0))


def show_row(name: str, shares: Iterable[float]) -> None:
    print(name + "".join(f"{share:10.1%}" for share in shares))


def show_times(photographs: list[Photograph], networks: dict[str, Inference]) -> None:
    """The networks take turns, so that whatever else the machine does disturbs both."""
    for _ in range(RUNS):
        for photograph in photographs:
            for run in networks.values():
                run(photograph)
    print(f"\n{'milliseconds a photograph (medians)':36}" + "".join(f"{name:>9}" for name in networks))
    for stage, name in enumerate(STAGES):
        medians = [1e3 * median(spent[stage] for spent in run.seconds) for run in networks.values()]
        print(f"{name:36}" + "".join(f"{value:9.2f}" for value in medians))


if __name__ == "__main__":
    main()
