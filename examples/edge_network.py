"""A small convolutional network in NumPy: four blocks of convolution, batch norm and ReLU, and scores by a 1x1 one.

No block pads, so the scores of a window of 31 x 31 pixels depend on that window alone. A whole photograph gives the
scores of every window in it, 8 pixels from one to the next: a coarse map of what is where.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

import cpubn

try:
    from safetensors.numpy import load_file, save_file
    from threadpoolctl import threadpool_limits
except ImportError as error:
    needed = "safetensors and threadpoolctl"
    raise SystemExit(f'this example needs {needed}; install with: pip install "cpubn[demo]"') from error

Array = NDArray[np.float32]

WEIGHTS = Path(__file__).with_name("edge_network.safetensors")
WINDOW, STEP = 31, 8
# Output channels and stride of each block; the kernels are 3 x 3.
BLOCKS = ((16, 2), (32, 2), (32, 2), (64, 1))


class Conv:
    """y[o, p] = sum of weight[o, k] * columns[k, p] + bias[o];   columns: what each output position p sees of x.

    x is (N, C, H, W), weight (O, C, kernel, kernel), y (N, O, H', W') and contiguous, as batch norm reads it fastest.
    dweight = dy columns',   dbias = sum of dy,   dx: the columns weight' dy, each added back to where it was seen.
    """

    def __init__(self, weight: Array, bias: Array | None, stride: int) -> None:
        self.weight, self.bias, self.stride = weight, bias, stride
        self.kernel = weight.shape[2]

    def __call__(self, x: Array) -> Array:
        self.x = x
        samples, outputs = len(x), len(self.weight)
        height, width = ((size - self.kernel) // self.stride + 1 for size in x.shape[2:])
        y = np.matmul(self.weight.reshape(outputs, -1), self.columns(x))
        if self.bias is not None:
            y += self.bias[:, None]
        return y.reshape(samples, outputs, height, width)

    def columns(self, x: Array) -> Array:
        """(N, C, H, W) to (N, C * kernel * kernel, H' * W')."""
        windows = sliding_window_view(x, (self.kernel, self.kernel), axis=(2, 3))
        seen = windows[:, :, :: self.stride, :: self.stride].transpose(0, 1, 4, 5, 2, 3)
        return seen.reshape(len(x), self.weight[0].size, -1)

    def backward(self, dy: Array) -> Array:
        samples, outputs, height, width = dy.shape
        flat = dy.reshape(samples, outputs, height * width)
        dweight = np.matmul(flat, self.columns(self.x).transpose(0, 2, 1)).sum(axis=0)
        self.weight_grad, self.bias_grad = dweight.reshape(self.weight.shape), flat.sum(axis=(0, 2))
        dcolumns = np.matmul(self.weight.reshape(outputs, -1).T, flat)
        dcolumns = dcolumns.reshape(samples, -1, self.kernel, self.kernel, height, width)
        dx = np.zeros_like(self.x)
        for i, j in np.ndindex(self.kernel, self.kernel):
            rows = slice(i, i + self.stride * height, self.stride)
            columns = slice(j, j + self.stride * width, self.stride)
            dx[:, :, rows, columns] += dcolumns[:, :, i, j]
        return dx


class Network:
    """Normalized pixels, the blocks, and a head that gives one score a class; `rng` draws the first weights."""

    def __init__(self, classes: int, rng: np.random.Generator) -> None:
        self.mean, self.var = np.zeros(3), np.ones(3)  # of the training pixels, from 0 to 255
        self.blocks: list[tuple[Conv, cpubn.BatchNorm2d]] = []
        channels = 3
        for outputs, stride in BLOCKS:
            # No bias: the mean that batch norm subtracts would hold it.
            conv = Conv(first_weight(outputs, channels, 3, rng), None, stride)
            self.blocks.append((conv, cpubn.BatchNorm2d(outputs, activation="relu")))
            channels = outputs
        self.head = Conv(first_weight(classes, channels, 1, rng), np.zeros(classes, np.float32), stride=1)

    def normalize(self, pixels: NDArray[np.uint8]) -> Array:
        """(N, H, W, 3) bytes as a camera or a decoder gives them to (N, 3, H, W) float32, in one pass."""
        return cpubn.batch_norm(pixels, self.mean, self.var, layout="NHWC", dtype="float32", out_layout="NCHW", eps=0)

    def __call__(self, pixels: NDArray[np.uint8]) -> Array:
        """Scores, (N, classes, H', W')."""
        x = self.normalize(pixels)
        for conv, bn in self.blocks:
            x = bn(conv(x))
        return self.head(x)

    def backward(self, dscores: Array) -> None:
        dy = self.head.backward(dscores)
        for conv, bn in reversed(self.blocks):
            dy = conv.backward(bn.backward(dy))

    def train(self, mode: bool) -> None:
        """Whether batch norm takes its moments from the batch or from its running statistics."""
        for _, bn in self.blocks:
            bn.train(mode)

    def parameters(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """What is learned, each with its gradient."""
        for conv, bn in self.blocks:
            yield conv.weight, conv.weight_grad
            yield bn.weight, bn.weight_grad
            yield bn.bias, bn.bias_grad
        yield self.head.weight, self.head.weight_grad
        yield self.head.bias, self.head.bias_grad

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything by name: learned values, running statistics, and the moments of the pixels."""
        state: dict[str, NDArray[Any]] = {"input.mean": self.mean, "input.var": self.var}
        for number, (conv, bn) in enumerate(self.blocks, 1):
            state[f"block{number}.conv.weight"] = conv.weight
            state |= {f"block{number}.bn.{name}": value for name, value in bn.state_dict().items()}
        return state | {"head.weight": self.head.weight, "head.bias": self.head.bias}

    def save(self, path: Path) -> None:
        save_file(self.state(), path)

    @classmethod
    def load(cls, path: Path) -> Self:
        stored = load_file(path)
        network = cls(len(stored["head.bias"]), np.random.default_rng())
        network.mean, network.var = stored["input.mean"], stored["input.var"]
        for number, (conv, bn) in enumerate(network.blocks, 1):
            conv.weight = stored[f"block{number}.conv.weight"]
            prefix = f"block{number}.bn."
            bn.load_state_dict({k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)})
        network.head.weight, network.head.bias = stored["head.weight"], stored["head.bias"]
        network.train(False)
        return network


def first_weight(outputs: int, channels: int, kernel: int, rng: np.random.Generator) -> Array:
    """A variance of 2 / inputs keeps a signal's size from one ReLU to the next (He et al., 2015, equation 10)."""
    shape = (outputs, channels, kernel, kernel)
    return rng.normal(0.0, np.sqrt(2.0 / (channels * kernel**2)), shape).astype(np.float32)


def use_one_thread() -> None:
    """For batch norm as for the matrix products of the convolutions: the times then tell the work of each.

    A team of threads spins while it waits for one that has no core, which on a busy machine takes many times what the
    team gains on arrays of this size.
    """
    cpubn.set_num_threads(1)
    threadpool_limits(1, "blas")
