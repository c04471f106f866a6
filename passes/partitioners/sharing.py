"""Searches that do not wait for each other: one after the other, or side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Share(Protocol):
    """A function that returns the results of another one, in order; `nodes` says how large the program is."""

    def __call__(
        self, function: Callable[[_Item], _Result], items: Sequence[_Item], nodes: int, /
    ) -> list[_Result]: ...


def in_turn(function: Callable[[_Item], _Result], items: Sequence[_Item], nodes: int, /) -> list[_Result]:
    """The results of a function that is called for one item after the other."""
    return [function(item) for item in items]
