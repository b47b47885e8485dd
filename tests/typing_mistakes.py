"""Each line that mypy is told to ignore must be a mistake to it: where it is none, the comment is one too many."""

import numpy as np
from numpy.typing import NDArray

import cpubn

x = np.ones((8, 4), np.float32)
mean, var = np.zeros(4), np.ones(4)
bn = cpubn.BatchNorm1d(4)
frozen = bn.freeze()
moments = cpubn.moments(x)

bn.momentun = 1  # type: ignore[attr-defined]
bn.num_features = 3  # type: ignore[assignment]
bn.layout = "NHWC"  # type: ignore[assignment]
bn.affine = False  # type: ignore[misc]
bn.activation = "relu"  # type: ignore[misc]
bn.eps = "small"  # type: ignore[assignment]
bn.weight = object()  # type: ignore[assignment]
print(bn.runing_mean)  # type: ignore[attr-defined]
frozen.eps = 1e-3  # type: ignore[misc]
frozen.weight = mean  # type: ignore[misc]
frozen.wieght = mean  # type: ignore[attr-defined]
print(moments.men)  # type: ignore[attr-defined]
print(cpubn.batchnorm)  # type: ignore[attr-defined]

cpubn.batch_norm(x, mean, var, activation="rleu")  # type: ignore[call-overload]
cpubn.batch_norm(x, mean, var, layout="NCWH")  # type: ignore[call-overload]
cpubn.batch_norm(x, mean, var, moments=True)  # type: ignore[call-overload]
cpubn.batch_norm(x, mean)  # type: ignore[call-overload]
cpubn.batch_norm_backward(x, x, mean, var, backend="torch")  # type: ignore[call-overload]
cpubn.BatchNorm2d(4, activation="rleu")  # type: ignore[arg-type]
cpubn.BatchNorm2d(4, activation=("leaky_relu",))  # type: ignore[arg-type]
cpubn.BatchNorm2d(4, backend="torch")  # type: ignore[arg-type]
bn.freeze("rleu")  # type: ignore[call-overload]
cpubn.FrozenBatchNorm(weight=None, bias=None, running_mean=mean)  # type: ignore[call-overload]
cpubn.use_backend("torch")  # type: ignore[arg-type]
y: NDArray[np.float32] = bn(x)
y = mean  # type: ignore[assignment]
