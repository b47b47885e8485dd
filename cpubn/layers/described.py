"""What the docstrings of BatchNorm1d, BatchNorm2d and BatchNorm3d share."""

from math import prod

TEXT = """Batch norm over x of shape {shapes}.

Parameters
----------
num_features : C, the number of channels.
eps : added to the variance.
momentum : weight of the new batch in the running statistics; None for their cumulative average.
affine : whether the layer has a weight and a bias, (C,), starting at ones and zeros.
track_running_stats : whether running statistics are kept; without them eval mode uses the batch's own.
layout : "NCHW" (channels on axis 1) or "NHWC" (channels last).
activation : as in batch_norm, y = activation(affine + residual)
    One of your own is a pair of functions, it and its derivative, compiled by ``numba.njit`` for the Numba backend,
    by ``numba.cuda.jit(device=True)`` for a GPU.
dtype : of weight and bias, float32 or float64
    Running statistics and gradients are float64: float32 would throw away what the kernels kept at a large mean.
backend : "cython", "numba" or "numpy"
    None for the current default, and for "cuda" once ``to_device()`` has been called.
comm : what joins the processes that a batch is spread over, such as ``cpubn.mpi.world()``
    Any object whose ``allgather(array)`` gives the arrays of all ranks, in their order. In training mode statistics and
    dx are the whole batch's then; weight_grad and bias_grad stay this rank's, to be added up as those of other layers
    are. All ranks call together, with an empty x if need be, and an error on one is an error on all.
on_single : what becomes in training of a channel with one value
    "raise", or "running": it is normalized by the running statistics, which stay, and backward is that of inference.
on_empty : "keep" the running statistics of a channel without values, or "raise".
on_nonfinite : where a batch's mean or variance is NaN or infinite, as for x that is
    They "propagate" into the running statistics; "raise", with nothing written; or "skip" the update of all of them and
    of the count, y and gradients being as ever, with a warning at the first time. All three can be set later, too.

Attributes
----------
weight, bias : (C,), of dtype, or None.
weight_grad, bias_grad : (C,) float64, to which each backward adds.
running_mean, running_var : (C,) float64, or None.
num_batches_tracked : how many batches went into them, or None.
residual_grad : the gradient of the last backward's residual, or None.
training : whether the batch's statistics count; ``train()`` and ``eval()`` set it.
num_features, eps, momentum, affine, track_running_stats, layout, activation, backend, comm : as they were given.
on_single, on_empty, on_nonfinite : as they were given.

Raises
------
ValueError, TypeError : before anything is written.
RuntimeError : by backward where it has no input.

Notes
-----
For one backward a layer keeps of its last call, by reference, the input, and beside it: for relu, relu6, clip and
leaky_relu (of a slope of at least 0) one bit an element, for sigmoid and tanh the output, and for the others, and
the former in eval mode, the residual. They must not be changed before, nor weight and bias: of a forward in
training, backward looks at some numbers of each, and most changes are an error. Within ``cpubn.no_grad()`` it keeps
nothing, as does what ``freeze()`` gives.

Examples
--------
>>> bn = cpubn.{kind}(2)
>>> y = bn(np.random.default_rng(0).normal(5, 3, {shape}))
>>> dx = bn.backward(np.ones_like(y))
>>> bn.num_batches_tracked, bool(abs(y.mean()) < 1e-12), bn.bias_grad.tolist()
(1, True, [{values}, {values}])
"""


def described(kind: str, shapes: str, shape: tuple[int, ...]) -> str:
    """The docstring of one, with an example of 2 channels."""
    return TEXT.format(kind=kind, shapes=shapes, shape=shape, values=prod(shape) / 2)
