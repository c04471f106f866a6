"""Objects around a model, which are looked at before and after each of its calls: once each, at no more than that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch import Tensor, nn

from ir.capture.unregistered_state import held, surroundings
from ir.capture.unregistered_state.held import attributes_in

FACTOR = [2.0]


def scaled(x: Tensor) -> Tensor:
    return x * FACTOR[0]


class Scaling(nn.Module):
    def twice(self, x: Tensor) -> Tensor:
        return scaled(x) * FACTOR[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.twice(x) + FACTOR[0]


class Slotted:
    __slots__ = ("empty", "full")

    def __init__(self) -> None:
        self.full = 1


class SlottedAndOthers(Slotted):
    def __init__(self) -> None:
        super().__init__()
        self.other = 2


def test_attributes_are_those_in_slots_and_others() -> None:
    one, more = attributes_in(Slotted()), attributes_in(SlottedAndOthers())
    assert (dict(one), dict(more)) == ({"full": 1}, {"full": 1, "other": 2})
    assert ("empty" in one, "full" in more, "other" in more, 3 in more) == (False, True, True, False)
    with pytest.raises(KeyError, match="empty"):
        more["empty"]


def test_the_slots_of_a_class_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[type] = []

    class Other:
        __slots__ = ("full",)

    def slots(cls: type) -> Iterator[str]:
        asked.append(cls)
        return iter(("full",))

    monkeypatch.setattr(held, "_slots_of_bases", slots)
    attributes = attributes_in(Other())
    attributes["full"] = 3
    assert dict(attributes) == {"full": 3}
    assert asked == [Other]


def test_a_variable_that_many_functions_read_is_found_once() -> None:
    found = [variable.name for variable in surroundings._reached(Scaling(), set())]
    assert found.count("FACTOR") == 1
