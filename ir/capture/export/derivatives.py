"""Derivatives that forward takes itself, which torch.export does not record."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch
from torch._functorch import eager_transforms
from torch.autograd import forward_ad

from ir.capture.paths import is_torch_file, short_path
from ir.location import Where

_TAKEN_BY: tuple[tuple[Any, str], ...] = (
    (torch.autograd, "grad"),
    (torch.autograd, "backward"),
    (forward_ad, "make_dual"),
    (eager_transforms, "grad_impl"),
    (eager_transforms, "_vjp_with_argnums"),
    (eager_transforms, "_jvp_with_argnums"),
)


@contextmanager
def derivatives_seen(seen: Callable[[Where], object]) -> Iterator[None]:
    """Inside the context, `seen` gets the line of the model that takes a derivative, at each one."""

    def watching(take: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(take)
        def taken(*args: Any, **kwargs: Any) -> Any:
            frame = sys._getframe(1)
            while frame.f_back is not None and is_torch_file(frame.f_code.co_filename):
                frame = frame.f_back
            file, line = frame.f_code.co_filename, frame.f_lineno
            seen(Where("", short_path(file), line, linecache.getline(file, line).strip()))
            return take(*args, **kwargs)

        return taken

    with ExitStack() as patches:
        for owner, name in _TAKEN_BY:
            patches.enter_context(patch.object(owner, name, watching(getattr(owner, name))))
        yield
