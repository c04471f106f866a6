"""Copies of what a model and the variables around it hold, and how two such copies differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

import torch
from torch import nn

from ir.capture.holdable import unheld
from ir.capture.unregistered_state.held import is_array
from ir.capture.unregistered_state.places import HeldContainer, Place, places_in
from ir.capture.unregistered_state.surroundings import MISSING, held_outside
from ir.objects.pieces import all_close, in_pieces


def held_around(model: nn.Module) -> dict[Place, Any]:
    """The values of variables outside of the modules, by places that are named after them."""
    found: dict[Place, Any] = {}
    seen: set[int] = set()
    for variable, value in held_outside(model).items():
        if value is not MISSING:
            found |= places_in(Place("", (("outside", variable.name),)), value, seen)
    return copied_values(found)


def copied_values(found: Mapping[Place, Any]) -> dict[Place, Any]:
    return {place: _copied(value) for place, value in found.items()}


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return value.copy() if is_array(value) else value


def differences(first: Mapping[Place, Any], later: Iterable[Mapping[Place, Any]]) -> list[Place]:
    """The places that hold something else later."""
    places = {p for held in later for p in {*first, *held} if not is_same(first.get(p, MISSING), held.get(p, MISSING))}
    return ordered(places)


def ordered(places: Iterable[Place]) -> list[Place]:
    return sorted(places, key=lambda p: (p.module, [str(step) for step in p.steps]))


def outermost(places: Iterable[Place]) -> tuple[str, ...]:
    """The names of places, without those inside of others."""
    outer: list[Place] = []
    for place in places:
        if not any(place.within(other) for other in outer):
            outer.append(place)
    return tuple(map(str, outer))


def is_same(a: Any, b: Any) -> bool:
    """Whether two values are equal, bit for bit; of those that cannot be compared, whether they are of one type."""
    if _is_dense(a) and _is_dense(b):
        return (a.shape, a.dtype) == (b.shape, b.dtype) and all_close(a, b)
    if a is b:
        return True
    if is_array(a) and is_array(b):
        return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
    plain = (bool, int, float, complex, str, bytes, HeldContainer)
    return type(a) is type(b) and (not isinstance(a, plain) or a == b or (a != a and b != b))


def _is_dense(value: Any) -> TypeGuard[torch.Tensor]:
    return isinstance(value, torch.Tensor) and not unheld(value)


def is_near(a: Any, b: Any) -> bool:
    """Whether results are the same but for rounding, or in few of their elements."""
    if not (_is_dense(a) and _is_dense(b)):
        return is_same(a, b)
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    if not a.is_floating_point() and not a.is_complex():
        return sum(int((x != y).sum()) for x, y in in_pieces(a, b)) <= a.numel() * _FEW
    exact = torch.complex128 if a.is_complex() else torch.float64
    rounded = _ROUNDED if a.dtype in (torch.float32, torch.float64, torch.complex64, torch.complex128) else _COARSE
    largest = max((x.to(exact).abs().nan_to_num(posinf=1.0).max().item() for (x,) in in_pieces(a)), default=0.0)
    return all(all_close(x.to(exact), y.to(exact), atol=rounded * max(largest, 1.0)) for x, y in in_pieces(a, b))


_FEW = 0.01  # of the elements: indices of equal values, as rounding has it
_ROUNDED, _COARSE = 1e-3, 5e-2  # of the largest element
