"""A small convolutional network for handwritten digits, trained in torch: with torch's batch norms, and with cpubn's.

Both start from the same weights and see the same minibatches. Run it as `python examples/torch_digits.py`.
"""

import copy
import sys
import time
from itertools import pairwise

try:
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    import cpubn.torch
except ImportError as error:
    sys.exit(f"this example needs torch and scikit-learn: {error}")

STEPS, BATCH, RATE = 200, 128, 0.02


def network() -> nn.Sequential:
    widths, layers = (1, 16, 32), []
    for before, width in pairwise(widths):
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * 8 * 8, 10))


class Training:
    """One network and its optimizer."""

    def __init__(self, model: nn.Sequential) -> None:
        self.model, self.losses, self.seconds = model, [], 0.0
        self.optimizer = torch.optim.SGD(model.parameters(), RATE)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        start = time.perf_counter()
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(images), labels)
        loss.backward()
        self.optimizer.step()
        self.seconds += time.perf_counter() - start
        self.losses.append(loss.item())

    @torch.no_grad()
    def accuracy(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        return (self.model.eval()(images).argmax(1) == labels).double().mean().item()


def main() -> None:
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(images))
    held_out, train = order[:360], order[360:]
    model = network()
    trainings = {"torch": Training(model), "cpubn": Training(cpubn.torch.convert(copy.deepcopy(model)))}
    print(f"{STEPS} steps of {BATCH} digits, {torch.get_num_threads()} threads")
    print(f"{'step':>5} {'torch':>9} {'cpubn':>9}   loss")
    for step in range(1, STEPS + 1):
        batch = train[torch.randint(len(train), (BATCH,))]
        for training in trainings.values():
            training.step(images[batch], labels[batch])
        if step % 40 == 0:
            print(f"{step:5} " + " ".join(f"{training.losses[-1]:9.6f}" for training in trainings.values()))
    theirs, ours = trainings.values()
    apart = max(abs(a - b) for a, b in zip(theirs.losses, ours.losses, strict=True))
    print(f"The loss curves are at most {apart:.1e} apart.")
    for name, training in trainings.items():
        accuracy = training.accuracy(images[held_out], labels[held_out])
        print(f"{name}: {training.seconds:.2f} s, {100 * accuracy:.1f}% of {len(held_out)} held-out digits are right")


if __name__ == "__main__":
    main()
