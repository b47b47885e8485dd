"""What a call asks for, as far as types tell: refused while it is compiled, in the words of `ask`."""

# mypy: disable-error-code="untyped-decorator, attr-defined, no-any-return"

from __future__ import annotations

from typing import Any, NamedTuple

from numba.core import types
from numba.np.numpy_support import as_dtype

from cpubn.ask import check, options
from cpubn.backends.epilogue import Activation
from cpubn.maths.activations import CODES, TABLE
from cpubn.njit.call import TYPES
from cpubn.njit.errors import Errors, untyped
from cpubn.njit.symbols import absence

FLOATS = "float32", "float64"
NUMBERS = (*TYPES, "uint32", "int32", "uint64", "int64")


def known(value: Any) -> Any:
    """What was left out or written down in the call; else the type of what is known at run time."""
    if isinstance(value, types.Omitted):
        return value.value
    if isinstance(value, types.Literal):
        return value.literal_value
    return None if isinstance(value, types.NoneType) else value


def need_functions() -> None:
    reason = absence()
    if reason is not None:
        untyped(reason)


def samples(name: str, kind: Any, dtypes: tuple[str, ...] = FLOATS, ndim: int | None = None) -> Any:
    """The type of an array of samples, of x's number of axes."""
    if not isinstance(kind, types.Array) or str(kind.dtype) not in dtypes:
        untyped(
            f"{name} must be an array of {check.alternatives(dtypes)} within numba.njit, got {kind}; convert it, for "
            f"example with {name}.astype(np.float32)"
        )
    if ndim is None and not 2 <= kind.ndim <= 5:
        untyped(
            f"{name} must have 2 to 5 dimensions, got {kind.ndim}; "
            f"a single sample needs a batch axis: {name}[np.newaxis]"
        )
    if ndim not in (None, kind.ndim):
        untyped(f"{name} must have the result's {ndim} dimensions, got {kind.ndim}; pass one value for each of y")
    return kind


def optional(name: str, kind: Any, like: Any, dtype: str) -> None:
    """An array of x's rank and of one dtype, or None."""
    if known(kind) is not None and str(samples(name, kind, FLOATS, like.ndim).dtype) != dtype:
        untyped(
            f"{name} must have the result's dtype {dtype}, got {kind.dtype}; convert it with {name}.astype(np.{dtype})"
        )


def written(name: str, kind: Any) -> None:
    if known(kind) is not None and not kind.mutable:
        untyped(f"{name} must be writeable, got a read-only array; pass a copy of it: {name}.copy()")


def vector(name: str, kind: Any, *, is_optional: bool = False, updated: bool = False) -> None:
    if is_optional and known(kind) is None:
        return
    dtypes = FLOATS if updated else NUMBERS
    if not isinstance(kind, types.Array) or kind.ndim != 1 or str(kind.dtype) not in dtypes:
        untyped(
            f"{name} must be an array of {check.alternatives(dtypes)} and of shape (C,) within numba.njit, got "
            f"{kind}; convert it, for example with np.asarray({name}, dtype=np.float64)"
        )
    if updated:
        written(name, kind)


def running(mean: Any, var: Any, training: bool | None) -> None:
    """Running statistics: both or none."""
    if (known(mean) is None) != (known(var) is None):
        missing = "running_mean" if known(mean) is None else "running_var"
        untyped(f"running_mean and running_var must come together, got no {missing}; pass both or neither")
    if known(mean) is None and training is False:
        untyped(
            "running_mean and running_var must be given where training=False, got None; "
            "pass them, or training=True to normalize with the batch's own statistics"
        )
    for name, kind in {"running_mean": mean, "running_var": var}.items():
        vector(name, kind, is_optional=True, updated=training is not False)


def flag(name: str, value: Any) -> Any:
    """True, False or None, where that is known at run time alone."""
    value = known(value)
    if isinstance(value, types.Boolean):
        return None
    return value if isinstance(value, bool) else untyped(f"{name} must be True or False, got {value!r}; pass a bool")


def number(name: str, value: Any) -> None:
    value = known(value)
    if isinstance(value, (bool, types.Boolean)) or not isinstance(value, (int, float, types.Integer, types.Float)):
        untyped(f"{name} must be a number, got {value!r}; pass a float")


def layout(value: Any, name: str = "layout") -> Any:
    """ "NCHW" or "NHWC"."""
    value = known(value)
    if isinstance(value, types.Type):
        untyped(
            f"{name} must be written down in the call within numba.njit, got a value of {value}; pass 'NCHW' or 'NHWC'"
        )
    try:
        return check.layout_name(value, name)
    except ValueError as error:
        untyped(str(error))


def axis(x: Any, name: str) -> int:
    return 1 if name == "NCHW" else int(x.ndim) - 1


def backend(value: Any) -> None:
    if known(value) not in (None, "cython"):
        untyped(f"backend must be 'cython' within numba.njit, got {known(value)!r}; leave it out")


def threads(value: Any) -> None:
    if not isinstance(known(value), (int, types.Integer)) or isinstance(known(value), bool):
        untyped(f"threads must be a whole number, got {known(value)!r}; pass an int")


def dtype(value: Any, x: Any) -> str:
    """The name of the output's."""
    value = known(value)
    if isinstance(value, types.Type):
        try:
            value = as_dtype(value.dtype if isinstance(value, (types.NumberClass, types.DType)) else value)
        except Exception:  # a type of numba's that NumPy does not have
            untyped(f"dtype must be np.float32 or np.float64, got {value}; pass one of them")
    try:
        found = str(options.floating(value)) if value is not None else str(x.dtype)
    except (TypeError, ValueError) as error:
        untyped(str(error))
    if found not in FLOATS:
        if value is None:
            untyped(f"dtype must be given where x is of {x.dtype}, got None; pass dtype=np.float32")
        untyped(f"dtype must be np.float32 or np.float64 within numba.njit, got {found}; pass one of them")
    if found == "float64" and str(x.dtype) != "float64":
        untyped(f"dtype must be np.float32 where x is of {x.dtype}, got float64; pass x.astype(np.float64)")
    return found


class Fused(NamedTuple):
    """An activation of the table, and the numbers that a call gives it at run time."""

    code: int
    low: float
    high: float
    given: int
    errors: Errors


def activation(value: Any) -> Fused:
    value = known(value)
    if value is None:
        return Fused(0, 0.0, 0.0, 0, {})
    parts = tuple(map(known, value.types)) if isinstance(value, types.BaseTuple) else (value,)
    name, *numbers = parts or (None,)
    if not isinstance(name, str) or not all(isinstance(n, (int, float, types.Integer, types.Float)) for n in numbers):
        untyped(
            f"activation must be one of {options.CHOICE}, written down in the call within numba.njit, got {value}; "
            "call a function of your own on the result"
        )
    # Numbers that are in any range, in place of those of the call.
    entry = TABLE[CODES[name] - 1] if name in CODES else None
    stand_ins = () if entry is None else tuple(0.5 + k for k in range(len(numbers)))
    try:
        made: Activation | None = options.activation((name, *stand_ins))
    except (TypeError, ValueError) as error:
        untyped(str(error))
    assert made is not None
    assert entry is not None
    rule = entry.rule
    wanted = f"with {rule.wanted}" if rule else "with numbers"
    text = f"activation must be {entry.form} {wanted}, got others; {rule.remedy if rule else 'pass floats'}"
    return Fused(made.code, made.low, made.high, len(numbers), {5: (ValueError, text)})


def array_like(x: Any, dtype_name: str, turned: bool) -> Any:
    """The type of a new array of x's shape: of x's order in memory, or in another layout end to end."""
    return types.Array(types.float32 if dtype_name == "float32" else types.float64, x.ndim, "C" if turned else x.layout)


def is_plain(kind: Any) -> bool:
    """Whether a vector is read where it is."""
    return bool(kind.dtype == types.float64 and kind.layout == "C" and kind.aligned)
