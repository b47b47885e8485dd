"""What is wrong, raised from compiled code and while it is typed: in the words of `ask`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, TypeAlias

from numba.core import errors

Errors: TypeAlias = dict[int, tuple[type[Exception], str]]

ABSENCE = (
    "the functions that numba.njit compiled this code for must be there, got a cpubn without compiled kernels, or of "
    "another version than the cached code is for; install a C compiler and then cpubn again, or remove the cache"
)
# By statuses of cpubn.h, those that no check of types leaves out. All others say that the function is absent.
ANY: Errors = {
    4: (ValueError, "out must not overlap itself, got strides that do; pass a copy"),
    9: (MemoryError, "no memory for the statistics of a batch"),
    10: (
        ValueError,
        "out must be x, residual or dy itself or apart from it, and neither it nor running statistics may overlap "
        "another array or vector, got memory that does; pass an array of its own",
    ),
}
FEW_VALUES: Errors = {
    8: (
        ValueError,
        "the batch's own statistics need more than 1 value per channel, got x of 1; pass a larger batch, or normalize "
        "with running statistics (training=False, or eval() of a tracked layer)",
    )
}


def variance(name: str) -> Errors:
    text = (
        f"{name} + eps must be above 0 in every channel, got one where it is not; a constant channel has variance 0 "
        "and needs an eps above 0, for example 1e-5, and no variance is negative: check that "
        f"{name.replace('var', 'mean')} and {name} are not in each other's place"
    )
    return {7: (ValueError, text)}


class _Worded:
    """Calls of an exception with a text and numbers to put into it, which compiled code knows when it raises alone."""

    def __new__(cls, text: Any, *numbers: Any) -> Any:
        if isinstance(text, Exception):  # what was made already, while another exception is handled
            return text
        return cls.__mro__[2](text.format(*numbers))


class WordedValueError(_Worded, ValueError):
    """Becomes a ValueError."""


class WordedTypeError(_Worded, TypeError):
    """Becomes a TypeError."""


WORDED = {ValueError: WordedValueError, TypeError: WordedTypeError}


def refuse(
    context: Any, builder: Any, wrong: Any, kind: type[Exception], text: str, numbers: Sequence[tuple[Any, Any]] = ()
) -> None:
    """Raise an exception where a condition holds; numbers: types and values that stand in the text as {}."""
    with builder.if_then(wrong, likely=False):
        if numbers:
            kinds, values = zip(*numbers, strict=True)
            context.call_conv.return_dynamic_user_exc(builder, WORDED[kind], (text, *values), (None, *kinds))
        else:
            context.call_conv.return_user_exc(builder, kind, (text,))


def untyped(text: str) -> NoReturn:
    """What Numba shows among the reasons why it cannot compile a call."""
    raise errors.TypingError(text)
