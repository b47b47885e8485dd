"""A multilayer perceptron in NumPy, to read: the equation of each layer first, then its derivative.

x is a minibatch, (images, features); dy is the derivative of the loss with respect to the layer's output, and
`backward` returns the one with respect to its input. Gradients of parameters add up until `zero_grad`.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cpubn import BatchNorm1d

Array = NDArray[np.float32]
Step = Callable[[Array], Array]

SIZES = (64, 256, 128, 10)


class Linear:
    """y = x W + b;   dW = x' dy,   db = sum of dy over the batch,   dx = dy W'."""

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator) -> None:
        # A variance of 2 / inputs keeps a signal's size from one ReLU to the next (He et al., 2015, equation 10).
        self.weight: Array = rng.normal(0.0, np.sqrt(2.0 / inputs), (inputs, outputs)).astype(np.float32)
        self.bias: Array = np.zeros(outputs, np.float32)
        self.zero_grad()

    def zero_grad(self) -> None:
        self.weight_grad: Array = np.zeros_like(self.weight)
        self.bias_grad: Array = np.zeros_like(self.bias)

    def __call__(self, x: Array) -> Array:
        self.x = x
        return x @ self.weight + self.bias

    def backward(self, dy: Array) -> Array:
        self.weight_grad += self.x.T @ dy
        self.bias_grad += dy.sum(axis=0)
        return dy @ self.weight.T


class Relu:
    """y = max(x, 0);   dx = dy where x > 0, otherwise 0."""

    def __call__(self, x: Array) -> Array:
        self.positive: NDArray[np.bool_] = x > 0
        return x * self.positive

    def backward(self, dy: Array) -> Array:
        return dy * self.positive


def cross_entropy(scores: Array, digits: NDArray[np.int64]) -> tuple[float, Array]:
    """loss = -mean log p[digit],   p = exp(scores) / sum exp(scores);   dscores = (p - onehot(digit)) / images."""
    images = np.arange(len(digits))
    z = scores - scores.max(axis=1, keepdims=True)  # the same p, and exp cannot overflow
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    dscores = np.exp(log_p)
    dscores[images, digits] -= 1
    return -float(log_p[images, digits].mean()), dscores / np.float32(len(digits))


class Network:
    """Linear, (batch norm,) ReLU, linear, (batch norm,) ReLU, linear.

    Both kinds draw the same first weights from `rng`. A bias before batch norm does nothing, for the mean that is
    subtracted holds it; it stays so that the two networks differ in batch norm alone.
    """

    def __init__(self, normalized: bool, rng: np.random.Generator) -> None:
        self.layers: list[Linear | Relu | BatchNorm1d] = []
        for inputs, outputs in pairwise(SIZES):
            if self.layers:
                self.layers.append(Relu())
            self.layers.append(Linear(inputs, outputs, rng))
            if normalized and outputs != SIZES[-1]:
                self.layers.append(BatchNorm1d(outputs))

    def train(self, mode: bool) -> None:
        """Whether batch norm takes its moments from the batch or from its running statistics."""
        for layer in self.layers:
            if isinstance(layer, BatchNorm1d):
                layer.train(mode)

    def __call__(self, x: Array) -> Array:
        return forward(self.layers, x)

    def backward(self, dy: Array) -> None:
        for layer in reversed(self.layers):
            dy = layer.backward(dy)

    def descend(self, rate: float) -> None:
        """Stochastic gradient descent: w = w - rate * dw."""
        for layer in self.layers:
            if isinstance(layer, Linear | BatchNorm1d):
                for name in ("weight", "bias"):
                    w = getattr(layer, name)
                    w -= rate * getattr(layer, f"{name}_grad")
                layer.zero_grad()

    def freeze(self) -> list[Step]:
        """The layers for inference: running statistics, weight and bias folded into one multiplication and addition."""
        return [layer.freeze() if isinstance(layer, BatchNorm1d) else layer for layer in self.layers]

    def reference(self) -> list[Step]:
        """The same with batch norm as the plain formula, in float64."""
        return [plain_formula(layer) if isinstance(layer, BatchNorm1d) else layer for layer in self.layers]


def forward(steps: Iterable[Step], x: Array) -> Array:
    for step in steps:
        x = step(x)
    return x


def plain_formula(bn: BatchNorm1d) -> Step:
    """y = (x - mean) / sqrt(var + eps) * weight + bias   (Ioffe and Szegedy, 2015, algorithm 2), in float64."""
    state = bn.state_dict()

    def step(x: Array) -> Array:
        x_hat = (x - state["running_mean"]) / np.sqrt(state["running_var"] + bn.eps)
        return np.asarray(x_hat * state["weight"] + state["bias"], np.float32)

    return step
