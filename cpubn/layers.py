"""BatchNorm1d, BatchNorm2d and BatchNorm3d: torch.nn's layers on plain arrays, with a backward of their own."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from cpubn import _check, _check_output, _dispatch
from cpubn._backward import Request, backward_through
from cpubn._layer_vectors import LayerVectors
from cpubn._place import located, place_of, plain
from cpubn._signs import Signs, kept_of
from cpubn._types import ActivationLike, Array, Layout
from cpubn._walk import overlap
from cpubn.frozen import FrozenBatchNorm
from cpubn.functional import batch_norm
from cpubn.statistics import Moments

PARAMETERS = """

    Parameters
    ----------
    num_features : C, the number of channels.
    eps : added to the variance.
    momentum : weight of the new batch in the running statistics; None for their cumulative average.
    affine : whether the layer has a weight and a bias, (C,), starting at ones and zeros.
    track_running_stats : whether running statistics are kept; without them eval mode uses the batch's own.
    layout : "NCHW" (channels on axis 1) or "NHWC" (channels last).
    activation : y = activation(affine + residual), as in batch_norm. One of your own is a pair of functions, it and its
        derivative, compiled by ``numba.njit`` for the Numba backend, by ``numba.cuda.jit(device=True)`` for a GPU.
    dtype : of weight and bias, float32 or float64. Running statistics and gradients are float64: C numbers each, in
        which float32 would throw away what the kernels kept at a large mean.
    backend : "cython", "numba" or "numpy"; None for the current default, and for "cuda" once ``to_device()`` has been
        called.

    Errors are ValueError and TypeError, raised before anything is written, or RuntimeError where backward has no input.
    For backward a layer keeps until its next call, by reference, the input, and beside it: for relu, relu6, leaky_relu
    (of a slope of at least 0) and clip one bit an element, for sigmoid and tanh the output, and for other activations,
    and the former in eval mode, the residual. They must not be changed before. Serve with ``freeze()``, which keeps
    nothing.
    """


class _BatchNorm(LayerVectors):
    ranks: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        layout: Layout = "NCHW",
        activation: ActivationLike = None,
        dtype: DTypeLike = "float32",
        backend: str | None = None,
    ) -> None:
        self.num_features = _check.count(num_features, "num_features", "the number of channels")
        self.eps = _check.epsilon(eps, training=True)
        self.momentum = None if momentum is None else _check.momentum(momentum)
        self.layout = _check.layout_name(layout)
        self._activation = _check_output.activation(activation)
        self.backend = _dispatch.backend_for(self._activation, backend)
        if self.backend is not None:
            _dispatch.resolve(self.backend)
        self.training = True
        super().__init__(self.num_features, _check.parameter_dtype(dtype), affine, track_running_stats)
        self.residual_grad: Array | None = None
        self._input: Array | None = None  # of the last forward
        self._residual: Array | None = None
        self._had_residual = False
        self._kept: Array | Signs | None = None  # what the activation's gradient needs of its output
        self._overwritten: str | None = None  # what backward would need
        self._batch: Moments | None = None  # of the last forward; None: the running statistics

    def __call__(self, x: ArrayLike, residual: ArrayLike | None = None, out: Array | None = None) -> Array:
        """y = activation(affine + residual), in training mode with the batch's statistics.

        `residual` has x's shape and dtype. `out` may be `x`, at the price of backward, or `residual`.
        """
        if not self.training and self.running_mean is not None and type(x) is np.ndarray and x.ndim in self.ranks:
            direct = _dispatch.direct_kernels(self.backend)
            y = direct and direct.infer_directly(
                x, self.running_mean, self.running_var, self.weight, self.bias, 0.0, self.eps, self.layout,
                self._activation, residual, None, None, out, _dispatch.threads,
            )  # fmt: skip
            if y is not None:
                self._keep(x, residual, y, out if y is x or y is residual else None, None)
                return y  # type: ignore[no-any-return]
        array = _check.layer_input(x, type(self).__name__, self.ranks, self.num_features, self.layout)
        if self.training or self.running_mean is None:
            _check_output.differentiable(self._activation)
            return self._with_batch_statistics(array, residual, out)
        y = batch_norm(
            array,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            eps=self.eps,
            layout=self.layout,
            activation=self._activation,
            residual=residual,
            out=out,
            backend=self.backend,
        )
        self._keep(array, residual, y, out, None)
        return y

    def backward(self, dy: ArrayLike, *, out: Array | None = None) -> Array:
        """Gradient with respect to the last input; adds to weight_grad and bias_grad. `out` may be `dy`.

        If there was a residual, its gradient is put into residual_grad.
        """
        if self._overwritten:
            raise RuntimeError(
                f"backward needs the {self._overwritten} of the last forward, got one that was overwritten by out; "
                "give the forward an output of its own"
            )
        if self._input is None:
            raise RuntimeError("backward needs the input of the last forward, got none; call the layer first")
        gradients = {"weight_grad": self.weight_grad, "bias_grad": self.bias_grad}
        gradients = _check.together(located(self._input, "the last input"), gradients, like="the last input")
        for name, gradient in gradients.items():
            _check.in_place(gradient, name)
        batch = self._batch
        if batch is None:
            (mean, var), low = self._running(), None
        else:
            mean, low, var = batch._normalizing()
        dx, weight_grad, bias_grad, g = backward_through(
            Request(
                *(dy, self._input, mean, low, var, self.weight, self.bias, self.eps, batch is not None, self.layout),
                *(self._activation, self._residual, self._kept, self._had_residual, out, self.backend),
            )
        )
        self.residual_grad = g
        self._note_overwriting(dx)
        if self.weight_grad is not None and self.bias_grad is not None:
            total, new = (
                [located(v, "a gradient") for v in pair]
                for pair in ((self.weight_grad, self.bias_grad), (weight_grad, bias_grad))
            )
            place_of(new[0]).accumulate(total, new)
        return dx

    @property
    def activation(self) -> ActivationLike:
        """As it was given; build another layer for another one."""
        return self._activation and self._activation.given

    def train(self, mode: bool = True) -> Self:
        """Normalize with batch statistics and move the running ones from now on; returns the layer."""
        self.training = bool(mode)
        return self

    def eval(self) -> Self:
        """Normalize with the running statistics from now on; returns the layer."""
        return self.train(False)

    def freeze(self, activation: ActivationLike = None) -> FrozenBatchNorm:
        """The layer as inference calls it: a copy of its weight, bias and running statistics.

        With the layer's activation, unless another one is given; to have none, build it from the layer's vectors.
        """
        return FrozenBatchNorm(
            *(self.weight, self.bias, *self._running(), self.eps),
            layout=self.layout,
            activation=self._activation if activation is None else activation,
            backend=self.backend,
        )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.weight is not None}, track_running_stats={self.running_mean is not None}, "
            f"layout={self.layout!r}, activation={self.activation!r}, backend={self.backend!r})"
        )

    def _with_batch_statistics(self, x: Array, residual: ArrayLike | None, out: Array | None) -> Array:
        tracked, mean, var = self.num_batches_tracked or 0, None, None
        if self.training:
            mean, var = self.running_mean, self.running_var
        y, batch = batch_norm(
            x,
            mean,
            var,
            self.weight,
            self.bias,
            training=True,
            momentum=1.0 / (tracked + 1) if self.momentum is None else self.momentum,
            eps=self.eps,
            layout=self.layout,
            activation=self._activation,
            residual=residual,
            out=out,
            return_moments=True,
            backend=self.backend,
        )
        if mean is not None and batch.count:
            self.num_batches_tracked = tracked + 1
        self._keep(x, residual, y, out, batch)
        return y

    def _keep(self, x: Array, residual: Any, y: Array, out: Any, batch: Moments | None) -> None:
        """Remember for backward what the forward read, and of what it wrote what the activation needs."""
        self._input, self._batch, self._overwritten = x, batch, None
        self._had_residual = residual is not None
        self._kept = self._residual = None
        if self._activation is not None:
            # Signs for training alone: an inference whose backward is never called should not pay for them.
            made = plain(located(y, "y"))
            self._kept = kept_of(self._activation, made, self.backend, signs=batch is not None)
            if self._had_residual and self._kept is None:
                self._residual = plain(located(residual, "residual"))
        if out is not None:
            self._note_overwriting(y)

    def _note_overwriting(self, written: Array) -> None:
        for name, array in {"input": self._input, "residual": self._residual}.items():
            if array is not None and overlap(written, array):
                self._overwritten = name


class BatchNorm1d(_BatchNorm):
    __doc__ = "Batch norm over x of shape (N, C) or (N, C, L); with layout 'NHWC' (N, C) or (N, L, C)." + PARAMETERS
    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    __doc__ = "Batch norm over x of shape (N, C, H, W); with layout 'NHWC' (N, H, W, C)." + PARAMETERS
    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    __doc__ = "Batch norm over x of shape (N, C, D, H, W); with layout 'NHWC' (N, D, H, W, C)." + PARAMETERS
    ranks = (5,)
