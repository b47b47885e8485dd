"""BatchNorm1d, BatchNorm2d and BatchNorm3d: torch.nn's layers on plain arrays, with a backward of their own."""

from __future__ import annotations

from typing import Any, ClassVar, Self, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from cpubn.ask import check, options
from cpubn.ask.backward import Request, backward_through
from cpubn.ask.forward import forward_through
from cpubn.ask.policies import KEEP, RAISE
from cpubn.ask.ranks import backward_over
from cpubn.ask.weights import PROPAGATE, ZERO, Asked, asked, weights_of
from cpubn.backends import choice, epilogue
from cpubn.backends.place import located, plain
from cpubn.backends.signs import kept_of
from cpubn.backends.weights import Weights
from cpubn.frozen import FrozenBatchNorm
from cpubn.layers.described import described
from cpubn.layers.kept import IN_NO_GRAD, NOT_CALLED, USED, Kept, comm_of, keeps, whole, witness_of
from cpubn.layers.policies import Decides, by_policies
from cpubn.layers.vectors import put
from cpubn.statistics import Moments

from cpubn.typing import (  # isort: skip
    Activation, Array, Backend, Communicator, Floating, Layout, Masked, Missing, OnEmpty, OnNonfinite, OnSingle, Values,
)  # fmt: skip


class _BatchNorm(Decides):
    ranks: ClassVar[tuple[int, ...]]
    eps: float
    training: bool
    _activation: epilogue.Activation | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        layout: Layout = "NCHW",
        activation: Activation | None = None,
        dtype: DTypeLike = "float32",
        backend: Backend | None = None,
        comm: Communicator | None = None,
        on_single: OnSingle = RAISE,
        on_empty: OnEmpty = KEEP,
        on_nonfinite: OnNonfinite = PROPAGATE,
    ) -> None:
        self.eps = check.epsilon(eps, training=True)
        self.momentum = None if momentum is None else check.momentum(momentum)
        act = options.activation(activation)
        backend = choice.backend_for(act, backend)
        if backend is not None:
            choice.resolve(backend)
        self._put(
            num_features=check.count(num_features, "num_features", "the number of channels"),
            layout=check.layout_name(layout),
            backend=backend,
            _activation=act,
            _dtype=options.parameter_dtype(dtype),
            _kept=NOT_CALLED,
        )
        affine, tracks = check.flag(affine, "affine"), check.flag(track_running_stats, "track_running_stats")
        super().__init__(self.num_features, self._dtype, affine, tracks)
        self.training, self.comm = True, comm
        self.residual_grad = None
        self._set_policies(on_single=on_single, on_empty=on_empty, on_nonfinite=on_nonfinite)

    @overload
    def __call__(
        self, x: NDArray[Floating], residual: Values = None, out: Array | None = None, **masked: Unpack[Masked]
    ) -> NDArray[Floating]: ...
    @overload
    def __call__(
        self, x: ArrayLike, residual: Values = None, out: Array | None = None, **masked: Unpack[Masked]
    ) -> Array: ...
    def __call__(
        self, x: ArrayLike, residual: Values = None, out: Array | None = None, *, mask: Values = None,
        lengths: Values = None, weights: Values = None, nan: Missing = PROPAGATE, masked_output: float = ZERO,
    ) -> Array:  # fmt: skip
        """y = activation(affine + residual), in training mode with the batch's statistics.

        Parameters
        ----------
        x : of the layer's shape, of any type that batch_norm takes, and any strides.
        residual, out : as in batch_norm; out may be x, at the price of backward, or residual.
        mask, lengths, weights, nan, masked_output : as in batch_norm; backward remembers them.
        """
        masked, own = asked(mask, lengths, weights, nan, masked_output), None
        inference = not self.training and self.running_mean is not None
        if masked is not None and inference:
            x = self._input(x)
            own = self._weights(x, masked, out)
        if inference and isinstance(x, np.ndarray) and x.ndim in self.ranks:
            calls = choice.compiled_calls(self.backend)
            vectors = self.running_mean, self.running_var, self.weight, self.bias, None
            y = calls and calls.infer(
                x, vectors, (0.0, self.eps, self.layout, self._activation, own, residual, None, None, out)
            )
            if y is not None:
                self._keep(x, residual, y, (out, own), None)
                return y  # type: ignore[no-any-return]
        if not inference:
            moves = self.training and self._tracks
            if moves and self._stand_in is not None:
                return self._stand_in(self, x, residual, (out, masked))  # type: ignore[no-any-return]
            return self._by_batch_statistics(x, residual, (out, masked), moves)[0]
        array = self._input(x)
        vectors = self.running_mean, self.running_var, self.weight, self.bias, None
        how = 0.0, self.eps, self.layout, self._activation, own, residual, None, None, out
        y, _, _ = forward_through(array, vectors, how, False, False, self.backend)
        self._keep(array, residual, y, (out, own), None)
        return y

    @overload
    def backward(
        self, dy: NDArray[Floating], *, out: Array | None = None, retain: bool = False
    ) -> NDArray[Floating]: ...
    @overload
    def backward(self, dy: ArrayLike, *, out: Array | None = None, retain: bool = False) -> Array: ...
    def backward(self, dy: ArrayLike, *, out: Array | None = None, retain: bool = False) -> Array:
        """dx, the gradient of the last input; adds to weight_grad and bias_grad, and sets residual_grad.

        Parameters
        ----------
        dy : the gradient of the last output, of its shape and dtype.
        out : array for dx; may be dy.
        retain : keep for another backward what the layer kept of its forward, and lets go of otherwise.
        """
        comm = comm_of(self._kept, self.comm if self.training else None)
        if comm is None:
            dx, _, _, g = backward_through(self._asked(dy, out, retain))
        else:
            dx, _, _, g = backward_over(comm, self.num_features, lambda: self._asked(dy, out, retain))
        self._put(residual_grad=g, _kept=Kept(*self._kept).noted(dx) if retain else USED)
        return dx

    def _asked(self, dy: ArrayLike, out: Array | None, retain: bool) -> Request:
        check.flag(retain, "retain")
        kept = whole(self._kept, self.weight, self.bias)
        batch = kept.batch
        if batch is None:
            mean, var = self._running()
            statistics = mean, None, var, 1.0
        elif kept.weights is None:
            statistics = *batch._vectors, float(max(batch.count, 1))
        else:
            statistics = *batch._vectors[:2], batch.var(), 1.0
        return Request(
            *(dy, kept.x, statistics, self.weight, self.bias, self.eps, batch is not None, self.layout),
            *(self._activation, kept.residual, kept.output, kept.had_residual, out, self._totals(), self.backend),
            kept.weights,
        )

    @property
    def activation(self) -> Activation | None:
        """As it was given; build another layer for another one."""
        return self._activation and self._activation.given

    def __getstate__(self) -> dict[str, Any]:
        """Without records of cpubn's own: a pickle is read by other versions, too."""
        return {**super().__getstate__(), "_activation": self.activation}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "_activation": options.activation(state["_activation"])})

    def train(self, mode: bool = True) -> Self:
        """Normalize with batch statistics and move the running ones from now on; returns the layer."""
        self.training = check.flag(mode, "mode")
        return self

    def eval(self) -> Self:
        """Normalize with the running statistics from now on; returns the layer."""
        return self.train(False)

    @overload
    def freeze(
        self, activation: Activation | None = None, *, dtype: None = None, out_layout: Layout | None = None
    ) -> FrozenBatchNorm[None]: ...
    @overload
    def freeze(
        self, activation: Activation | None = None, *, dtype: DTypeLike | None, out_layout: Layout | None = None
    ) -> FrozenBatchNorm[np.dtype[Any] | None]: ...
    def freeze(
        self, activation: Activation | None = None, *, dtype: DTypeLike | None = None, out_layout: Layout | None = None
    ) -> FrozenBatchNorm[Any]:
        """The layer as inference calls it: a copy of its weight, bias and running statistics.

        Parameters
        ----------
        activation : in place of the layer's; to have none, build it from the layer's vectors.
        dtype, out_layout : of its output, as in batch_norm: a first layer then takes images of bytes.
        """
        mean, var = self._running()
        return FrozenBatchNorm(
            weight=self.weight,
            bias=self.bias,
            running_mean=mean,
            running_var=var,
            eps=self.eps,
            layout=self.layout,
            activation=self.activation if activation is None else activation,
            dtype=dtype,
            out_layout=out_layout,
            backend=self.backend,
        )

    def __repr__(self) -> str:
        """An expression for a new layer like this one."""
        return (
            f"{type(self).__name__}({self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, track_running_stats={self.track_running_stats}, layout={self.layout!r}, "
            f"activation={self.activation!r}, dtype={self._dtype.name!r}, backend={self.backend!r}"
            f"{''.join(f', {name}={value!r}' for name, value in self._unusual().items())})"
            f"{'' if self.training else '.eval()'}"
        )

    def _input(self, x: ArrayLike) -> Array:
        return check.layer_input(x, type(self).__name__, self.ranks, self.num_features, self.layout)

    def _weights(self, x: Array, masked: Asked, out: Any) -> Weights | None:
        batch = self.training or self.running_mean is None
        enough = batch and self.on_single == RAISE
        weights = weights_of(x, self.layout, masked, summed=batch, training=enough, out=out)
        if weights is not None and self.training and self.comm is not None:
            raise ValueError(
                "comm must be None with mask, lengths, weights or nan, which ranks do not add up, got both; "
                "set the layer's comm to None, or leave them out"
            )
        return weights

    def _trained_on(self, x: ArrayLike, masked: Asked | None, out: Any) -> tuple[Array, Weights | None]:
        array = self._input(x)
        weights = masked and self._weights(array, masked, out)
        if keeps():
            options.differentiable(self._activation)
        return array, weights

    def _by_batch_statistics(
        self, x: ArrayLike, residual: Values, given: tuple[Any, Asked | None], moves: bool
    ) -> tuple[Array, Moments | None]:
        """y and the batch's moments, of all ranks where there are some; whether the running statistics move.

        given: out, and what counts. No moments: they may not go into running statistics.
        """
        if self._policies is not None or self.comm is not None:
            return by_policies(self, x, residual, given, moves)
        out, masked = given
        mean, var, tracked = (self.running_mean, self.running_var, self._tracked) if moves else (None, None, None)
        array, own = self._trained_on(x, masked, out)
        how = self._momentum(), self.eps, self.layout, self._activation, own, residual, None, None, out
        y, *found = forward_through(array, (mean, var, self.weight, self.bias, tracked), how, True, True, self.backend)
        batch = Moments.of(*found)
        self._keep(array, residual, y, (out, own), batch)
        return y, batch

    def _keep(
        self, x: Array, residual: Any, y: Array, given: tuple[Any, Any], batch: Moments | None, comm: Any = None
    ) -> None:
        """Remember for backward what the forward read, and of what it wrote what the activation needs.

        given: out and weights.
        """
        out, weights = given
        if not keeps():
            put(self, "_kept", IN_NO_GRAD)
            return
        output = added = None
        if self._activation is not None:
            # Signs for training alone: an inference whose backward is never called should not pay for them.
            output = kept_of(self._activation, plain(located(y, "y")), self.backend, signs=batch is not None)
            added = plain(located(residual, "residual")) if residual is not None and output is None else None
        witness = calls = None
        if batch is not None:  # an inference would take a tenth longer for it, and as a rule has no backward
            calls = choice.compiled_calls(self.backend)
            witness = witness_of((x, output, added, self.weight, self.bias, weights and weights.array), calls)
        kept = x, batch, added, residual is not None, output, witness, calls, None, comm, weights
        put(self, "_kept", kept if out is None else Kept(*kept).noted(y))


class BatchNorm1d(_BatchNorm):
    __doc__ = described("BatchNorm1d", "(N, C) or (N, C, L); with layout 'NHWC' (N, C) or (N, L, C)", (8, 2))
    ranks: ClassVar[tuple[int, ...]] = (2, 3)


class BatchNorm2d(_BatchNorm):
    __doc__ = described("BatchNorm2d", "(N, C, H, W); with layout 'NHWC' (N, H, W, C)", (8, 2, 4, 4))
    ranks: ClassVar[tuple[int, ...]] = (4,)


class BatchNorm3d(_BatchNorm):
    __doc__ = described("BatchNorm3d", "(N, C, D, H, W); with layout 'NHWC' (N, D, H, W, C)", (8, 2, 4, 4, 4))
    ranks: ClassVar[tuple[int, ...]] = (5,)
