"""Torch's random numbers in a run, and in a call of it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ir.graph import Call


def draws_numbers(run: Callable[[], object]) -> bool:
    """Whether a run draws torch's random numbers on the CPU; they are put back afterwards."""
    with torch.random.fork_rng([]):
        before = torch.get_rng_state()
        run()
        return not torch.equal(before, torch.get_rng_state())


def may_draw(call: Call) -> bool:
    """Whether a call draws random numbers, or is of an operator that may; one with dropout does so if it drops any."""
    if torch.Tag.nondeterministic_seeded not in call.op.tags:
        return False
    given = call.arguments
    return given.get("dropout_p") != 0 and given.get("train") is not False and given.get("training") is not False
