"""Inputs and buffers whose values decide what is computed, found while torch traces a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias
from unittest.mock import patch

import sympy
import torch
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.multiprocessing.reductions import StorageWeakRef

from ir.capture.diagnosis import causes


class Origin(NamedTuple):
    """A source of values in a call: an input, a size that may change or a buffer by name, or any of the parameters."""

    kind: Literal["input", "size", "buffer", "parameter"]
    name: str = ""


Origins: TypeAlias = frozenset[Origin]

_NOTHING: Origins = frozenset()
_BY_VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


@dataclass
class OriginTrace:
    """The origins of each tensor, and of each number that was read from one."""

    by_storage: dict[StorageWeakRef, Origins] = field(default_factory=dict)
    by_symbol: dict[sympy.Basic, Origins] = field(default_factory=dict)
    last: Origins = _NOTHING  # of the last value that was read

    def start(self, tensor: torch.Tensor, origin: Origin) -> None:
        """Note what a call is given."""
        self._set([tensor], frozenset([origin]))

    def of_error(self, error: BaseException | None) -> Origins:
        """The origins of the condition at which torch gave up."""
        conditions = [cond for e in causes(error) if isinstance(cond := getattr(e, "cond", None), sympy.Basic)]
        known = [self.by_symbol[s] for cond in conditions for s in cond.free_symbols if s in self.by_symbol]
        if not conditions:
            return self.last
        return _NOTHING.union(*(known or self.by_symbol.values()))

    def of(self, tensor: torch.Tensor) -> Origins:
        """The origins of a tensor."""
        return self._of([tensor])

    def of_size(self, size: Any) -> Origins:
        """The origins of a size: those of its symbols."""
        return self._of([size])

    def start_size(self, size: Any, name: str) -> None:
        """Note a size that may change."""
        if isinstance(size, torch.SymInt):
            self.by_symbol[size.node.expr] = frozenset([Origin("size", name)])

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Follow what operators make of each other inside the context."""
        dispatch = FakeTensorMode.dispatch

        def follow(mode: FakeTensorMode, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            origins = self._of((*args, *(kwargs or {}).values()))
            reads = isinstance(func, OpOverload) and not _BY_VALUES.isdisjoint(func.tags)
            if reads:
                self.last = origins
            made: Any = dispatch(mode, func, types, args, kwargs or {})
            if origins and not _is_shaped_alike(func):
                self._set([made], origins)
            if reads:
                self.by_symbol.update(dict.fromkeys(free_unbacked_symbols(made) - self.by_symbol.keys(), origins))
            return made

        with patch.object(FakeTensorMode, "dispatch", follow):
            yield

    def _of(self, values: Iterable[Any]) -> Origins:
        found = _NOTHING
        for value in values:
            if isinstance(value, FakeTensor):
                found |= self.by_storage.get(_storage(value), _NOTHING)
            elif isinstance(value, (list, tuple)):
                found |= self._of(value)
            elif isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)) and self.by_symbol:
                found = found.union(*(self.by_symbol.get(s, _NOTHING) for s in value.node.expr.free_symbols))
        return found

    def _set(self, values: Iterable[Any], origins: Origins) -> None:
        for value in values:
            if isinstance(value, FakeTensor):
                key = _storage(value)
                self.by_storage[key] = self.by_storage.get(key, _NOTHING) | origins
            elif isinstance(value, (list, tuple)):
                self._set(value, origins)


def _is_shaped_alike(func: Any) -> bool:
    """Whether an operator takes the shape of its tensor alone, as `zeros_like` does."""
    name = str(func).split(".")[1] if isinstance(func, OpOverload) else ""
    return name.startswith("new_") or name.endswith("_like")


def _storage(tensor: torch.Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())
