"""A call of a layer, function by function, and a later call that runs beside it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import CellType, EllipsisType, FrameType, MethodType
from typing import Any

import torch
from torch import fx
from torch._C import DisableTorchFunction
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only, tree_unflatten

from ir.capture.repeats.again import without_fake_operator
from ir.capture.repeats.kept import Holding
from ir.objects.signature import flatten

_SIZES = (torch.SymInt, torch.SymFloat, torch.SymBool)
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.layout)
_STORES = {torch.Tensor.index_put_, torch.Tensor.__setitem__}
_OF_SIZES = {torch.sym_max, torch.sym_min, torch.sym_int, torch.sym_float, torch.sym_not, torch.sym_ite, torch.sym_sum}
_READ_VALUES = {"item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__", "is_nonzero", "equal"}


class InDoubt(Exception):
    """A layer does something else than those that it is like, or what cannot be told to be the same."""


@dataclass(frozen=True)
class Ref:
    """A tensor of a call: the first one that it met is 0."""

    index: int


@dataclass(frozen=True)
class FunctionCall:
    """A call of a function of torch's, with a Ref in place of each tensor."""

    function: Any
    given: Any
    made: Any
    makes: bool  # whether it makes or changes tensors; else it reads their types


class CallRecorder(TorchFunctionMode):
    """Notes the functions of torch that are called inside the context, which record their nodes in `nodes`."""

    def __init__(self, nodes: Sequence[fx.Node] = ()) -> None:
        super().__init__()
        self.steps: list[FunctionCall] = []
        self.of_numbers: list[fx.Node] = []  # nodes of steps that are given numbers, and tensors of the program
        self._nodes = nodes
        self.tensors: list[torch.Tensor] = []
        self.external: list[int] = []  # those that no function made
        self.doubt = ""
        self._known: dict[int, int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with DisableTorchFunction():
            given = self.described((args, kwargs or {}), external=True)
            start, numbers = len(self._nodes), _are_numbers((args, kwargs))
        made = func(*args, **(kwargs or {}))
        self.of_numbers += self._nodes[start:] if numbers else []
        with DisableTorchFunction():
            makes = func == torch.Tensor.__setitem__ or any(
                isinstance(leaf, torch.Tensor) for leaf in tree_leaves(made)
            )
            if not (
                _runs_known(args) if isinstance(func, HigherOrderOperator) else makes or _reads_types(func, args, made)
            ):
                self.doubt = self.doubt or f"it calls {getattr(func, '__name__', func)}"
            self.steps.append(FunctionCall(func, given, self.described(made, external=False) if makes else None, makes))
        return made

    def described(self, thing: Any, external: bool) -> Any:
        """The same containers with a Ref for each tensor."""
        match thing:
            case torch.Tensor():
                return self._ref(thing, external)
            case list():
                return [self.described(item, external) for item in thing]
            case tuple() if any(isinstance(item, (torch.Tensor, list, tuple, dict)) for item in thing):
                return tree_map_only(torch.Tensor, lambda t: self._ref(t, external), thing)
            case dict():
                return {key: self.described(value, external) for key, value in thing.items()}
            case _:
                return thing

    @property
    def stored(self) -> list[int]:
        """The tensors from outside that stores into them changed in place."""
        into = [step.given[0][0] for step in self.steps if step.function in _STORES]
        return [i for i in self.external if Ref(i) in into]

    def index(self, tensor: torch.Tensor) -> int:
        """The index of a tensor; -1 for one that the call did not meet."""
        return self._known.get(id(tensor), -1)

    def _ref(self, tensor: torch.Tensor, external: bool) -> Ref:
        if id(tensor) not in self._known:
            self._known[id(tensor)] = len(self.tensors)
            self.external += [len(self.tensors)] * external
            self.tensors.append(tensor)
        return Ref(self._known[id(tensor)])


def _are_numbers(given: Any) -> bool:
    """Whether arguments are numbers, names and the like, and tensors that are traced: nothing else has values."""
    return all(map(_is_number, tree_leaves(given)))


def _is_number(leaf: Any) -> bool:
    if isinstance(leaf, slice):
        return _are_numbers((leaf.start, leaf.stop, leaf.step))
    return isinstance(leaf, (*_PLAIN, *_SIZES, EllipsisType, FakeTensor))


def _runs_known(args: Any) -> bool:
    """Whether the functions among arguments are methods of frozen dataclasses, which say what these compute."""
    functions = [leaf for leaf in tree_leaves(args) if callable(leaf)]
    return all(isinstance(f, MethodType) and _is_frozen(f.__self__) for f in functions)


def _is_frozen(thing: Any) -> bool:
    settings: Any = getattr(thing, "__dataclass_params__", None)
    return bool(settings and settings.frozen)


def _reads_types(func: Any, args: Any, made: Any) -> bool:
    """Whether a function that returns no tensor depends on sizes, or the types of its arguments alone."""
    if made is None or getattr(func, "__name__", "") in _READ_VALUES:
        return False
    if func not in _OF_SIZES and not any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(args)):
        return False
    return not any(isinstance(leaf, _SIZES) and free_unbacked_symbols(leaf) for leaf in tree_leaves(made))


@dataclass(frozen=True, eq=False)
class Template:
    """A call of a layer: its steps, the tensors that it took from outside, and those that are there afterwards."""

    steps: Sequence[FunctionCall]
    external: Sequence[int]
    outputs: Sequence[int]  # made inside and returned, or left in an object, each once
    stored: Sequence[int]  # from outside, and changed in place
    returned: tuple[str, tuple[Any, ...]]  # the containers, and the leaves with Refs
    tensors: Sequence[torch.Tensor]  # those from outside; for others, ones of the same types that nothing else holds
    held: Sequence[int] = field(default=(), init=False)  # how often others are held

    def __post_init__(self) -> None:
        object.__setattr__(self, "held", self._counts())

    @classmethod
    def of(cls, recorder: CallRecorder, result: Any, held: Iterable[Holding], unkept: bool) -> Template:
        """The template of a recorded call; `held`: the places in objects that it was given.

        Raises InDoubt where it cannot be one, as where something else keeps what it made, unless that is known not to.
        """
        if recorder.doubt:
            raise InDoubt(recorder.doubt)
        with DisableTorchFunction():
            leaves, spec = flatten(result)
            if not all(isinstance(leaf, (torch.Tensor, *_PLAIN)) for leaf in leaves):
                raise InDoubt("it returns something else than tensors")
            described = tuple(recorder.described(leaf, external=False) for leaf in leaves)
            inside = set(range(len(recorder.tensors))) - set(recorder.external)
            returned = [leaf.index for leaf in described if isinstance(leaf, Ref)]
            outputs = list(dict.fromkeys(i for i in returned if i in inside))
            if not outputs or any(i not in inside and i not in recorder.external for i in returned):
                raise InDoubt("it returns no tensor of its own")
            kept = [(h, i) for h in held if (i := recorder.index(h.tensor)) in inside]
            if not unkept:
                _require_unkept(recorder.tensors, inside.difference(outputs), [h for h, _ in kept])
            outputs = list(dict.fromkeys([*outputs, *(i for _, i in kept)]))
            _require_own_memory(recorder.tensors, recorder.external, outputs)
            with _disable_current_modes():
                tensors = [_alone(t) if i in inside else t for i, t in enumerate(recorder.tensors)]
        steps, external, stored = tuple(recorder.steps), tuple(recorder.external), recorder.stored
        return cls(steps, external, outputs, stored, (str(spec), described), tensors)

    def _counts(self) -> list[int]:
        external = set(self.external)
        return [sys.getrefcount(t) for i, t in enumerate(self.tensors) if i not in external]

    @property
    def results(self) -> list[torch.Tensor]:
        """Tensors of the types of the outputs, and of what is stored."""
        return [self.tensors[i] for i in (*self.outputs, *self.stored)]

    def require_unkept(self) -> None:
        """Raise InDoubt where something holds a tensor of the template that a later call was given."""
        if self._counts() != self.held:
            gc.collect()
            if self._counts() != self.held:
                raise InDoubt("something keeps a tensor that it made")


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in the same memory that nothing else holds."""
    return without_fake_operator(torch.Tensor.detach, tensor)


def _require_unkept(tensors: list[torch.Tensor], inside: Iterable[int], kept: Iterable[Holding]) -> None:
    """Raise InDoubt where something besides the list `tensors` and what is `kept` holds one of those `inside`."""
    all_made = [tensors[i] for i in inside]
    counts, alone = [sys.getrefcount(t) for t in all_made], [object()]
    alone_in_two = list(alone)
    (least,) = [sys.getrefcount(o) for o in alone_in_two]
    made = [t for t, count in zip(all_made, counts, strict=True) if count > least]  # few, and a search takes long
    if not made:
        return
    known = {id(made), id(all_made), id(tensors), *(id(holder) for h in kept for holder in (h.owner, h.items))}
    if not _of_calls([r for r in gc.get_referrers(*made) if id(r) not in known]):
        raise InDoubt("something keeps a tensor that it made")


def _of_calls(holders: list[Any]) -> bool:
    """Whether holders are calls whose variables are looked at, copies of these, or arguments of ended calls."""
    ours = {id(holders)}
    for _ in range(_DEEPEST):
        inside = [r for r in holders if not isinstance(r, FrameType)]
        if not inside:
            return True
        ours.add(id(inside))
        holders = [r for r in gc.get_referrers(*inside) if id(r) not in ours]
        ours.add(id(holders))
        calls = [r for r in holders if isinstance(r, FrameType)]
        copies = {id(call.f_locals) for call in calls}
        given = [r for r in inside if id(r) not in copies]
        if not all(isinstance(r, _CONTAINERS) for r in given) or (given and any(map(_is_running, calls))):
            return False
        holders = [r for r in holders if id(r) not in copies]
        ours.add(id(holders))
    return False


_CONTAINERS = (tuple, list, dict, CellType)
_DEEPEST = 4  # containers of arguments, one in the other


def _is_running(call: FrameType) -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame is not call:
        frame = frame.f_back
    return frame is call


def _require_own_memory(tensors: Sequence[torch.Tensor], external: Iterable[int], outputs: Iterable[int]) -> None:
    """Raise InDoubt for an output that lies in the memory of another tensor from outside, or of another output."""
    taken = {_memory(tensors[i]) for i in external}
    for output in outputs:
        if _memory(tensors[output]) in taken:
            raise InDoubt("it returns a view")
        taken.add(_memory(tensors[output]))


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


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
        return wanted is given or (isinstance(given, _PLAIN) and wanted == given)

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
