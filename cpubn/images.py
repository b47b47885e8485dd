"""Pictures as a network takes them: bytes to normalized floats, channels first, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from cpubn.ask import check, options, remedy
from cpubn.frozen import FrozenBatchNorm
from cpubn.typing import Array, Layout, Vector


@overload
def normalize_images(
    images: ArrayLike | Sequence[ArrayLike], mean: ArrayLike, std: ArrayLike, *, scale: float = 1 / 255,
    out_layout: Layout = "NCHW", dtype: Literal["float32"] | type[np.float32] = "float32",
    out: Array | None = None,
) -> NDArray[np.float32]: ...  # fmt: skip
@overload
def normalize_images(
    images: ArrayLike | Sequence[ArrayLike], mean: ArrayLike, std: ArrayLike, *, scale: float = 1 / 255,
    out_layout: Layout = "NCHW", dtype: DTypeLike, out: Array | None = None,
) -> Array: ...  # fmt: skip
def normalize_images(
    images: ArrayLike | Sequence[ArrayLike],
    mean: ArrayLike,
    std: ArrayLike,
    *,
    scale: float = 1 / 255,
    out_layout: Layout = "NCHW",
    dtype: DTypeLike = "float32",
    out: Array | None = None,
) -> Array:
    """``(images * scale - mean) / std``, channel by channel: torchvision's ToTensor and Normalize in one pass.

    Parameters
    ----------
    images : one picture (H, W) or (H, W, C), a batch (N, H, W, C), or a list of pictures of one size
        uint8, int8, uint16, int16, float16, bfloat16, float32 or float64, any strides.
    mean, std : (C,), or a number for all channels, in units of ``images * scale``: of bytes, from 0 to 1.
    scale : of a picture's numbers; 1 for pictures that are from 0 to 1 already.
    out_layout : "NCHW" for a result (C, H, W) or (N, C, H, W), "NHWC" for (H, W, C) or (N, H, W, C).
    dtype : of the result, "float16", "bfloat16", "float32" or "float64".
    out : array of the result's shape and dtype to write to.

    Returns
    -------
    The pictures, with a batch axis where there were several, or ``out``.

    Raises
    ------
    ValueError, TypeError : before anything is written, saying what must hold, what was got and what to do.

    Examples
    --------
    >>> picture = np.full((2, 2, 3), 255, np.uint8)
    >>> x = cpubn.normalize_images(picture, mean=[0.5, 0.5, 0.0], std=[0.5, 0.25, 1.0])
    >>> x.shape, x[:, 0, 0].tolist()
    ((3, 2, 2), [1.0, 2.0, 1.0])
    """
    listed = isinstance(images, list | tuple)
    pictures = [_picture(image, f"images[{k}]", 3) for k, image in enumerate(images)] if listed else []  # type: ignore[arg-type]
    batch = _all_alike(pictures) if listed else _picture(images, "images", 4)
    norm = _norm(batch.shape[-1], mean, std, scale, out_layout, dtype)
    shape = batch.shape[-3:] if norm.out_layout == "NHWC" else (batch.shape[-1], *batch.shape[-3:-1])
    if listed or batch.ndim == 4:
        shape = (len(pictures) if listed else len(batch), *shape)
    kind = options.floating(dtype)
    if out is None:
        out = np.empty(shape, kind)
    else:
        inputs = {f"images[{k}]": picture for k, picture in enumerate(pictures)} if listed else {"images": batch}
        options.output(out, shape, kind, {}, inputs)
    if batch.ndim == 4:
        norm(batch, out=out)
    else:
        for picture, to in zip(pictures, out, strict=True) if listed else [(batch, out)]:
            norm(picture[np.newaxis], out=to[np.newaxis])
    return out


def _picture(image: Any, name: str, rank: int) -> Array:
    """(H, W, C), or of rank 4 a batch of them."""
    array = check.on_host(image, name, check.SAMPLES)
    if not 2 <= array.ndim <= rank:
        raise ValueError(
            f"{name} must have shape (H, W){', (H, W, C) or (N, H, W, C)' if rank == 4 else ' or (H, W, C)'}, "
            f"got {array.shape}; channels stand last, and several pictures make a batch or a list"
        )
    return array[..., np.newaxis] if array.ndim == 2 else array


def _all_alike(pictures: list[Array]) -> Array:
    if not pictures:
        raise ValueError("images must hold at least one picture, got none; pass a list of pictures, or an array")
    for k, picture in enumerate(pictures):
        if (picture.shape, picture.dtype) != (pictures[0].shape, pictures[0].dtype):
            raise ValueError(
                f"images must be of one size and type, got {picture.dtype} {picture.shape} in images[{k}] and "
                f"{pictures[0].dtype} {pictures[0].shape} in images[0]; resize them, or normalize them one by one"
            )
    return pictures[0]


def _norm(
    channels: int, mean: ArrayLike, std: ArrayLike, scale: float, out_layout: Layout, dtype: DTypeLike
) -> FrozenBatchNorm:
    """It works in the pictures' own units: (x - mean / scale) / (std / scale)."""
    scale = options.scale(scale, "scale")
    centre, width = _of_channels(mean, "mean", channels), _of_channels(std, "std", channels)
    if not (width > 0.0).all():
        raise ValueError(f"std must be above 0 in every channel, got {width.min():g}; pass standard deviations")
    with np.errstate(all="ignore"):
        centre, var = centre / scale, (width / scale) ** 2
    return FrozenBatchNorm(
        weight=None, bias=None, running_mean=centre, running_var=var,
        eps=0.0, layout="NHWC", dtype=dtype, out_layout=out_layout,
    )  # fmt: skip


def _of_channels(v: ArrayLike, name: str, channels: int) -> Vector:
    if np.ndim(v) == 0:
        v = np.full(channels, check.number(v, name, "a finite number, or one for each channel", -1e300, 1e300, 0.5))
    array = check.data(v, name, check.NUMBERS)
    if array.shape != (channels,):
        otherwise = "channels stand last: of (C, H, W) pass np.moveaxis(image, 0, -1), of RGBA images[..., :3]"
        raise ValueError(
            f"{name} must be a number, or of shape ({channels},), one for each of the channels, got {array.shape}; "
            f"{remedy.for_a_vector(v, array.shape, channels, name, otherwise)}"
        )
    return check.vector(array, name, channels, "NHWC")
