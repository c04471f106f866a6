"""A later call of a layer, beside the template of those like it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from types import MethodType
from typing import Any

import torch
from torch._C import DisableTorchFunction
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._pytree import tree_map_only, tree_unflatten

from ir.capture.repeats.call_recorder import PLAIN_TYPES, InDoubt, Ref
from ir.capture.repeats.kept import Holding
from ir.capture.repeats.template import Template
from ir.objects.signature import flatten


class Replay(TorchFunctionMode):
    """Answers the functions of torch that are called inside the context as in a template.

    Raises InDoubt for a call that is not the template's next.
    """

    def __init__(self, template: Template) -> None:
        super().__init__()
        self._template, self._next = template, 0
        self._alone = all(map(_is_of_export, _get_current_function_mode_stack()))
        external = set(template.external)
        self.tensors: list[Any] = [None if i in external else t for i, t in enumerate(template.tensors)]
        self._known = {id(t): i for i, t in enumerate(self.tensors) if t is not None}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        steps = self._template.steps
        step = steps[self._next] if self._next < len(steps) else None
        self._next += 1
        with DisableTorchFunction():
            if step is None or step.function != func or not self._agree(step.given, (args, kwargs or {})):
                raise InDoubt(f"it calls {getattr(func, '__name__', func)} where those like it do something else")
        if not step.makes:
            with DisableTorchFunction() if self._alone else nullcontext():
                return func(*args, **(kwargs or {}))
        if isinstance(step.made, Ref):
            return self.tensors[step.made.index]
        return tree_map_only(Ref, lambda ref: self.tensors[ref.index], step.made)

    def returned(self, result: Any, outputs: Sequence[torch.Tensor], held: Iterable[Holding]) -> Any:
        """The result of the call, with `outputs` in place of the template's, in the places `held` as well."""
        with DisableTorchFunction():
            leaves, spec = flatten(result)
            text, wanted = self._template.returned
            if self._next != len(self._template.steps) or str(spec) != text or not self._agree(wanted, tuple(leaves)):
                raise InDoubt("it returns something else than those like it")
            made = dict(zip(self._template.outputs, outputs, strict=True))
            new = {id(self.tensors[i]): tensor for i, tensor in made.items()}
            for place in held:
                if (tensor := new.get(id(place.tensor))) is not None:
                    place.put(tensor)
        return tree_unflatten([new.get(id(leaf), leaf) for leaf in leaves], spec)

    @property
    def stored(self) -> list[torch.Tensor]:
        """The tensors from outside that the call changes in place."""
        return [self.tensors[i] for i in self._template.stored]

    @property
    def given(self) -> list[torch.Tensor]:
        """The tensors from outside, in the order of the template's.  Raises InDoubt where one was not used."""
        found = [self.tensors[i] for i in self._template.external]
        if any(t is None for t in found):
            raise InDoubt("it reads less than those like it")
        return found

    def _agree(self, wanted: Any, given: Any) -> bool:
        if isinstance(given, torch.Tensor):
            return isinstance(wanted, Ref) and self._is(wanted.index, given)
        if isinstance(given, tuple) and isinstance(wanted, tuple):  # a torch.Size, too
            return len(wanted) == len(given) and all(map(self._agree, wanted, given))
        return type(wanted) is type(given) and self._agree_in(wanted, given)

    def _agree_in(self, wanted: Any, given: Any) -> bool:
        """The same for two things of one class, which are no tensors."""
        match given:
            case list():
                return len(wanted) == len(given) and all(map(self._agree, wanted, given))
            case dict():
                return list(wanted) == list(given) and all(self._agree(wanted[k], given[k]) for k in given)
            case slice():
                return self._agree((wanted.start, wanted.stop, wanted.step), (given.start, given.stop, given.step))
            case torch.SymInt() | torch.SymFloat() | torch.SymBool():
                return bool(wanted.node.expr == given.node.expr)
            case float() | complex():
                return repr(wanted) == repr(given)  # -0.0 and nan
            case MethodType():
                return bool(wanted == given)  # of one object
        return wanted is given or (isinstance(given, PLAIN_TYPES) and wanted == given)

    def _is(self, index: int, tensor: torch.Tensor) -> bool:
        """Whether a tensor is the one of that index; one from outside is where it is first met, if of its type."""
        known = self._known.get(id(tensor))
        if known is not None or self.tensors[index] is not None:
            return known == index
        if not _of_one_type(self._template.tensors[index], tensor):
            return False
        self.tensors[index], self._known[id(tensor)] = tensor, index
        return True


def _is_of_export(mode: TorchFunctionMode) -> bool:
    """Whether a mode is of torch's export, or of ours: those leave functions alone that make no tensor."""
    return type(mode).__module__.startswith(("torch._export.", "torch.fx.", "torch.utils._device", "ir."))


def _of_one_type(one: torch.Tensor, other: torch.Tensor) -> bool:
    if type(one) is not type(other) or one.dtype is not other.dtype or one.device != other.device:
        return False
    if one.requires_grad != other.requires_grad or one.dim() != other.dim() or one.layout is not other.layout:
        return False
    if one.layout is not torch.strided:
        return False
    return all(map(_same_size, _lie(one), _lie(other)))


def _lie(tensor: torch.Tensor) -> Iterator[Any]:
    yield from (*tensor.shape, *tensor.stride(), tensor.storage_offset())


def _same_size(one: Any, other: Any) -> bool:
    if isinstance(one, torch.SymInt) or isinstance(other, torch.SymInt):
        return type(one) is type(other) and bool(one.node.expr == other.node.expr)
    return bool(one == other)
