"""FrozenBatchNorm: batch norm as inference calls it, with everything per channel worked out beforehand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeAlias, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from cpubn.ask import check, forward, options
from cpubn.ask.state import constant, divisor, on_host, vectors_by_name
from cpubn.backends import choice, host, register
from cpubn.backends.compiled import variants
from cpubn.backends.epilogue import Quantization
from cpubn.backends.foreign import maker
from cpubn.backends.place import located, place_of, to_device, to_host
from cpubn.typing import Activation, Array, AxisOrder, Backend, Constants, Floating, Layout, Vector

if TYPE_CHECKING:  # from Python 3.13 on typing has it
    from typing_extensions import TypeVar

    # The dtype that was asked for, None for that of each input.
    DType = TypeVar("DType", bound=np.dtype[Any] | None, default=Any, covariant=True)
else:
    from typing import TypeVar

    DType = TypeVar("DType")

Affine: TypeAlias = dict[np.dtype[Any], Array]  # (3, C) centre, scale and shift, by the type that is computed in


class FrozenBatchNorm(Generic[DType]):
    """y = activation((x - running_mean) / sqrt(running_var + eps) * weight + bias + residual), with constants.

    All are given by name: batch_norm's order of the vectors is another one. What is made of them is worked out on the
    host, and copied to the GPU where the vectors came from there.

    Parameters
    ----------
    weight, bias : (C,) of any floating type or integers, or None for ones and zeros.
    running_mean, running_var : (C,) of any floating type or integers.
    eps : added to the variance; running_var + eps must be above 0.
    layout : of x, "NCHW" (channels on axis 1) or "NHWC" (channels last).
    activation, dtype, out_layout : as in batch_norm: the activation, and the type and layout of y.
    backend : "cython", "numba" or "numpy"
        None for the default when this object is made, and for "cuda" where the vectors are on a GPU.

    Attributes
    ----------
    running_mean, running_var, weight, bias : (C,) float64 copies, on the host read-only.
    eps, layout, out_layout, backend, num_features : as they were given; num_features is C.

    Raises
    ------
    ValueError, TypeError : as batch_norm does.

    Examples
    --------
    >>> norm = cpubn.FrozenBatchNorm(weight=None, bias=None, running_mean=[1.0], running_var=[4.0], eps=0)
    >>> norm(np.array([[1.0], [5.0]])).tolist()
    [[0.0], [2.0]]
    """

    layout: Final[AxisOrder]
    out_layout: Final[AxisOrder]
    eps: Final[float]
    backend: Final[Backend]
    num_features: Final[int]
    running_mean: Final[Vector]
    running_var: Final[Vector]
    weight: Final[Vector]
    bias: Final[Vector]
    _affine: Affine
    _direct: Callable[[Any, Any, Any], Array | None]

    @overload
    def __init__(self: FrozenBatchNorm[None], *, dtype: None = None, **constants: Unpack[Constants]) -> None: ...
    @overload
    def __init__(
        self: FrozenBatchNorm[np.dtype[Any] | None], *, dtype: DTypeLike | None, **constants: Unpack[Constants]
    ) -> None: ...
    @vectors_by_name
    @register.calm()
    def __init__(
        self, *, weight: ArrayLike | None, bias: ArrayLike | None, running_mean: ArrayLike, running_var: ArrayLike,
        eps: float = 1e-5, layout: Layout = "NCHW", activation: Activation | None = None,
        dtype: DTypeLike | None = None, out_layout: Layout | None = None, backend: Backend | None = None,
    ) -> None:  # fmt: skip
        self.layout = check.layout_name(layout)
        self.out_layout = options.out_layout(out_layout, self.layout)
        self.eps = check.epsilon(eps, training=False)
        self._activation = options.activation(activation)
        self._dtype = None if dtype is None else options.floating(dtype)
        backend = choice.backend_for(self._activation, backend)
        on_gpu, weight, bias, running_mean, running_var = on_host(weight, bias, running_mean, running_var)
        if on_gpu is not None:
            choice.kernels_for(on_gpu, backend)
        self.backend = choice.resolve(backend)
        mean = check.channel_vector(running_mean, "running_mean")
        self.num_features = mean.size
        self.running_mean = constant(check.vector(mean, "running_mean", mean.size, layout))
        self.running_var = constant(check.vector(running_var, "running_var", mean.size, layout))
        divisor(self.running_var, self.eps)
        self.weight = constant(check.optional_vector(mean, weight, "weight", mean.size, layout, 1.0))
        self.bias = constant(check.optional_vector(mean, bias, "bias", mean.size, layout, 0.0))
        self._quantization: Quantization | None = None
        self._set_affine(self.running_mean, self.running_var, self.eps)
        if on_gpu is not None:
            vars(self).update(vars(self._on_gpu(on_gpu.device)))

    @property
    def dtype(self) -> DType:
        """That of the output, None where it is the input's."""
        return self._dtype  # type: ignore[return-value] # as the overloads of __init__ say

    @property
    def activation(self) -> Activation | None:
        """As it was given."""
        return self._activation and self._activation.given

    @property
    def is_quantized(self) -> bool:
        """Whether `quantized` made it."""
        return self._quantization is not None

    @classmethod
    @vectors_by_name
    @register.calm()
    def quantized(
        cls, *, weight: ArrayLike | None, bias: ArrayLike | None, running_mean: ArrayLike, running_var: ArrayLike,
        eps: float = 1e-5, scale: float, zero_point: int, out_scale: float, out_zero_point: int,
        dtype: DTypeLike = "int8", layout: Layout = "NCHW", activation: Activation | None = None,
        backend: Backend | None = None,
    ) -> Self:  # fmt: skip
        """Batch norm of int8 or uint8 data: x_real = (x - zero_point) * scale, and the same of y by its own numbers::

            y = saturate(round(y_real / out_scale) + out_zero_point)         rounded to nearest, ties to even

        Jacob et al. (2018, arXiv:1712.05877), equation 1.

        Parameters
        ----------
        weight, bias, running_mean, running_var, eps, layout, activation, backend : as of the class, in real units.
        scale, zero_point : of x; a number above 0, and a whole number that dtype has.
        out_scale, out_zero_point : of y.
        dtype : "int8" or "uint8", of x and of y.

        Examples
        --------
        >>> steps = {"scale": 0.5, "zero_point": 0, "out_scale": 0.25, "out_zero_point": 0}
        >>> vectors = {"weight": None, "bias": None, "running_mean": [1.0], "running_var": [4.0]}
        >>> cpubn.FrozenBatchNorm.quantized(**vectors, eps=0, **steps)(np.array([[4]], np.int8))
        array([[2]], dtype=int8)
        """
        kind = options.quantized_dtype(dtype)
        step, zero = options.scale(scale, "scale"), options.zero_point(zero_point, "zero_point", kind)
        quantization = options.quantization(out_scale, out_zero_point, kind)
        on_gpu, weight, bias, running_mean, running_var = on_host(weight, bias, running_mean, running_var)
        made = cls(
            weight=weight,
            bias=bias,
            running_mean=running_mean,
            running_var=running_var,
            eps=eps,
            layout=layout,
            activation=activation,
            backend=backend if on_gpu is None else None,
        )
        vars(made).update(_dtype=kind, _quantization=quantization)
        with np.errstate(all="ignore"):
            made._set_affine(made.running_mean / step + zero, made.running_var / step**2, made.eps / step**2)
        return made if on_gpu is None else made._on_gpu(on_gpu.device)

    @overload
    def __call__(
        self: FrozenBatchNorm[None],
        x: NDArray[Floating],
        residual: ArrayLike | None = None,
        out: object = None,
        like: None = None,
    ) -> NDArray[Floating]: ...
    @overload
    def __call__(self, x: ArrayLike, residual: ArrayLike | None = None, out: Any = None, like: Any = None) -> Array: ...
    def __call__(self, x: ArrayLike, residual: ArrayLike | None = None, out: Any = None, like: Any = None) -> Array:
        """Normalize.

        Parameters
        ----------
        x : array of 2 to 5 dimensions with C channels, of any type that batch_norm takes in inference.
        residual, out, like : as in batch_norm; out may be x itself, or residual.

        Returns
        -------
        y : of x's shape and memory order but for out_layout, and its dtype but for dtype; or ``out``.
        """
        make = None if like is None else maker(like)
        y = self._direct(x, residual, out)
        y = self._any(x, residual, out) if y is None else y
        return y if make is None else make(y)

    def to_device(self) -> Self:
        """The same with its constants on the current GPU, for arrays that are there.

        Raises ValueError where no GPU can be used.
        """
        choice.resolve("cuda")
        return self._on_gpu(None)

    def to_host(self) -> Self:
        """The same with its constants on the host, for the default backend."""
        backend = choice.backend_for(self._activation, None)
        if backend == "cuda":
            raise ValueError(
                f"activation must be one that the host has, got {self.activation!r}, compiled for a GPU alone; "
                "build another FrozenBatchNorm of these vectors, with one compiled by numba.njit"
            )
        return self._off_gpu(backend or choice.host_backend())

    def _on_gpu(self, device: int | None) -> Self:
        move = partial(to_device, device=device)
        return self._moved(move, {t: located(move(rows), "affine") for t, rows in self._affine.items()}, "cuda")

    def _off_gpu(self, backend: Backend) -> Self:
        affine = {t: to_host(rows) for t, rows in self._affine.items()}
        return self._moved(lambda v: constant(to_host(v)), affine, backend)

    def _moved(self, move: Callable[[Any], Any], affine: Affine, backend: Backend) -> Self:
        made = object.__new__(type(self))
        vectors = {name: move(getattr(self, name)) for name in forward.VECTORS}
        vars(made).update({**vars(self), **vectors, "backend": backend, "_affine": affine})
        vars(made).update(_direct=made._direct_path(affine))
        return made

    if not TYPE_CHECKING:  # which would take it that any attribute can be set

        def __setattr__(self, name: str, value: Any) -> None:
            if "_direct" in vars(self):
                raise AttributeError(f"{name} must stay as it is, got a new one; build another FrozenBatchNorm")
            super().__setattr__(name, value)

    def __repr__(self) -> str:
        rest: dict[str, Any] = {"activation": self.activation, "dtype": self._dtype and self._dtype.name}
        rest["out_layout"] = None if self.out_layout == self.layout else self.out_layout
        given = "".join(f"{name}={value!r}, " for name, value in rest.items() if value is not None)
        first = f"FrozenBatchNorm({self.num_features}, eps={self.eps}, layout={self.layout!r}, "
        return f"{first}{given}backend={self.backend!r})"

    def _set_affine(self, mean: Vector, var: Vector, eps: float) -> None:
        vectors = (mean, None, var), self.weight, self.bias, eps
        affine: Affine = {t: host.affine(t, *vectors) for t in map(np.dtype, (np.float32, np.float64))}
        vars(self).update(_affine=affine, _direct=self._direct_path(affine))

    def _any(self, x: Any, residual: Any, out: Any) -> Array:
        if self.backend == "cython":
            y = self._direct(*map(variants.borrowed(), (x, residual, out)))
            if y is not None:
                return y if out is None else out
        return self._asked(x, residual, out)

    @register.calm()
    def _asked(self, x: Any, residual: Any, out: Any) -> Array:
        if self._quantization is not None and residual is not None:
            raise ValueError("residual must be None where data is quantized, got one; add it to what comes next")
        x = located(x, "x")
        check.together(x, {"the constants": next(iter(self._affine.values()))})
        how = self.layout, self._activation, residual, self._dtype, self._quantization, self.out_layout, out
        output = forward.apply(x, self.num_features, forward.Wanted(*how))
        # On the compiled backend the call is right then, but not all of it were arrays.
        y = self._direct(output.x, check.as_array(residual), check.as_array(out))
        if y is not None:
            return y if out is None else out
        y = output.apply(self._affine[output.computed_in], choice.kernels_for(output.x, self.backend))
        return y if out is None or place_of(output.x) is not host else out

    def _direct_path(self, affine: Affine) -> Callable[[Any, Any, Any], Array | None]:
        """What takes arrays on the host as they are, and answers None where something is wrong, or no array."""
        calls = choice.compiled_calls(self.backend)
        if calls is None:
            return lambda x, residual, out: None
        how = self._activation, self._quantization, self._dtype, self.layout, self.out_layout
        return calls.affine(tuple(affine.values()), how)  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        """A copy or pickle is on the host; with a function compiled for a GPU it waits there for to_device()."""
        kept = self
        if self.backend == "cuda":
            kept = self._off_gpu(choice.backend_for(self._activation, None) or choice.host_backend())
        state = {name: value for name, value in vars(kept).items() if name != "_direct"}
        # No records of cpubn's own: a pickle is read by other versions, too.
        quantization = self._quantization and tuple(self._quantization)
        return {**state, "_activation": self.activation, "_quantization": quantization}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name in forward.VECTORS:
            state[name].flags.writeable = False  # which neither a deep copy nor a pickle keeps
        vars(self).update(state, _activation=options.activation(state["_activation"]))
        vars(self).update(_quantization=self._quantization and Quantization(*self._quantization))
        vars(self).update(_direct=self._direct_path(self._affine))
