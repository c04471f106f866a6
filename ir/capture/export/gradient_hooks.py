"""Hooks on gradients, which forward or its caller registers, and which no stage has."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.autograd import graph
from torch.utils.hooks import RemovableHandle

from ir.capture.paths import is_torch_file, short_path
from ir.text.names import listed_names

_OF_TENSORS = ("register_hook", "register_post_accumulate_grad_hook", "retain_grad")
_OF_MODULES = ("register_full_backward_hook", "register_full_backward_pre_hook", "register_backward_hook")
_IN_CONTEXTS = ("saved_tensors_hooks",)
NAMES = frozenset((*_OF_TENSORS, *_OF_MODULES, *_IN_CONTEXTS, "register_multi_grad_hook"))


@contextmanager
def gradient_hooks_seen(seen: Callable[[str], object] = str) -> Iterator[None]:
    """Leave hooks on gradients out inside the context, where there are no gradients; `seen` gets a note on each."""

    def watching(name: str, register: Callable[..., Any], needed: Callable[..., bool]) -> Callable[..., Any]:
        @wraps(register)
        def registered(*args: Any, **kwargs: Any) -> Any:
            caller = sys._getframe(1).f_code.co_filename, sys._getframe(1).f_lineno
            if not is_torch_file(caller[0]):
                place = f"{short_path(caller[0])}:{caller[1]}"
                seen(f"forward calls {name}() at {place}, which acts on gradients: those of the stages are without it")
            return register(*args, **kwargs) if needed(*args) else RemovableHandle(OrderedDict())

        return registered

    watched = [
        *((torch.Tensor, name, _has_gradient) for name in _OF_TENSORS),
        *((nn.Module, name, _always) for name in _OF_MODULES),
        (graph.saved_tensors_hooks, "__init__", _always),
        (graph, "register_multi_grad_hook", lambda tensors, *_: any(map(_has_gradient, tensors))),
    ]
    with ExitStack() as patches:
        for owner, name, needed in watched:
            shown = owner.__name__ if name == "__init__" else name
            patches.enter_context(patch.object(owner, name, watching(shown, getattr(owner, name), needed)))
        yield


def _has_gradient(tensor: torch.Tensor, *_: Any) -> bool:
    return tensor.requires_grad


def _always(*_: Any) -> bool:
    return True


def notes_on_hooked(model: nn.Module) -> tuple[str, ...]:
    """A note on the hooks that modules and parameters have already."""
    hooked = [path or "the model" for path, m in model.named_modules() if m._backward_hooks or m._backward_pre_hooks]
    hooked += [name for name, p in model.named_parameters() if p._backward_hooks or p._post_accumulate_grad_hooks]
    if not hooked:
        return ()
    return (f"{listed_names(hooked, 1)}: hooks on gradients are there; those of the stages are without them",)
