"""The order in which parts are merged, one after the other as they come: a tree whose shape their number alone decides.

    ((0 + 1) + (2 + 3)) + ((4 + 5) + 6)         of seven

Its depth is log2 of their number, and so is how much their rounding errors grow and what is held of them at a time.
"""

from __future__ import annotations

from typing import Generic, Protocol, Self, TypeVar


class Part(Protocol):
    def merge(self, other: Self) -> Self: ...


P = TypeVar("P", bound=Part)


class Tree(Generic[P]):
    """A binary counter: at digit k what 2**k parts in a row are together, or None. It does not change."""

    __slots__ = ("digits",)

    def __init__(self, digits: tuple[P | None, ...] = ()) -> None:
        self.digits = digits

    def plus(self, part: P) -> Tree[P]:
        """With one more part behind the others."""
        digits = list(self.digits)
        for k, held in enumerate(digits):
            if held is None:
                digits[k] = part
                return Tree(tuple(digits))
            digits[k], part = None, held.merge(part)
        return Tree((*digits, part))

    def total(self) -> P | None:
        """All of them together; None if there was none."""
        total = None
        for held in self.digits:
            if held is not None:
                total = held if total is None else held.merge(total)
        return total
