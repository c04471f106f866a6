"""Holders of what a call of a layer made: what keeps a tensor, and what lies in the same memory."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Sequence
from types import CellType, FrameType
from typing import Any

import torch

from ir.capture.repeats.call_recorder import InDoubt
from ir.capture.repeats.kept import Holding


def require_unheld(tensors: list[torch.Tensor], inside: Iterable[int], kept: Iterable[Holding]) -> None:
    """Raise InDoubt where something besides the list `tensors` and what is `kept` holds one of those `inside`."""
    all_made = [tensors[i] for i in inside]
    counts, alone = [sys.getrefcount(t) for t in all_made], [object()]
    alone_in_two = list(alone)
    (least,) = [sys.getrefcount(o) for o in alone_in_two]
    made = [t for t, count in zip(all_made, counts, strict=True) if count > least]  # few, and a search takes long
    if not made:
        return
    known = {id(made), id(all_made), id(tensors), *(id(holder) for h in kept for holder in (h.owner, h.items))}
    if not _of_calls([r for r in gc.get_referrers(*made) if id(r) not in known]):
        raise InDoubt("something keeps a tensor that it made")


def _of_calls(holders: list[Any]) -> bool:
    """Whether holders are calls whose variables are looked at, copies of these, or arguments of ended calls."""
    ours = {id(holders)}
    for _ in range(_DEEPEST):
        inside = [r for r in holders if not isinstance(r, FrameType)]
        if not inside:
            return True
        ours.add(id(inside))
        holders = [r for r in gc.get_referrers(*inside) if id(r) not in ours]
        ours.add(id(holders))
        calls = [r for r in holders if isinstance(r, FrameType)]
        copies = {id(call.f_locals) for call in calls}
        given = [r for r in inside if id(r) not in copies]
        if not all(isinstance(r, _CONTAINERS) for r in given) or (given and any(map(_is_running, calls))):
            return False
        holders = [r for r in holders if id(r) not in copies]
        ours.add(id(holders))
    return False


_CONTAINERS = (tuple, list, dict, CellType)

_DEEPEST = 4  # containers of arguments, one in the other


def _is_running(call: FrameType) -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame is not call:
        frame = frame.f_back
    return frame is call


def require_own_memory(tensors: Sequence[torch.Tensor], external: Iterable[int], outputs: Iterable[int]) -> None:
    """Raise InDoubt for an output that lies in the memory of another tensor from outside, or of another output."""
    taken = {_memory(tensors[i]) for i in external}
    for output in outputs:
        if _memory(tensors[output]) in taken:
            raise InDoubt("it returns a view")
        taken.add(_memory(tensors[output]))


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
