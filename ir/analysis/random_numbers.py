"""Torch's random numbers in a run."""

from __future__ import annotations

from collections.abc import Callable

import torch


def draws_numbers(run: Callable[[], object]) -> bool:
    """Whether a run draws torch's random numbers on the CPU; they are put back afterwards."""
    with torch.random.fork_rng([]):
        before = torch.get_rng_state()
        run()
        return not torch.equal(before, torch.get_rng_state())
