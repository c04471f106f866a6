"""Python attributes that a model changes while it runs: a recording holds them as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_OF_EVERY_MODULE = set(vars(nn.Module()))
_PLAIN = (bool, int, float, complex, str, bytes, tuple, torch.SymInt, torch.SymFloat, torch.SymBool)


@contextmanager
def as_they_were(model: nn.Module) -> Iterator[None]:
    """Afterwards every module has the attributes that it had, whatever its forward assigned."""
    modules = list(model.modules())
    before = [dict(vars(m)) for m in modules]
    try:
        yield
    finally:
        for module, attributes in zip(modules, before, strict=True):
            now = vars(module)
            if now.keys() != attributes.keys() or any(now[k] is not v for k, v in attributes.items()):
                now.clear()
                now.update(attributes)


def plain_attributes(model: nn.Module) -> dict[str, Any]:
    """Numbers, texts and tuples that modules hold, and how many items their lists and dicts have, by dotted name."""
    return {
        f"{path}.{name}".lstrip("."): len(value) if isinstance(value, (list, dict, set)) else value
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if name not in _OF_EVERY_MODULE and isinstance(value, (*_PLAIN, list, dict, set))
    }


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The names of what is another value than before; what was not there is what a first run prepares."""
    return [name for name, value in before.items() if name in after and not _same(value, after[name])]


def _same(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and bool(a == b))
