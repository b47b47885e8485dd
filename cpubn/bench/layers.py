"""The batch-norm layers of real networks, by name: shapes of their inputs, with the channels on axis 1."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

Features: TypeAlias = tuple[int, ...]  # channels, then the inner axes, of one image, clip or row

BATCHES = (1, 8, 32)


class Layer(NamedTuple):
    model: str
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        return "x".join(map(str, self.shape))

    @property
    def samples(self) -> int:
        """Values per channel, M."""
        samples = 1
        for length in (self.shape[0], *self.shape[2:]):
            samples *= length
        return samples


def resnet50() -> Iterator[Features]:
    """He et al. (2016), for 224 x 224, with the stride in the 3x3 convolution as every library has it now."""
    yield 64, 112, 112
    before = 56
    for width, size in ((64, 56), (128, 28), (256, 14), (512, 7)):
        yield width, before, before
        yield width, size, size
        yield 4 * width, size, size
        before = size


def mobilenetv2() -> Iterator[Features]:
    """Sandler et al. (2018), table 2: rows of expansion, channels, repetitions and stride, from 32 x 112 x 112."""
    channels, size = 32, 112
    yield channels, size, size
    rows = (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    for expansion, outputs, repetitions, first_stride in rows:
        for stride in (first_stride, *[1] * (repetitions - 1)):
            yield channels * expansion, size, size
            size //= stride
            yield channels * expansion, size, size
            yield outputs, size, size
            channels = outputs
    yield 1280, size, size


def densenet121() -> Iterator[Features]:
    """Huang et al. (2017), table 1: growth of 32, bottlenecks of 128, a transition halves channels and size."""
    yield 64, 112, 112
    channels = 64
    for repetitions, size in ((6, 56), (12, 28), (24, 14), (16, 7)):
        for _ in range(repetitions):
            yield channels, size, size
            yield 128, size, size
            channels += 32
        yield channels, size, size
        channels //= 2


def mlp() -> Iterator[Features]:
    """The hidden layers of python -m cpubn demo."""
    yield (256,)
    yield (128,)


def audio1d() -> Iterator[Features]:
    """M5 of Dai et al. (2017): four seconds of sound at 8 kHz, pooled by 4 after each convolution."""
    yield 128, 8000
    yield 128, 2000
    yield 256, 500
    yield 512, 125


def video3d() -> Iterator[Features]:
    """R3D-18 of Tran et al. (2018): clips of 16 frames of 112 x 112."""
    sizes = (16, 56), (8, 28), (4, 14), (2, 7)
    for width, (frames, size) in zip((64, 128, 256, 512), sizes, strict=True):
        yield width, frames, size, size


NETWORKS: dict[str, Callable[[], Iterator[Features]]] = {
    network.__name__: network for network in (resnet50, mobilenetv2, densenet121, mlp, audio1d, video3d)
}
# Large and small, wide and narrow, one image and a batch: what performance is promised for.
STANDARD = (
    (1, 64, 112, 112),
    (1, 256, 56, 56),
    (1, 2048, 7, 7),
    (1, 1280, 7, 7),
    (8, 256, 56, 56),
    (32, 64, 112, 112),
    (32, 256, 56, 56),
    (32, 1024, 14, 14),
    (32, 2048, 7, 7),
    (128, 256),
    (1024, 1024),
)
# Two that no cache holds, in float32, and one that it does: what is promised for fused passes and other types.
EDGE = ((32, 64, 112, 112), (32, 256, 56, 56), (1, 64, 112, 112))
# Few channels, down to one: rows of NHWC are no longer than a vector, and work cannot be shared out by channels. Images
# and spectrograms as they come in, waveforms of two channels, and what the first layers of small networks make.
FEW = ((8, 3, 224, 224), (1, 1, 512, 512), (16, 8, 96, 96), (64, 2, 4096), (1, 16, 112, 112), (1, 1, 64, 64))
MIXTURES: dict[str, tuple[tuple[int, ...], ...]] = {"standard": STANDARD, "few": FEW, "edge": EDGE}
MODELS = (*MIXTURES, *NETWORKS)
OVERHEAD = Layer("overhead", (1, 64, 1, 1))
IMAGES = tuple(
    Layer("images", (batch, 3, *size)) for size in ((224, 224), (480, 640), (1080, 1920)) for batch in (1, 8)
)
# Passes that have layers of their own.
OWN_LAYERS: dict[str, tuple[Layer, ...]] = {"overhead": (OVERHEAD,), "input": IMAGES}


def layers_of(model: str, batches: Sequence[int] | None = None) -> list[Layer]:
    """The distinct layers of a model, in its order; a network's for each batch size, a mixture has its own.

    Raises KeyError if there is no such model.
    """
    if model in MIXTURES:
        return [Layer(model, shape) for shape in MIXTURES[model] if batches is None or shape[0] in batches]
    features = dict.fromkeys(NETWORKS[model]())
    return [Layer(model, (batch, *feature)) for batch in batches or BATCHES for feature in features]
