"""A graph compared with its model at the sizes of an example, by the operators that both run on fake tensors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import permutations
from typing import Any
from unittest.mock import patch

import torch
from torch._ops import HigherOrderOperator, OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from ir.analysis.interpret import interpret
from ir.analysis.random_numbers import operator_may_draw
from ir.capture.export.example import Example
from ir.capture.export.meta_weights import without_memory
from ir.capture.export.module_state import converted_for_the_call
from ir.capture.export.recording import quiet
from ir.capture.export.replaced.distributions import unchecked_distributions
from ir.capture.export.replaced.padding import padded_as_in_inference
from ir.capture.program.in_place.mutation import functional
from ir.capture.program.no_ops import ANDS, ONES, PRODUCTS, SUMS, keeps_elements
from ir.capture.program.reader import DEFAULTS, TWINS
from ir.capture.repeats.alike import alike_modules
from ir.capture.repeats.expanded import repeats
from ir.capture.repeats.layers import LayersOnce
from ir.capture.sizes.iterated import Unbound, parts_of_join
from ir.capture.unregistered_state.restoring import as_they_were
from ir.graph import Graph
from ir.objects.signature import call, flatten
from ir.operators.facts import BY_ADDRESS, Elements, aten, rearrangement
from ir.operators.higher_order import HIGHER_ORDER, behind_key


def same_terms(graph: Graph, example: Example) -> bool:
    """Whether a graph and a call of its model apply the same operators to the same tensors, and leave the same state.

    Both run on fake tensors on the device of an export, which takes a fraction of the time of an export.
    False also where this way cannot tell.
    """
    model = example.model
    asked = not example.as_called  # whether models are exported
    exporting = patch.multiple(torch.compiler, _is_compiling_flag=asked, _is_exporting_flag=asked)
    try:
        with torch.no_grad(), quiet(), as_they_were(model), exporting, without_memory(model) as mode, mode:
            terms = _Terms(mode)
            inputs = [terms.fake(t) for t in example.tensors]
            weights = dict(model.named_parameters(remove_duplicate=False))
            weights |= dict(model.named_buffers(remove_duplicate=False))
            for constant in graph.constants:
                terms.equal(constant.data, weights.get(constant.fqn, constant.data))
            states = {state: weights[next(fqn for fqn in state.fqns if fqn in weights)] for state in graph.states}
            before = {state.name: terms.as_before(buffer) for state, buffer in states.items()}
            members = alike_modules(model) if any(map(repeats, graph.nodes)) else {}
            once = LayersOnce(members, example.templates, unkept=True)  # as the export found; here terms hold all
            unasserted = patch.object(torch, "_check_tensor_all_with", lambda *_: None)  # fake tensors have no values
            padded, unchecked = padded_as_in_inference(), unchecked_distributions()
            with terms, padded, unchecked, converted_for_the_call(model), once.watched(model), unasserted:
                returned = flatten(call(model, example.parameters, example.arguments.fill(inputs)))[0]
                wanted = [terms.number(t) for t in returned if isinstance(t, torch.Tensor)]
                after = {state.name: terms.number(buffer) for state, buffer in states.items()}
                terms.start_again()
                made = interpret(graph, inputs, weights, before)
                left = {name: terms.number(t) for name, t in made.state.items()}
                return wanted == [terms.number(t) for t in made.outputs] and after | left == after
    except Exception:  # whatever operators, models and torch's own rules raise
        return False


class _Untold(Exception):
    """The elements of a tensor cannot be known from the operators that made it."""


class _Terms(TorchDispatchMode):
    """Value numbering of fake tensors: results of the same operator on the same operands get one number."""

    supports_higher_order_operators = True

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self._mode = mode
        self._draws = 0  # random numbers are the same if they are the n-th of both runs
        self._terms: dict[str, int] = {}
        self._numbers: dict[int, int | None] = {}  # by id of the tensor
        self._slices: dict[int, tuple[Any, ...]] = {}  # by id of a slice, the arguments of the call that made it
        self._pieces: dict[int, tuple[Unbound, int]] = {}  # by id
        self._sharing: dict[int, list[torch.Tensor]] = defaultdict(list)  # by storage; kept, so that no id is reused
        self._fixed: set[int] = set()  # storages that must not be written to: others may hold them
        self._true: set[int] = set()  # numbers of one True, with which masks of several conditions begin
        self._again = False
        self._results: dict[str, tuple[Any, list[int | None]]] = {}  # results of the first run, with their numbers

    def start_again(self) -> None:
        """Begin the second run, which reuses results of the first where operator and operands are the same."""
        self._draws, self._again = 0, True

    def fake(self, tensor: torch.Tensor) -> torch.Tensor:
        """The fake tensor for a tensor; views of one memory remain views of one memory."""
        return tensor if isinstance(tensor, FakeTensor) else self._mode.from_tensor(tensor, static_shapes=True)

    def number(self, tensor: torch.Tensor) -> int:
        """The number of a tensor; a new one if no operator made it.  Raises _Untold after a write to another view."""
        tensor = self.fake(tensor)
        if id(tensor) not in self._numbers:
            self._made(tensor, f"leaf {id(tensor)}")
            self._fixed.add(_storage(tensor))
        number = self._numbers[id(tensor)]
        if number is None:
            raise _Untold("another view of its memory was written to")
        return number

    def equal(self, tensor: torch.Tensor, other: torch.Tensor) -> None:
        """Give a tensor the number of another one."""
        self._set(self.fake(tensor), self.number(other))
        self._fixed.add(_storage(self.fake(tensor)))

    def as_before(self, buffer: torch.Tensor) -> torch.Tensor:
        """A tensor with the elements that a buffer has now; the buffer may be changed in place."""
        number = self.number(buffer)
        self._fixed.discard(_storage(self.fake(buffer)))
        same = torch.empty_like(self.fake(buffer))
        self._set(same, number)
        return same

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return func(*args)
        kwargs = {k: v for k, v in (kwargs or {}).items() if (k, v) not in DEFAULTS}
        args, kwargs = tree_map_only(torch.Tensor, self.fake, (args, kwargs))
        if isinstance(func, HigherOrderOperator):
            return self._mapped(func, *args)
        if func is HIGHER_ORDER:
            operands, sizes, key = args
            with self:
                return behind_key(key).run(operands, sizes, kwargs.get("device", torch.device("cpu")))
        kwargs = kwargs | _stated_dtype(func, args, kwargs)
        if func is aten._to_copy.default and kwargs.get("device") == args[0].device:  # which a graph does not say
            del kwargs["device"]
        given = args
        if func is aten.slice.Tensor and not kwargs:
            args = _plain_slice(*args)
        if func._schema.is_mutable:
            return self._change(func, args, kwargs)
        if func in (aten.cat.default, aten.stack.default):
            func, args, kwargs = aten.cat.default, self._of_wholes(func, args, kwargs), {}
        text = self._text(func, args, kwargs)
        if self._again and (known := self._made_before(text)) is not None:
            return known
        out = func(*args, **kwargs)
        self._number_results(func, args, given, out, text)
        return out

    def _made_before(self, text: str) -> Any:
        """The results of a term in the first run; None if it had none, or if they were written to since."""
        out, numbers = self._results.get(text, (None, []))
        made = tree_leaves(out)
        if out is None or [self._numbers[id(t)] for t in made] != numbers:
            return None
        self._fixed.update(map(_storage, made))
        return out

    def _number_results(self, func: OpOverload, args: Any, given: Any, out: Any, text: str) -> None:
        """Number what an operator made of `args`, as a model `given` them, by its term.  Raises _Untold."""
        made = tree_leaves(out)
        if func is aten.unbind.int:
            unbound = Unbound(args[0], args[1] if args[1:] else 0, len(made))
            self._pieces |= {id(t): (unbound, place) for place, t in enumerate(made)}
        if func in BY_ADDRESS or not all(isinstance(t, FakeTensor) for t in made):
            raise _Untold(func)
        if (same := self._kept_operand(func, args, out)) is not None:
            return self._set(out, self.number(same))
        if (twin := _twin(func)) is not None:  # whether the memory is copied, and a -1 in the shape, make no difference
            text = self._text(twin, (args[0], list(out.shape)), {})
        for i, tensor in enumerate(made):
            self._made(tensor, f"{text}[{i}]")
        if func in ONES and out.ndim == 0 and out.dtype is torch.bool:
            self._true.add(self.number(out))
        if func is aten.slice.Tensor:
            self._slices[id(out)] = given
        if "%" in text and not any(r.alias_info for r in func._schema.returns):  # made of nothing: often written to
            self._results[text] = out, [self._numbers[id(t)] for t in made]

    def _mapped(self, func: HigherOrderOperator, *args: Any) -> Any:
        """The results of `map` have the numbers of what its function makes of one element, told apart by how many."""
        if func is not torch.ops.higher_order.map_impl:
            raise _Untold(func)
        function, mapped, captured = args
        elements = [torch.empty_like(whole[0]) for whole in mapped]
        for element, whole in zip(elements, mapped, strict=True):
            self._made(element, f"an element of %{self.number(whole)}")
        with self:
            made = function(*elements, *captured)
        results = tuple(one.new_empty(len(mapped[0]), *one.shape) for one in made)
        for whole, one in zip(results, made, strict=True):
            self._made(whole, f"%{self.number(one)} of each of {len(whole)}")
        return results

    def _of_wholes(self, func: OpOverload, args: Any, kwargs: Any) -> tuple[list[torch.Tensor], int]:
        """The arguments of torch.cat for any join: where all pieces of a tensor follow each other, of that one."""
        tensors, dim = (*args, kwargs.get("dim", 0))[:2]
        pieces = [self._pieces.get(id(t)) for t in tensors]
        with self:
            return parts_of_join(tensors, pieces, dim, func is aten.stack.default), dim

    def _kept_operand(self, func: OpOverload, args: Any, out: Any) -> torch.Tensor | None:
        """The operand whose elements are those of the result; None if there is none."""
        if func in ANDS:
            pairs = permutations(args, 2)
            return next((mask for mask, other in pairs if self.number(other) in self._true and _is_as(out, mask)), None)
        return args[0] if _says_nothing(func, args, out) else None

    def _change(self, func: OpOverload, args: Any, kwargs: Any) -> torch.Tensor:
        """An in-place change gives a tensor the number of the functional form's result; views of it lose theirs."""
        changed, as_function = args[0], functional(func)
        if func is aten.copy_.default and id(changed) in self._slices:
            whole, *where = self._slices[id(changed)]
            changed, as_function, args = whole, aten.slice_scatter.default, (whole, args[1], *where)
        self.number(changed)  # which must be known
        if as_function is None or _storage(changed) in self._fixed:
            raise _Untold(func)
        if func is aten.copy_.default and as_function is not aten.slice_scatter.default and _is_as(changed, args[1]):
            self._hold(changed, self.number(args[1]))
            return args[0]
        out = as_function(*args, **kwargs)
        if out.shape != changed.shape or out.dtype is not changed.dtype:
            raise _Untold(func)
        after = self._terms.setdefault(f"{self._text(as_function, args, kwargs)}[0]", len(self._terms))
        self._hold(changed, after)
        return args[0]

    def _hold(self, changed: torch.Tensor, after: int) -> None:
        """Give a tensor that was changed in place a number; views of it that are no more the whole lose theirs."""
        before = self.number(changed)
        for tensor in self._sharing[_storage(changed)]:
            self._numbers[id(tensor)] = after if self._numbers[id(tensor)] == before else None

    def _text(self, func: OpOverload, args: Any, kwargs: Any) -> str:
        draws = operator_may_draw(func, args, kwargs)
        self._draws += draws
        operands = tree_map_only(torch.Tensor, lambda t: f"%{self.number(t)}", (args, dict(sorted(kwargs.items()))))
        return f"{TWINS.get(str(func), func)}{operands}{self._draws if draws else ''}"

    def _made(self, tensor: torch.Tensor, text: str) -> None:
        self._set(tensor, self._terms.setdefault(text, len(self._terms)))

    def _set(self, tensor: torch.Tensor, number: int) -> None:
        tensor.constant = None  # type: ignore[attr-defined]  # a change in place would leave it as it was
        self._numbers[id(tensor)] = number
        self._sharing[_storage(tensor)].append(tensor)


def _stated_dtype(func: OpOverload, args: Any, kwargs: Mapping[str, Any]) -> dict[str, torch.dtype]:
    """The dtype of what is made of numbers alone, as graphs state it, where the model leaves it to torch's default."""
    takes = any(a.name == "dtype" for a in func._schema.arguments)
    if not takes or kwargs.get("dtype") or any(isinstance(a, torch.Tensor) for a in tree_leaves((args, kwargs))):
        return {}
    made = func(*args, **kwargs).dtype
    return {"dtype": made} if made.is_floating_point else {}


def _plain_slice(x: torch.Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> tuple[Any, ...]:
    """The arguments of a slice, each given, with the size for an end that is none or behind it."""
    size = x.shape[dim]
    return x, dim, start or 0, size if end is None or end > size else end, step


def _twin(func: OpOverload) -> OpOverload | None:
    """The operator that gives the same result for the first argument and the shape of the result."""
    moves = rearrangement(func)
    twins = {Elements.RESHAPED: aten.reshape.default, Elements.EXPANDED: aten.expand.default}
    return None if moves is None else twins.get(moves.elements)


def _says_nothing(func: OpOverload, args: Any, out: Any) -> bool:
    """Whether the elements are those of the first argument."""
    if (moves := rearrangement(func)) is not None:
        return moves.is_identity_if_type_stays and out.shape == args[0].shape and out.dtype is args[0].dtype
    if func not in SUMS | PRODUCTS or isinstance(args[1], torch.Tensor) or out.dtype is not args[0].dtype:
        return False
    return keeps_elements(func, args[1], out.dtype)


def _is_as(changed: torch.Tensor, source: torch.Tensor) -> bool:
    """Whether a tensor made of the elements of `source` has these themselves, cast and expanded by nothing."""
    return changed.shape == source.shape and changed.dtype is source.dtype


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
