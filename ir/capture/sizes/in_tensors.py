"""Sizes that the model's code puts into tensors and reads out of them again: `n = torch.tensor(x.shape[1])`, `x[:n]`.

torch knows nothing of the number that it reads, and refuses it as a size that may change.  What Python alone can hold,
as `int(n)` and `if n > 6`, stays unknown: a size would be fixed, or limited, where a module that is kept whole is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, wraps
from typing import Any
from unittest.mock import patch

import torch
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from ir.capture.sizes.series import Series, element_of, elements_made, is_followed
from ir.operators.facts import aten

_READS = (aten._local_scalar_dense.default, aten.item.default)


@contextmanager
def sizes_read_from_tensors() -> Iterator[None]:
    """Inside the context, a number that is read from a tensor is an expression of sizes where it follows from these."""
    elements, dispatch = KnownElements(), FakeTensorMode.dispatch
    running = as_int = False

    def follow(mode: FakeTensorMode, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        nonlocal running
        kwargs = kwargs or {}
        if running:  # in the rule for the shapes of another operator's results
            return dispatch(mode, func, types, args, kwargs)
        if func in _READS and not as_int and (read := elements.number_in(args[0])) is not None:
            return read
        running = True
        try:
            made = dispatch(mode, func, types, args, kwargs)
        finally:
            running = False
        elements.follow(func, args, kwargs, made)
        return made

    def of_python(read: Callable[[torch.Tensor], int]) -> Callable[[torch.Tensor], int]:
        @wraps(read)
        def number_of(tensor: torch.Tensor) -> int:
            nonlocal as_int
            before, as_int = as_int, True
            try:
                return read(tensor)
            finally:
                as_int = before

        return number_of

    with ExitStack() as patches:
        patches.enter_context(patch.object(FakeTensorMode, "dispatch", follow))
        for name in ("__int__", "__index__"):
            patches.enter_context(patch.object(torch.Tensor, name, of_python(getattr(torch.Tensor, name))))
        yield


@dataclass
class KnownElements:
    """The elements of tensors that are known while a model is traced."""

    _by_tensor: MutableMapping[Any, Series] = field(default_factory=WeakIdKeyDictionary)
    _changed: set[StorageWeakRef] = field(default_factory=set)  # in place: nothing is known of them any more

    def follow(self, func: Any, args: Any, kwargs: Any, made: Any) -> None:
        """Note what an operator has made."""
        if writes := _written(func):
            given = [args[i] if i < len(args) else kwargs.get(name) for i, name in writes]
            self._changed.update(StorageWeakRef(t.untyped_storage()) for t in tree_leaves(given) if _is_traced(t))
        elif is_followed(func) and _is_traced(made):
            found = elements_made(func, self.of, args, kwargs, made)
            if found is not None:
                self._by_tensor[made] = found

    def of(self, value: Any) -> Series | None:
        """The elements of a tensor; a number as one of them; None where they are not known."""
        if not isinstance(value, torch.Tensor):
            found = element_of(value)
            return None if found is None else Series(found)
        if not isinstance(value, FakeTensor) or not _is_traced(value):
            return None
        if StorageWeakRef(value.untyped_storage()) in self._changed:
            return None
        if value.constant is not None and value.constant.numel() == 1:
            found = element_of(value.constant.item())
            return None if found is None else Series(found)
        return self._by_tensor.get(value)

    def number_in(self, tensor: torch.Tensor) -> Any:
        """The number in a tensor of one element, of the tensor's type; None where it is not known."""
        found = self.of(tensor)
        if found is None or isinstance(found.first, torch.SymBool):
            return None
        return torch.sym_float(found.first) if tensor.is_floating_point() else found.first


def _is_traced(value: Any) -> bool:
    return isinstance(value, FakeTensor) and value.layout is torch.strided


@cache
def _written(func: Any) -> tuple[tuple[int, str], ...]:
    """The places and names of the arguments that an operator changes."""
    if not isinstance(func, OpOverload) or not func._schema.is_mutable or func is aten.detach_.default:
        return ()
    given = enumerate(func._schema.arguments)
    return tuple((i, a.name) for i, a in given if a.alias_info is not None and a.alias_info.is_write)
