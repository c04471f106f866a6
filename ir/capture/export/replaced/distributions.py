"""Distributions of torch.distributions without the checks of their arguments, which decide by values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from unittest.mock import patch

import torch
from torch.distributions import Distribution

UNCHECKED = (
    "stages do not check the arguments of torch's distributions: where the model raises a ValueError, they go on"
)
_SINGLE = torch.Size()


@contextmanager
def unchecked_distributions(seen: Callable[[str], object] = str) -> Iterator[None]:
    """Inside the context, distributions take any arguments and samples; `seen` gets a note where one checks them."""
    begin, checks = Distribution.__init__, Distribution._validate_args

    @wraps(begin)
    def begun(
        self: Distribution,
        batch_shape: torch.Size = _SINGLE,
        event_shape: torch.Size = _SINGLE,
        validate_args: bool | None = None,
    ) -> None:
        if checks if validate_args is None else validate_args:
            seen(UNCHECKED)
        begin(self, batch_shape, event_shape, None if validate_args else validate_args)

    with patch.object(Distribution, "__init__", begun), patch.object(Distribution, "_validate_args", False):
        yield
