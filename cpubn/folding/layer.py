"""What stands beside a batch norm: the weight and bias of a convolution or linear layer, in any layout, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from cpubn.ask import check, remedy
from cpubn.frozen import FrozenBatchNorm
from cpubn.typing import Array, Vector

KernelLayout: TypeAlias = Literal["OIHW", "HWIO"]
Side: TypeAlias = Literal["input", "output"]


class Freezable(Protocol):
    """A layer, or a Norm of cpubn.convert."""

    def freeze(self) -> FrozenBatchNorm: ...


Norm: TypeAlias = FrozenBatchNorm | Freezable


@dataclass(frozen=True)
class AffineLayer:
    """A layer's own copy of its parameters in float64."""

    weight: Array  # in the layout it came in
    grouped: Array  # a view of weight: (groups, out / groups, in / groups, *kernel)
    bias: Vector  # (out,), zeros where the layer has none
    dtype: np.dtype[Any]  # that the weight came in
    outputs: int
    inputs: int
    form: str  # for messages

    @classmethod
    def conv(
        cls, weight: ArrayLike, bias: ArrayLike | None, groups: int, transposed: bool, kernel_layout: KernelLayout
    ) -> Self:
        """A convolution of 1 to 3 dimensions."""
        if not isinstance(kernel_layout, str) or kernel_layout not in ("OIHW", "HWIO"):
            raise ValueError(
                "kernel_layout must be 'OIHW' (channels first, as torch keeps weights, for any rank) or 'HWIO' "
                f"(channels last, as Keras and Flax do), got {kernel_layout!r}"
            )
        if not isinstance(transposed, bool):
            raise TypeError(f"transposed must be True or False, got {transposed!r}; say which the convolution is")
        array = check.on_host(weight, "weight", check.FLOATS)
        if not 3 <= array.ndim <= 5:
            raise ValueError(
                f"weight must have 3 to 5 dimensions, two of them channels, got shape {array.shape}; "
                "a linear layer's is for fold_linear and fold_into_next_linear"
            )
        groups = check.count(groups, "groups", "that of the convolution")
        form = f"shape {array.shape}, groups={groups}, transposed={transposed}, kernel_layout={kernel_layout!r}"
        axis = 0 if kernel_layout == "OIHW" else array.ndim - 1
        if groups == 0 or array.shape[axis] % groups:
            raise ValueError(
                f"groups must divide the {'input' if transposed else 'output'} channels, axis {axis} of weight, "
                f"got groups={groups} for shape {array.shape}; check groups, transposed and kernel_layout"
            )
        return cls._of(array, bias, groups, transposed, kernel_layout, form)

    @classmethod
    def linear(cls, weight: ArrayLike, bias: ArrayLike | None) -> Self:
        """A linear layer, which is a convolution of no dimensions."""
        array = check.on_host(weight, "weight", check.FLOATS)
        if array.ndim != 2:
            raise ValueError(
                f"weight must have shape (out, in), got {array.shape}; "
                "a convolution's is for fold_conv and fold_into_next_conv"
            )
        return cls._of(array, bias, 1, False, "OIHW", f"shape {array.shape}")

    @classmethod
    def _of(
        cls,
        array: Array,
        bias: ArrayLike | None,
        groups: int,
        transposed: bool,
        kernel_layout: KernelLayout,
        form: str,
    ) -> Self:
        weight = array.astype(np.float64, order="C")
        view = weight
        if kernel_layout == "HWIO":
            view = view.transpose(-1, -2, *range(view.ndim - 2))
        view = view.reshape(groups, view.shape[0] // groups, *view.shape[1:])
        if transposed:
            view = view.swapaxes(1, 2)
        outputs, inputs = view.shape[0] * view.shape[1], view.shape[0] * view.shape[2]
        vector = np.zeros(outputs) if bias is None else channel_values(bias, "bias", outputs, "output", form)
        return cls(weight, view, vector, array.dtype, outputs, inputs, form)


def channel_values(v: ArrayLike, name: str, count: int, side: Side, form: str) -> Vector:
    """One value for each channel on one side of a layer."""
    array = check.on_host(v, name, check.FLOATS)
    if array.shape != (count,):
        way = remedy.for_a_vector(v, array.shape, count, name, f"pass one value for each {side} channel")
        raise ValueError(
            f"{name} must have shape ({count},), the {side} channels of weight ({form}), got {array.shape}; {way}"
        )
    return array.astype(np.float64)


def constant_norm(bn: Norm, layer: AffineLayer, side: Side) -> FrozenBatchNorm:
    """bn with constants, of as many features as the layer has channels on one side."""
    constant = bn if isinstance(bn, FrozenBatchNorm) else bn.freeze() if hasattr(bn, "freeze") else None
    if not isinstance(constant, FrozenBatchNorm):
        raise TypeError(
            f"bn must be a BatchNorm1d, BatchNorm2d, BatchNorm3d, FrozenBatchNorm or convert.Norm, got "
            f"{type(bn).__name__}; build cpubn.FrozenBatchNorm from its weight, bias, running_mean, running_var and eps"
        )
    if constant.is_quantized:
        raise ValueError(
            "bn must not be quantized, got one whose scales and zero points a fold would lose; "
            "build cpubn.FrozenBatchNorm from its weight, bias, running_mean, running_var and eps"
        )
    channels = layer.outputs if side == "output" else layer.inputs
    if constant.num_features != channels:
        raise ValueError(
            f"bn must have {channels} features, the {side} channels of weight ({layer.form}), got "
            f"{constant.num_features}; check which layer bn belongs to, and the layer's groups, transposed and "
            "kernel_layout"
        )
    return constant.to_host() if constant.backend == "cuda" else constant


def rounded(name: str, values: Array, largest: Vector, dtype: np.dtype[Any]) -> Array:
    """float64 values in the layer's dtype, given the largest magnitude in each channel."""
    with np.errstate(over="ignore"):
        fits = np.isfinite(largest.astype(dtype).astype(np.float64))
        if fits.all():
            return values.astype(dtype)
    channel = int(np.argmin(fits))
    cure = (
        "fold a copy in a wider dtype"
        if np.isfinite(largest[channel])
        else "look there for NaN or infinity in weight, bias and bn"
    )
    raise ValueError(
        f"{name} must be finite in {dtype} once folded, got {largest[channel]:g} in channel {channel}; {cure}"
    )
