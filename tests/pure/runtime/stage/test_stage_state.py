"""What a stage sends of its state, and how often it looks for that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from runtime.device.copies import DeviceCopies
from runtime.stage.stage import LoadedStage

CPU = torch.device("cpu")


class Program:
    """A program that sends a part of what it keeps, beside what it receives."""

    def __init__(self) -> None:
        self.entry = SimpleNamespace(state=["keys"])
        self.keys = torch.zeros(4)
        self.looked_for = 0

    @property
    def state(self) -> dict[str, torch.Tensor]:
        self.looked_for += 1
        return {"keys": self.keys}

    def __call__(self, received: Any, sizes: Any) -> tuple[torch.Tensor, ...]:
        self.keys += 1
        return self.keys[:2], received[0]


def test_what_is_sent_of_the_state_stays_and_a_step_does_not_look_for_all_that_is_kept() -> None:
    program: Any = Program()
    stage = LoadedStage(0, CPU, (program,), {}, None, DeviceCopies(CPU))
    x = torch.ones(3)
    sent = [stage((x,), {}) for _ in range(5)]
    assert [kept.tolist() for kept, _ in sent] == [[i, i] for i in range(1, 6)]
    assert all(passed is x for _, passed in sent)
    assert program.looked_for == 1
