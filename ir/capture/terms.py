"""Whether a graph computes what its model does at the sizes of an example, told from the operators that run."""

from __future__ import annotations

from collections import defaultdict
from typing import Any
from unittest.mock import patch

import torch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from ir.capture.attributes import as_they_were
from ir.capture.export import Example, quiet
from ir.capture.identities import PRODUCTS, SUMS
from ir.capture.mutation import functional
from ir.capture.reader import DEFAULTS, TWINS
from ir.graph import Graph
from ir.interpret import interpret
from ir.signature import call, flatten

aten = torch.ops.aten
META = torch.device("meta")


def same_terms(graph: Graph, example: Example) -> bool:
    """Whether the same operators make the same of the same tensors in a graph and in a call of its model.

    Both run on tensors without data, which takes a fraction of an export.  False also where this does not tell.
    """
    if graph.states:
        return False
    model, terms = example.model, _Terms()
    inputs = [t.to(META) for t in example.tensors]
    weights = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    for constant in graph.constants:
        terms.equal(constant.data, weights.get(constant.fqn, constant.data))
    exporting = patch.multiple(torch.compiler, _is_compiling_flag=True, _is_exporting_flag=True)  # when models ask
    try:
        with torch.no_grad(), quiet(), as_they_were(model), exporting, terms:
            returned = flatten(call(model, example.parameters, example.arguments.fill(inputs)))[0]
            wanted = [terms.number(t) for t in returned if isinstance(t, torch.Tensor)]
            terms.draws = 0
            return wanted == [terms.number(t) for t in interpret(graph, inputs, weights).outputs]
    except Exception:  # whatever operators, models and torch's own rules raise
        return False


class _Untold(Exception):
    """What is in a tensor is not told by what made it."""


class _Terms(TorchDispatchMode):
    """Runs operators on the meta device, and gives what they make one number if they made it of the same."""

    def __init__(self) -> None:
        super().__init__()
        self.draws = 0  # random numbers are the same if they are the n-th of both runs
        self._terms: dict[str, int] = {}
        self._numbers: dict[int, int | None] = {}  # by id of the tensor
        self._slices: dict[int, tuple[Any, ...]] = {}  # by id of a slice, the arguments that made it
        self._sharing: dict[int, list[torch.Tensor]] = defaultdict(list)  # by storage; kept, so that no id comes twice

    def number(self, tensor: torch.Tensor) -> int:
        """The number of a tensor; a new one if no operator made it."""
        if id(tensor) not in self._numbers:
            self._made(tensor, f"leaf {id(tensor)}")
        number = self._numbers[id(tensor)]
        if number is None:
            raise _Untold("another view of its memory was written to")
        return number

    def equal(self, tensor: torch.Tensor, other: torch.Tensor) -> None:
        """Count a tensor as another one."""
        self._set(tensor, self.number(other))

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {k: META if k == "device" else v for k, v in (kwargs or {}).items() if (k, v) not in DEFAULTS}
        if func._schema.is_mutable:
            return self._change(func, args, kwargs)
        out = self._run(func, args, kwargs)
        if _says_nothing(func, args, out):
            self.equal(out, args[0])
            return out
        if func in _RESHAPES:  # whether the memory is copied, and a -1 in the shape, make no difference
            func, args, kwargs = _RESHAPES[func], (args[0], list(out.shape)), {}
        text = self._text(func, args, kwargs)
        for i, tensor in enumerate(tree_leaves(out)):
            self._made(tensor, f"{text}[{i}]")
        if func is aten.slice.Tensor:
            self._slices[id(out)] = args
        return out

    def _change(self, func: OpOverload, args: Any, kwargs: Any) -> torch.Tensor:
        """A change in place gives a tensor the number of what the function would return; views of it lose theirs."""
        changed, as_function = args[0], functional(func)
        if func is aten.copy_.default and id(changed) in self._slices:
            whole, *where = self._slices[id(changed)]
            changed, as_function, args = whole, aten.slice_scatter.default, (whole, args[1], *where)
        if as_function is None:
            raise _Untold(func)
        out = self._run(as_function, args, kwargs)
        if out.shape != changed.shape or out.dtype is not changed.dtype:
            raise _Untold(func)
        before = self.number(changed)
        after = self._terms.setdefault(f"{self._text(as_function, args, kwargs)}[0]", len(self._terms))
        for tensor in self._sharing[_storage(changed)]:
            self._numbers[id(tensor)] = after if self._numbers[id(tensor)] == before else None
        return args[0]

    def _run(self, func: OpOverload, args: Any, kwargs: Any) -> Any:
        return func(*tree_map_only(torch.Tensor, lambda t: t if t.is_meta else t.to(META), args), **kwargs)

    def _text(self, func: OpOverload, args: Any, kwargs: Any) -> str:
        draws = torch.Tag.nondeterministic_seeded in func.tags
        self.draws += draws
        operands = tree_map_only(torch.Tensor, lambda t: f"%{self.number(t)}", (args, kwargs))
        return f"{TWINS.get(str(func), func)}{operands}{self.draws if draws else ''}"

    def _made(self, tensor: torch.Tensor, text: str) -> None:
        self._set(tensor, self._terms.setdefault(text, len(self._terms)))

    def _set(self, tensor: torch.Tensor, number: int) -> None:
        self._numbers[id(tensor)] = number
        self._sharing[_storage(tensor)].append(tensor)


_RESHAPES = dict.fromkeys((aten.view.default, aten._unsafe_view.default), aten.reshape.default)
_RESHAPES |= {aten.expand.default: aten.expand.default}
_VIEWS = {aten.alias.default, aten.clone.default, aten.detach.default, aten.slice.Tensor, *_RESHAPES}


def _says_nothing(func: OpOverload, args: Any, out: Any) -> bool:
    """Whether the elements are those of the first argument."""
    if func in _VIEWS:
        return out.shape == args[0].shape
    if func not in SUMS | PRODUCTS or isinstance(args[1], torch.Tensor) or out.dtype is not args[0].dtype:
        return False
    return args[1] == 1 if func in PRODUCTS else args[1] == 0 and not out.dtype.is_floating_point


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
