"""Norm: the numbers of one batch norm, in torch's meanings, wherever they came from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from cpubn.ask import check
from cpubn.ask.state import off_torch
from cpubn.frozen import FrozenBatchNorm
from cpubn.layers import BatchNorm1d, BatchNorm2d, BatchNorm3d
from cpubn.typing import Array, Layout, Vector

Variance: TypeAlias = Literal["unbiased", "biased"]
Layer = TypeVar("Layer", BatchNorm1d, BatchNorm2d, BatchNorm3d)


class Unknown(Enum):
    """The type of UNKNOWN."""

    UNKNOWN = "unknown"

    def __repr__(self) -> str:
        return self.value.upper()


UNKNOWN: Final = Unknown.UNKNOWN  # what a source does not hold; None has a meaning of its own in momentum

Momentum: TypeAlias = float | Unknown | None  # None: the cumulative average
Count: TypeAlias = int | Unknown | None  # of values per channel; None: keep the running variance as it is


@dataclass(frozen=True, eq=False)
class Norm:
    """y = (x - running_mean) / sqrt(running_var + eps) * weight + bias, and how training goes on.

    Parameters
    ----------
    running_mean, running_var : (C,), of any floating dtype
        Kept, as weight and bias are, as read-only float64 copies.
    eps : added to the variance.
    weight, bias : (C,), or None where there is none.
    momentum : weight of the new batch in the running statistics, None for their cumulative average (torch's meaning).
    num_batches_tracked : how many batches the running statistics have seen.
    variance : "unbiased" or "biased", which variance of each batch the running one averages
        sum((x - mean)^2) / (M - 1), as torch and cpubn do, or the same sum / M, as Keras, Flax and ONNX do. M is the
        number of values per channel.
    layout : "NCHW" or "NHWC", of the data.

    Notes
    -----
    momentum, num_batches_tracked and variance may be UNKNOWN; what needs them asks for them by name, and
    ``dataclasses.replace(norm, momentum=0.1)`` says them. Inference needs none of the three: all frameworks then divide
    by the running variance as it stands.

    Raises
    ------
    ValueError, TypeError : vectors of several lengths, NaN or infinity, running_var + eps below 0.

    Examples
    --------
    >>> norm = convert.Norm(running_mean=[1.0], running_var=[4.0], eps=0.0)
    >>> norm.freeze()(np.array([[5.0]]))
    array([[2.]])
    """

    running_mean: Vector
    running_var: Vector
    eps: float
    weight: Vector | None = None
    bias: Vector | None = None
    momentum: Momentum = UNKNOWN
    num_batches_tracked: int | Unknown = UNKNOWN
    variance: Variance | Unknown = UNKNOWN
    layout: Layout = "NCHW"

    def __post_init__(self) -> None:
        given = {"running_mean": self.running_mean, "running_var": self.running_var}
        given |= {name: v for name, v in (("weight", self.weight), ("bias", self.bias)) if v is not None}
        checked: dict[str, Any] = {name: finite_vector(value, name) for name, value in given.items()}
        shape = checked["running_mean"].shape
        for name, vector in checked.items():
            if vector.shape != shape:
                raise ValueError(
                    f"{name} must have shape {shape}, that of running_mean, got {vector.shape}; "
                    "pass one value per channel of the same batch norm"
                )
        eps = checked["eps"] = check.epsilon(self.eps, training=False)
        if (checked["running_var"] + eps < 0.0).any():
            worst = int(checked["running_var"].argmin())
            raise ValueError(
                f"running_var + eps must be at least 0, got running_var {checked['running_var'][worst]} and "
                f"eps {eps:g} in channel {worst}; pass the variance, neither its logarithm nor a damaged file's"
            )
        checked["layout"] = check.layout_name(self.layout)
        if self.momentum is not None and self.momentum is not UNKNOWN:
            checked["momentum"] = check.momentum(self.momentum)
        if self.num_batches_tracked is not UNKNOWN:
            what = "how many batches the running statistics have seen"
            checked["num_batches_tracked"] = check.count(self.num_batches_tracked, "num_batches_tracked", what)
        if self.variance not in ("unbiased", "biased", UNKNOWN):
            raise ValueError(
                f"variance must be 'unbiased' (torch, cpubn) or 'biased' (Keras, Flax), got {self.variance!r}; "
                "say which variance of a batch the running one averages, or leave it out for inference"
            )
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, bn: BatchNorm1d | BatchNorm2d | BatchNorm3d | FrozenBatchNorm) -> Norm:
        """The numbers of a layer with running statistics, or of a FrozenBatchNorm, which knows nothing of training.

        An activation is not among them: in all these formats it is a layer of its own.
        """
        if isinstance(bn, FrozenBatchNorm):
            if bn.is_quantized:
                raise ValueError(
                    "bn must not be quantized, got one whose scales and zero points no format here keeps; "
                    "build FrozenBatchNorm from its weight, bias, running_mean, running_var and eps"
                )
            return cls(bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias, layout=bn.layout)
        if not isinstance(bn, BatchNorm1d | BatchNorm2d | BatchNorm3d):
            raise TypeError(
                f"bn must be BatchNorm1d, BatchNorm2d, BatchNorm3d or FrozenBatchNorm of cpubn, got "
                f"{type(bn).__name__}; read another framework's with from_torch, from_keras, from_flax or from_onnx"
            )
        frozen = bn.freeze()  # which says what to do about a layer without running statistics
        count = bn.num_batches_tracked
        return cls(
            frozen.running_mean,
            frozen.running_var,
            bn.eps,
            bn.weight,
            bn.bias,
            bn.momentum,
            UNKNOWN if count is None else count,
            "unbiased",
            bn.layout,
        )

    @property
    def num_features(self) -> int:
        """C, the number of channels."""
        return self.running_mean.size

    def vectors(self) -> dict[str, Vector]:
        """The vectors that there are, by name."""
        vectors = {name: getattr(self, name) for name in ("weight", "bias", "running_mean", "running_var")}
        return {name: vector for name, vector in vectors.items() if vector is not None}

    def freeze(self, **options: Any) -> FrozenBatchNorm:
        """The batch norm as inference calls it.

        Parameters
        ----------
        options : FrozenBatchNorm's: layout, activation, dtype, out_layout, backend.
        """
        return FrozenBatchNorm(
            weight=self.weight,
            bias=self.bias,
            running_mean=self.running_mean,
            running_var=self.running_var,
            eps=self.eps,
            **{"layout": self.layout} | options,
        )

    def layer(
        self,
        kind: type[Layer],
        *,
        momentum: Momentum = UNKNOWN,
        values_per_channel: Count = UNKNOWN,
        **options: Any,
    ) -> Layer:
        """A BatchNorm1d, BatchNorm2d or BatchNorm3d that trains on from here.

        Parameters
        ----------
        kind : the class, which says the rank of the data.
        momentum : needed where it is UNKNOWN, in torch's meaning.
        values_per_channel : see with_variance; needed where the running variance is not unbiased, as the layer's is.
        options : the layer's: layout, activation, dtype, backend.

        Notes
        -----
        Without weight and bias it has affine=False; with one of them, the other starts at ones or zeros.
        """
        if not (isinstance(kind, type) and issubclass(kind, BatchNorm1d | BatchNorm2d | BatchNorm3d)):
            raise TypeError(f"kind must be BatchNorm1d, BatchNorm2d or BatchNorm3d, got {kind!r}; pass the class")
        norm = self if momentum is UNKNOWN else replace(self, momentum=momentum)
        state = norm.state_dict(values_per_channel)
        options = {"layout": self.layout} | options
        bn = kind(self.num_features, self.eps, norm.known_momentum("the layer"), "weight" in state, **options)
        bn.load_state_dict(state)
        return bn

    def state_dict(self, values_per_channel: Count = UNKNOWN) -> dict[str, Array]:
        """torch's keys and meanings, in float64: weight and bias both or neither, and the unbiased variance.

        An unknown num_batches_tracked is left out; the cumulative average, which goes on from it, asks for it.
        """
        vectors = self.with_variance("unbiased", values_per_channel).vectors()
        if len(vectors) == 3:
            vectors = {"weight": np.ones(self.num_features), "bias": np.zeros(self.num_features)} | vectors
        state = {name: np.array(vector) for name, vector in vectors.items()}
        if self.num_batches_tracked is not UNKNOWN:
            state["num_batches_tracked"] = np.array(self.num_batches_tracked, np.int64)
        elif self.momentum is None:
            raise ValueError(
                "num_batches_tracked must be given where momentum is None, the cumulative average, got UNKNOWN; "
                "pass dataclasses.replace(norm, num_batches_tracked=count), or another momentum"
            )
        return state

    def with_variance(self, variance: Variance, values_per_channel: Count = UNKNOWN) -> Norm:
        """unbiased = biased * M / (M - 1), for M = values_per_channel: N, N*L, N*H*W or N*D*H*W of a training batch.

        The average of the one is that of the other times M / (M - 1) if every batch had M values per channel. What is
        left in it of the 1 that it started from, (1 - momentum)^batches, is scaled along. What comes out is for
        training on: inference divides by the number that it finds, and then differs from the source's by that factor.
        values_per_channel=None keeps the numbers: inference as before, and an average that goes over to the other
        variance batch by batch. Neither is taken without being asked for: UNKNOWN raises ValueError where they differ.
        """
        if self.variance == variance or values_per_channel is None:
            return replace(self, variance=variance)
        if self.variance is UNKNOWN:
            raise ValueError(
                f"variance must be known to make it {variance}, got UNKNOWN; pass "
                "dataclasses.replace(norm, variance=...) with 'unbiased' (torch, cpubn) or 'biased' (Keras, Flax), "
                "or values_per_channel=None to keep the numbers as inference uses them"
            )
        if values_per_channel is UNKNOWN:
            raise ValueError(
                f"values_per_channel must be given to make a {self.variance} running variance {variance}, got none; "
                "pass the number of values per channel in a training batch (N*H*W), or None to keep the numbers as "
                "inference uses them"
            )
        count = check.count(values_per_channel, "values_per_channel", "N*H*W of a training batch, or None")
        if count < 2:
            raise ValueError(
                f"values_per_channel must be at least 2, got {count}: of a single value there is no unbiased variance; "
                "pass N*H*W of a training batch, or None to keep the numbers"
            )
        factor = count / (count - 1) if variance == "unbiased" else (count - 1) / count
        return replace(self, variance=variance, running_var=self.running_var * factor)

    def known_momentum(self, target: str) -> float | None:
        """The momentum, or an error that asks for it."""
        if self.momentum is UNKNOWN:
            raise ValueError(
                f"momentum must be given for {target}, got UNKNOWN, because its source does not hold it; pass "
                "momentum= where the weights are read, or dataclasses.replace(norm, momentum=0.1)"
            )
        return self.momentum


def plain(value: Any, name: str) -> Array:
    """The array of anything that holds one, also of a torch tensor, without an import of torch."""
    value = off_torch(value, name)
    check.unmasked(value, name)
    try:
        return np.asanyarray(value)
    except Exception as error:  # a list of lists of many lengths, a variable that was deleted
        raise TypeError(f"{name} must be an array, got {type(value).__name__}: {error}; pass an array of it") from error


def finite_vector(value: ArrayLike, name: str) -> Vector:
    """A read-only float64 copy of float16, bfloat16, float32 or float64, of which none is NaN or infinite."""
    array = plain(value, name)
    if array.dtype.type not in (np.float16, np.float32, np.float64) and array.dtype.name != "bfloat16":
        raise TypeError(
            f"{name} must be an array of float16, bfloat16, float32 or float64, got {type(value).__name__} "
            f"of {array.dtype}; convert it, for example with np.asarray({name}, dtype=np.float32)"
        )
    if array.ndim != 1:
        raise ValueError(f"{name} must have shape (C,), got {array.shape}; pass one value per channel")
    with np.errstate(invalid="ignore"):  # of a signalling NaN, which is refused below
        vector = np.array(array, dtype=np.float64, order="C", subok=False)
    bad = np.flatnonzero(~np.isfinite(vector))
    if bad.size:
        raise ValueError(
            f"{name} must be finite, got {vector[bad[0]]} in channel {bad[0]}; "
            "take weights from before training diverged, or an undamaged file"
        )
    vector.flags.writeable = False
    return vector
