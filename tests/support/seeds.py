"""Draws that are the same in each run, whatever ran before and in whatever order."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch

_Made = TypeVar("_Made")
_gpus = functools.cache(torch.cuda.is_available)


def seed() -> None:
    """Begin the random numbers of torch, Python and NumPy anew."""
    # Where there is no GPU, torch.manual_seed keeps a stack trace of each call for the first use of one: a millisecond.
    (torch.manual_seed if _gpus() else torch.default_generator.manual_seed)(0)
    random.seed(0)
    np.random.seed(0)


@contextmanager
def own_draws() -> Iterator[None]:
    """A block whose draws begin anew; after it, those of the test go on as if it had drawn nothing."""
    drawn, of_python, of_numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()
    seed()
    try:
        yield
    finally:
        torch.set_rng_state(drawn)
        random.setstate(of_python)
        np.random.set_state(of_numpy)


def made_once(make: Callable[..., _Made]) -> Callable[..., _Made]:
    """`functools.cache` whose values do not depend on which test asks first, and whose draws no later test sees."""

    @functools.cache
    def cached(*args: object) -> _Made:
        with own_draws():
            return make(*args)

    return functools.wraps(make)(cached)
