"""Folding: the batch norm of inference beside a convolution or linear layer becomes part of its weights, at no cost.

bn(x) = scale * x + shift, with scale = weight / sqrt(running_var + eps) and shift = bias - running_mean * scale. So

    bn(W x + b) = (scale * W) x + (scale * b + shift)
    W bn(x) + b = (W * scale) x + (W shift + b)

(Jacob et al., 2018, arXiv:1712.05877, section 3.2.) All of it is computed in float64 and rounded once, to the dtype of
the layer's weight.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cpubn.folding.convolution import Pooling, check_pooling
from cpubn.folding.layer import AffineLayer, KernelLayout, Norm, constant_norm, rounded
from cpubn.folding.padding import PerAxis, per_axis
from cpubn.frozen import FrozenBatchNorm
from cpubn.maths import algebra
from cpubn.typing import Array, Vector


def fold_conv(
    weight: ArrayLike,
    bias: ArrayLike | None,
    bn: Norm,
    *,
    groups: int = 1,
    transposed: bool = False,
    kernel_layout: KernelLayout = "OIHW",
    pooling: Pooling | None = None,
) -> tuple[Array, Array]:
    """conv'(x) = bn(conv(x)): batch norm behind a convolution becomes part of its weights::

        weight' = weight * scale        bias' = (bias - bn.running_mean) * scale + bn.bias

    scale = bn.weight / sqrt(bn.running_var + bn.eps), one value for each output channel. Stride, padding and dilation
    stay what they are.

    Parameters
    ----------
    weight : float16, bfloat16, float32 or float64, with 1 to 3 kernel axes
        Its shape is by kernel_layout, "OIHW", torch's: ``(out, in / groups, *kernel)``, transposed ``(in, out / groups,
        *kernel)``; "HWIO", Keras's and Flax's: ``(*kernel, in / groups, out)``, transposed ``(*kernel, out / groups,
        in)``, that of Keras's Conv2DTranspose; swap the last two axes of Flax's ConvTranspose, which keeps ``(*kernel,
        in, out)`` by default. A depthwise kernel of Keras, ``(*kernel, in, multiplier)``, is
        ``weight.reshape(*kernel, 1, in * multiplier)``, groups=in.
    bias : (out,), or None where the convolution has none.
    bn : a batch norm layer, a FrozenBatchNorm, or a Norm of cpubn.convert, of `out` features
        A layer's running statistics count in either mode. Its activation is not folded: apply it to what the folded
        convolution gives.
    groups, transposed, kernel_layout : the convolution's.
    pooling : "average" or "max" where a pooling layer, and nothing else, stands between the convolution and bn
        ``pool(conv'(x)) = bn(pool(conv(x)))``. An average passes every bn, of windows whose padding it does not count;
        a maximum one with no negative weight, else ValueError.

    Returns
    -------
    weight', bias' : in weight's shape, and (out,), both in weight's dtype.

    Raises
    ------
    ValueError : where shapes, groups and bn do not fit together, where bn has no running statistics, and where a result
        is not finite in weight's dtype (the message names the channel).
    TypeError : for other types.

    Examples
    --------
    >>> bn = cpubn.FrozenBatchNorm(weight=[6.0], bias=[1.0], running_mean=[2.0], running_var=[9.0], eps=0)
    >>> weight, bias = cpubn.fold_conv(np.ones((1, 1, 3, 3)), None, bn)
    >>> weight[0, 0, 0, 0].item(), bias.item()
    (2.0, -3.0)
    """
    layer = AffineLayer.conv(weight, bias, groups, transposed, kernel_layout)
    _pooled(constant_norm(bn, layer, "output"), pooling)
    return _fold(layer, bn)


def fold_linear(weight: ArrayLike, bias: ArrayLike | None, bn: Norm) -> tuple[Array, Array]:
    """linear'(x) = bn(linear(x)): batch norm behind a linear layer becomes part of its weights::

        weight' = weight * scale        bias' = (bias - bn.running_mean) * scale + bn.bias

    scale = bn.weight / sqrt(bn.running_var + bn.eps), one value for each row of weight.

    Parameters
    ----------
    weight : (out, in) as torch's, of the types of fold_conv; Keras and Flax keep its transpose.
    bias : (out,), or None where the layer has none.
    bn : as in fold_conv, of `out` features.

    Returns
    -------
    weight', bias' : (out, in) and (out,), both in weight's dtype.

    Raises
    ------
    ValueError, TypeError : as fold_conv does.

    Examples
    --------
    >>> bn = cpubn.FrozenBatchNorm(weight=[6.0], bias=[1.0], running_mean=[2.0], running_var=[9.0], eps=0)
    >>> cpubn.fold_linear(np.ones((1, 2)), np.array([5.0]), bn)
    (array([[2., 2.]]), array([7.]))
    """
    return _fold(AffineLayer.linear(weight, bias), bn)


def fold_into_next_conv(
    weight: ArrayLike,
    bias: ArrayLike | None,
    bn: Norm,
    *,
    groups: int = 1,
    transposed: bool = False,
    kernel_layout: KernelLayout = "OIHW",
    zero_padding: bool = True,
    stride: PerAxis | None = None,
    pooling: Pooling | None = None,
) -> tuple[Array, Array, Array | None]:
    """conv'(x) = conv(bn(x)): batch norm before a convolution becomes part of its weights::

        weight' = weight * scale        bias' = bias + sum(weight * shift)        pad = -shift / scale

    For each input channel scale = bn.weight / sqrt(bn.running_var + bn.eps), shift = bn.bias - bn.running_mean * scale;
    the sum runs over input channels and kernel. Where conv pads bn(x) with zeros, conv' must pad x with `pad`, the
    value that bn maps to zero in each channel: `cpubn.surround(x, padding, pad)`, and convolve with padding=0.

    A transposed convolution, too, reads zeros that are not bn(x). With stride 1 they lie around x: surround it with
    ``dilation * (kernel - 1) + output_padding`` values of `pad` on each side, and add that number to the layer's
    padding. With another stride they lie between the samples as well, and the shift becomes a bias that differs from
    position to position, which no bias vector can be: ValueError, unless shift is 0 in every channel.

    Parameters
    ----------
    weight, bias, groups, transposed, kernel_layout : the convolution's, as in fold_conv.
    bn : as in fold_conv, of `in` features. It must have no activation, which would stand between the two.
    zero_padding : False says that the convolution reads no zeros around bn(x)
        Because its padding is 0 or its padding mode another (transposed: padding is at least ``dilation * (kernel - 1)
        + output_padding``). `pad` is then None.
    stride : the convolution's; needed where it is transposed, and of no matter elsewhere.
    pooling : as in fold_conv, of a pooling layer between bn and the convolution: conv'(pool(x)) = conv(pool(bn(x))).

    Returns
    -------
    weight', bias', pad : in weight's shape, (out,), and (in,), all in weight's dtype.

    Raises
    ------
    ValueError, TypeError : as fold_conv does, and where zero_padding needs a pad and a channel has scale = 0 and
        shift != 0: no x gives bn(x) = 0 there. Where both are 0, every x does, and pad is 0.

    Examples
    --------
    >>> bn = cpubn.FrozenBatchNorm(weight=[6.0], bias=[1.0], running_mean=[2.0], running_var=[9.0], eps=0)
    >>> weight, bias, pad = cpubn.fold_into_next_conv(np.ones((1, 1, 3, 3)), None, bn)
    >>> weight[0, 0, 0, 0].item(), bias.item(), pad.item()
    (2.0, -27.0, 1.5)
    """
    layer = AffineLayer.conv(weight, bias, groups, transposed, kernel_layout)
    frozen = _norm_before(bn, layer)
    _pooled(frozen, pooling)
    if transposed:
        _shift_must_be_uniform(frozen, stride, layer.grouped.ndim - 3)
    folded = _fold_into_next(layer, frozen)
    return *folded, _pad(frozen, layer.dtype) if zero_padding else None


def fold_into_next_linear(weight: ArrayLike, bias: ArrayLike | None, bn: Norm) -> tuple[Array, Array]:
    """linear'(x) = linear(bn(x)): batch norm before a linear layer becomes part of its weights::

        weight' = weight * scale        bias' = bias + weight @ shift

    For each column scale = bn.weight / sqrt(bn.running_var + bn.eps), shift = bn.bias - bn.running_mean * scale.
    A linear layer over a flattened (C, H, W) is a convolution: fold weight.reshape(out, C, H, W) by
    fold_into_next_conv, zero_padding=False.

    Parameters
    ----------
    weight : (out, in) as torch's, of the types of fold_conv; Keras and Flax keep its transpose.
    bias : (out,), or None where the layer has none.
    bn : as in fold_conv, of `in` features; without an activation, which would stand between the two.

    Returns
    -------
    weight', bias' : (out, in) and (out,), both in weight's dtype.

    Raises
    ------
    ValueError, TypeError : as fold_conv does.

    Examples
    --------
    >>> bn = cpubn.FrozenBatchNorm(weight=[6.0], bias=[1.0], running_mean=[2.0], running_var=[9.0], eps=0)
    >>> cpubn.fold_into_next_linear(np.ones((2, 1)), None, bn)
    (array([[2.],
           [2.]]), array([-3., -3.]))
    """
    layer = AffineLayer.linear(weight, bias)
    return _fold_into_next(layer, _norm_before(bn, layer))


def _fold(layer: AffineLayer, bn: Norm) -> tuple[Array, Array]:
    frozen = constant_norm(bn, layer, "output")
    # conv(x) - bias is what the weight alone gives, so that the layer's own bias is the centre of bn's input.
    scale, bias = _affine(frozen, centre=layer.bias)
    return _scaled(layer, scale, axis=1), rounded("bias", bias, abs(bias), layer.dtype)


def _fold_into_next(layer: AffineLayer, frozen: FrozenBatchNorm) -> tuple[Array, Array]:
    scale, shift = _affine(frozen, centre=np.zeros(layer.inputs))
    taps = layer.grouped.sum(axis=tuple(range(3, layer.grouped.ndim)))
    with np.errstate(all="ignore"):
        bias = layer.bias + np.einsum("goi,gi->go", taps, shift.reshape(len(taps), -1)).ravel()
    return _scaled(layer, scale, axis=2), rounded("bias", bias, abs(bias), layer.dtype)


def _scaled(layer: AffineLayer, scale: Vector, axis: int) -> Array:
    """The weight, scaled in place by a value for each channel on an axis of `grouped`: 1 output, 2 input channels."""
    shape = [n if a in (0, axis) else 1 for a, n in enumerate(layer.grouped.shape)]
    with np.errstate(all="ignore"):
        np.multiply(layer.grouped, scale.reshape(shape), out=layer.grouped)
    others = tuple(a for a, n in enumerate(layer.grouped.shape) if a not in (0, axis))
    largest = abs(layer.grouped).max(axis=others, initial=0.0).ravel()
    return rounded("weight", layer.weight, largest, layer.dtype)


def _affine(frozen: FrozenBatchNorm, centre: Vector) -> tuple[Vector, Vector]:
    """scale and shift of bn(x) = scale * (x - centre) + shift."""
    with np.errstate(all="ignore"):
        return algebra.affine(
            frozen.running_mean, 0.0, frozen.running_var, frozen.weight, frozen.bias, frozen.eps, centre
        )


def _pooled(frozen: FrozenBatchNorm, pooling: Pooling | None) -> None:
    """Whether the map of each channel can change places with a pooling layer."""
    check_pooling(pooling)
    if pooling != "max":
        return
    scale, _ = _affine(frozen, centre=np.zeros(frozen.num_features))
    if (scale < 0.0).any():
        channel = int(np.argmax(scale < 0.0))
        raise ValueError(
            "bn must have no negative weight to pass a max pooling, which would have to be a minimum, got scale "
            f"{scale[channel]:g} in channel {channel}; keep bn"
        )


def _pad(frozen: FrozenBatchNorm, dtype: np.dtype[np.generic]) -> Array:
    """The x that bn maps to zero: running_mean - bias / scale."""
    scale, shift = _affine(frozen, centre=np.zeros(frozen.num_features))
    constant = (scale == 0.0) & (shift != 0.0)
    if constant.any():
        channel = int(np.argmax(constant))
        raise ValueError(
            "bn must give 0 for some x in each channel, as the convolution pads bn(x) with zeros, got scale 0 and "
            f"shift {shift[channel]:g} in channel {channel}: bn(x) is that shift for every x, and no pad value can "
            "stand for the zeros; keep bn, or pass zero_padding=False if the convolution pads with none"
        )
    with np.errstate(all="ignore"):
        pad = np.where(shift == 0.0, 0.0, frozen.running_mean - frozen.bias / scale)
    return rounded("the pad value", pad, abs(pad), dtype)


def _shift_must_be_uniform(frozen: FrozenBatchNorm, stride: PerAxis | None, rank: int) -> None:
    _, shift = _affine(frozen, centre=np.zeros(frozen.num_features))
    if not shift.any() or (stride is not None and set(per_axis(stride, "stride", rank, 1)) == {1}):
        return
    channel = int(np.argmax(shift != 0.0))
    raise ValueError(
        "stride must be 1 where bn stands before a transposed convolution, unless bn's shift is 0, got "
        f"stride={stride} and shift {shift[channel]:g} in channel {channel}: the zeros between samples are not bn(x), "
        "and the shift becomes a bias that differs from position to position; pass stride=1 if it is, or keep bn"
    )


def _norm_before(bn: Norm, layer: AffineLayer) -> FrozenBatchNorm:
    frozen = constant_norm(bn, layer, "input")
    if frozen.activation is not None:
        raise ValueError(
            f"bn must have no activation to be folded into the layer after it, got {frozen.activation!r}, which stands "
            "between the two; keep bn, or fold it into the layer before it"
        )
    return frozen
