"""A call of a layer, noted function by function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType, MethodType
from typing import Any

import torch
from torch import fx
from torch._C import DisableTorchFunction
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

SIZE_TYPES = (torch.SymInt, torch.SymFloat, torch.SymBool)

PLAIN_TYPES = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.layout)

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
    return isinstance(leaf, (*PLAIN_TYPES, *SIZE_TYPES, EllipsisType, FakeTensor))


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
    return not any(isinstance(leaf, SIZE_TYPES) and free_unbacked_symbols(leaf) for leaf in tree_leaves(made))
