"""Slices, picks and new dimensions as subscripts: `x[:, 1:5]`, and a chain of them as one, `x[:, None, 0]`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

from ir.graph import Call
from ir.operators.facts import aten

_KINDS = frozenset({aten.slice.Tensor, aten.select.int, aten.unsqueeze.default})
_ALL, _NEW = ":", "None"
_PICKED = "picked"

_Entry: TypeAlias = tuple[str, str]  # how it reads, and _PICKED for one that leaves no dimension
TextOf: TypeAlias = Callable[[Any], str]


def is_subscript(call: Call) -> bool:
    """Whether a call can be a part of a subscript: a slice that keeps all is none."""
    return call.op in _KINDS and not (call.op is aten.slice.Tensor and _range(call, str) == _ALL)


def adds_one_dimension(calls: Sequence[Call]) -> bool:
    """Whether a call adds a dimension to what the one before it picked: `x[:, 0].unsqueeze(1)` reads better so."""
    return [call.op is aten.unsqueeze.default for call in calls] == [False, True]


def subscript(calls: Sequence[Call], text: TextOf) -> str | None:
    """The subscript that does what `calls` do, each to the result of the one before; None where there is none.

    A dimension that is sliced once cannot be sliced or picked from again in one subscript.
    """
    entries: list[_Entry] = [(_ALL, "")] * len(calls[0].operands[0].type.shape)
    for call in calls:
        kept = [place for place, (_, kind) in enumerate(entries) if kind != _PICKED]
        given = call.arguments
        if call.op is aten.unsqueeze.default:
            dim = given["dim"] % (len(kept) + 1)
            entries.insert(kept[dim] if dim < len(kept) else len(entries), (_NEW, ""))
            continue
        place = kept[given["dim"] % len(kept)]
        if entries[place] != (_ALL, ""):
            return None
        picks = call.op is aten.select.int
        entries[place] = (text(given["index"]), _PICKED) if picks else (_range(call, text), "")
    return _joined([shown for shown, _ in entries])


def _joined(shown: list[str]) -> str:
    """Entries with `...` in place of two leading `:` or more, or of three between others, where that is shorter."""
    own = [i for i, entry in enumerate(shown) if entry != _ALL]
    first, last = own[0], own[-1]
    behind = len(shown) - 1 - last
    if first >= 2 and behind < min(first - 1, 2):
        return ", ".join(["...", *shown[first:]])
    gap = next((i for i, after in pairwise(own) if after - i > 3), None)
    if gap is not None and not behind:
        return ", ".join([*shown[: gap + 1], "...", *shown[own[own.index(gap) + 1] :]])
    return ", ".join(shown if behind == 1 and shown[last] == _NEW else shown[: last + 1])


def _range(call: Call, text: TextOf) -> str:
    """`1:5`, `::2`; `:` where all is kept."""
    start, end, step = (call.arguments[name] for name in ("start", "end", "step"))
    ends = ("" if start in (None, 0) else text(start), "" if end is None or _endless(end) else text(end))
    return ":".join(ends) + ("" if step == 1 else f":{text(step)}")


def _endless(end: Any) -> bool:
    return isinstance(end, int) and end >= 2**62
