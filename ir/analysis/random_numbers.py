"""Torch's random numbers in a run, and in a call of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch._ops import OpOverload

from ir.graph import Call, named_arguments


def draws_numbers(run: Callable[[], object]) -> bool:
    """Whether a run draws torch's random numbers on the CPU; they are put back afterwards."""
    with torch.random.fork_rng([]):
        before = torch.get_rng_state()
        run()
        return not torch.equal(before, torch.get_rng_state())


def may_draw(call: Call) -> bool:
    """Whether a call draws random numbers, or is of an operator that may; one with dropout does so if it drops any."""
    return operator_may_draw(call.op, call.args, call.kwargs)


def operator_may_draw(op: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """The same of an operator with these arguments."""
    if torch.Tag.nondeterministic_seeded not in op.tags:
        return False
    given = named_arguments(op, args, kwargs)
    return given.get("dropout_p") != 0 and given.get("train") is not False and given.get("training") is not False
