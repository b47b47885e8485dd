"""Verification of a fold: a batch norm and its layer apart, and folded."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cpubn.ask import check
from cpubn.folding.convolution import Geometry, Pooling, check_pooling, convolve, pool
from cpubn.folding.layer import AffineLayer, KernelLayout, Norm, channel_values, constant_norm
from cpubn.folding.padding import Padding, PerAxis
from cpubn.frozen import FrozenBatchNorm
from cpubn.functional import batch_norm
from cpubn.typing import Array, Layout


def verify_fold(
    weight: ArrayLike,
    bias: ArrayLike | None,
    bn: Norm,
    folded: tuple[ArrayLike, ArrayLike] | tuple[ArrayLike, ArrayLike, ArrayLike | None],
    x: ArrayLike | None = None,
    *,
    norm_first: bool = False,
    groups: int = 1,
    transposed: bool = False,
    kernel_layout: KernelLayout = "OIHW",
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    output_padding: PerAxis = 0,
    pooling: Pooling | None = None,
) -> float:
    """How far a fold is off::

        max |layer'(x) - bn(layer(x))|        with norm_first        max |layer'(x) - layer(bn(x))|

    Both ways are computed in float64, and without the activation of bn.

    Parameters
    ----------
    weight, bias, bn, groups, transposed, kernel_layout : what was folded; weight of two dimensions is a linear layer's.
    folded : what the fold returned, (weight', bias') or (weight', bias', pad).
    x : of any float type, in bn's layout
        ``(N, in, *spatial)`` for "NCHW", ``(N, *spatial, in)`` for "NHWC"; of a linear layer (N, in), or in layout
        "NHWC" ``(N, *others, in)``. None for normal random data, the same in each call, which norm_first brings to the
        running statistics.
    norm_first : whether bn stands before the layer.
    stride, padding, dilation, output_padding : the layer's, in torch's terms: a number, or one for each spatial axis
        padding can also be a pair (before, after) for each; or "valid", which is none, or "same", as TensorFlow and
        Keras have it for any stride, and torch for stride 1.
    pooling : "average" or "max" where a pooling layer stands between the two, for which one of windows of 2 is taken.

    Returns
    -------
    The largest difference, in the units of the output: what rounding folded weights costs, or that the fold is wrong.

    Raises
    ------
    ValueError, TypeError : as the folds do, and for a wrong x.

    Examples
    --------
    >>> bn, weight = cpubn.BatchNorm2d(4), np.random.default_rng(0).normal(size=(4, 2, 3, 3))
    >>> cpubn.verify_fold(weight, None, bn, cpubn.fold_conv(weight, None, bn), padding=1) < 1e-12
    True
    """
    if not isinstance(folded, tuple | list) or len(folded) not in (2, 3):
        raise TypeError(
            f"folded must be (weight, bias) or (weight, bias, pad), got {type(folded).__name__}; "
            "pass what a fold returned"
        )
    layer, other = (
        AffineLayer.linear(w, b) if np.ndim(weight) == 2 else AffineLayer.conv(w, b, groups, transposed, kernel_layout)
        for w, b in ((weight, bias), folded[:2])
    )
    if layer.form != other.form:
        raise ValueError(
            f"the folded weight must have the shape of weight ({layer.form}), got ({other.form}); "
            "pass what a fold of this weight returned"
        )
    frozen = constant_norm(bn, layer, "input" if norm_first else "output")
    check_pooling(pooling)
    if pooling is not None and layer.weight.ndim == 2:
        raise ValueError(f"pooling must be None beside a linear layer, which has no spatial axes, got {pooling!r}")
    geometry = Geometry.of(layer.grouped.shape[3:], stride, padding, dilation, output_padding, transposed)
    if x is None:
        inputs = _random(layer, geometry, frozen if norm_first else None, twice=norm_first and pooling is not None)
    else:
        inputs = _given(x, layer, frozen.layout)
    zeros = pad = np.zeros(layer.inputs)
    if len(folded) == 3 and folded[2] is not None:
        pad = channel_values(folded[2], "pad", layer.inputs, "input", layer.form)

    def norm(z: Array) -> Array:
        return batch_norm(z, frozen.running_mean, frozen.running_var, frozen.weight, frozen.bias, eps=frozen.eps)

    def between(z: Array) -> Array:
        return z if pooling is None else pool(z, pooling)

    if norm_first:
        got = convolve(between(inputs), other, geometry, pad)
        expected = convolve(between(norm(inputs)), layer, geometry, zeros)
    else:
        got = between(convolve(inputs, other, geometry, pad))
        expected = norm(between(convolve(inputs, layer, geometry, zeros)))
    return float(abs(got - expected).max(initial=0.0))


def _given(x: ArrayLike, layer: AffineLayer, layout: Layout) -> Array:
    """x in float64, channels on axis 1."""
    array, axis = check.batch(x, layout)
    check.channels(array, axis, layer.inputs, layout)
    if layer.weight.ndim == 2 and layout == "NHWC":
        array, axis = array.reshape(-1, layer.inputs), 1
    if array.ndim != layer.weight.ndim:
        raise ValueError(
            f"x must have {layer.weight.ndim} dimensions, as many as weight ({layer.form}), got shape {array.shape}; "
            f"pass a batch of the layer's inputs{', or (N, L, C) with bn of layout NHWC' * (layer.weight.ndim == 2)}"
        )
    return np.moveaxis(array, axis, 1).astype(np.float64)


def _random(layer: AffineLayer, geometry: Geometry, norm: FrozenBatchNorm | None, twice: bool) -> Array:
    """A batch of 2, large enough for each tap and stride, with the running statistics of the norm if it comes first."""
    pads = geometry.padding or ((0, 0),) * len(geometry.kernel)
    axes = zip(geometry.reach, geometry.stride, pads, strict=True)
    sizes = ((r + 1 + 2 * (s + max(p))) * (1 + twice) for r, s, p in axes)
    x = np.random.default_rng(0).standard_normal((2, *sizes, layer.inputs))
    if norm is not None:
        x = x * np.sqrt(norm.running_var + norm.eps) + norm.running_mean
    return np.moveaxis(x, -1, 1)
