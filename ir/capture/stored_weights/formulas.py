"""The nodes that make a weight of its stored tensors, captured once for all weights of a kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ir.capture.export.example import Example, slotted
from ir.capture.export.recording import record
from ir.checkpoint.quantized.kept import KeptWeight, hold_stored
from ir.checkpoint.quantized.scheme import HasOperator
from ir.graph import Call, Constant, Graph, Param, Value
from ir.objects.nested import mapped
from ir.objects.signature import Slot, flatten, forward_parameters
from ir.operators.higher_order import Body, HigherOrder, higher_order_call, higher_order_of, is_higher_order
from ir.sizes import TensorType

_OURS = "stagecut"  # the library of operators that no export takes apart


@dataclass(frozen=True)
class StoredKind:
    """The facts in which weights agree that the same nodes make."""

    weight: KeptWeight
    types: tuple[tuple[tuple[int, ...], torch.dtype], ...]  # of the stored tensors, in the order of the weight's
    of_experts: bool
    owner: str  # of experts: the last name of the module's path, by which arguments of functions are called
    default: torch.dtype  # torch's own, which tables of numbers have


@dataclass(frozen=True, eq=False)
class FormulaNodes:
    """The nodes that make a weight of its stored tensors; the last one returns it."""

    kind: StoredKind
    parts: tuple[Param, ...]  # in the order of the weight's
    constants: tuple[Constant, ...]
    nodes: tuple[Call, ...]
    result: Value
    strides: tuple[int, ...]  # of the result, which may lie transposed in memory

    @property
    def producer(self) -> Mapping[Value, Call]:
        """The node that makes each value."""
        return {value: node for node in self.nodes for value in node.results}

    def stand_in(self) -> nn.Parameter:
        """A plain weight on the meta device."""
        shape: Any = self.result.type.shape
        plain = torch.empty_strided(shape, self.strides, dtype=self.result.type.dtype, device="meta")
        return nn.Parameter(plain, requires_grad=False)


_KNOWN: dict[StoredKind, FormulaNodes] = {}


def stored_kind(weight: KeptWeight, module: nn.Module, path: str) -> StoredKind:
    """The kind of a weight that a module holds as it is stored."""
    tensors: list[Any] = [module._parameters[name] for _, name in weight.parameters]
    types = tuple((tuple(tensor.shape), tensor.dtype) for tensor in tensors)
    of_experts = weight.is_of_experts(tensors[0])
    owner = path.rpartition(".")[2] if of_experts else ""
    return StoredKind(weight, types, of_experts, owner, torch.get_default_dtype())


def formula_nodes(kinds: Sequence[StoredKind]) -> dict[StoredKind, FormulaNodes]:
    """The formula of each kind, by one export for all that are not known yet.  Raises CaptureError."""
    new = [kind for kind in dict.fromkeys(kinds) if kind not in _KNOWN]
    for kind in new:
        if (formula := (_for_each_expert if kind.of_experts else _of_one_operator)(kind)) is not None:
            _KNOWN[kind] = formula
    if new := [kind for kind in new if kind not in _KNOWN]:
        module, given = _Weights(new), torch.zeros(1)
        example = Example(module, forward_parameters(module), slotted(*flatten({"given": given})), [given], [{}])
        graph = record(example).graph
        _KNOWN.update((formula.kind, formula) for formula in _read(graph, module))
    return {kind: _KNOWN[kind] for kind in kinds}


def _of_one_operator(kind: StoredKind) -> FormulaNodes | None:
    """The formula of a kind that is one operator of ours, which needs no export to be known; None for another."""
    if not isinstance(kind.weight.scheme, HasOperator):
        return None
    module = _held(kind)
    with _Calls() as calls:
        made = kind.weight.of(module)
    op, args = calls.seen[0]
    if len(calls.seen) > 1 or op.namespace != _OURS:
        return None
    parts = {id(module._parameters[name]): _part(kind, place) for place, (_, name) in enumerate(kind.weight.parameters)}
    given = tuple(parts[id(arg)] if isinstance(arg, torch.Tensor) else arg for arg in args)
    result = Value(op.name().rpartition("::")[2], TensorType(tuple(made.shape), made.dtype))
    nodes = (Call(op=op, args=given, results=(result,)),)
    return FormulaNodes(kind, tuple(parts.values()), (), nodes, result, made.stride())


def _for_each_expert(kind: StoredKind) -> FormulaNodes | None:
    """The formula of experts where that of one is one operator of ours: as an export has torch's `map`."""
    each = replace(kind, types=tuple((shape[1:], dtype) for shape, dtype in kind.types), of_experts=False, owner="")
    if (one := _of_one_operator(each)) is None:
        return None
    given = {part: Value("_".join(filter(None, (kind.owner, part.name))), part.type) for part in one.parts}
    nodes = tuple(replace(node, args=mapped(lambda a: given.get(a, a), node.args)) for node in one.nodes)
    body = Body("body_fn", tuple(given.values()), nodes, (one.result,), packed=True)
    parts = tuple(_part(kind, place) for place in range(len(kind.types)))
    whole = TensorType((parts[0].type.shape[0], *one.result.type.shape), one.result.type.dtype)
    arguments = body, [*map(Slot, range(len(parts)))], []
    layout = tuple(range(len(whole.shape)))
    what = HigherOrder(torch.ops.higher_order.map_impl, arguments, (), (), (whole,), (layout,))
    call = higher_order_call(what, parts, (), (Value("mapped", whole),))
    return FormulaNodes(kind, parts, (), (call,), call.results[0], _strides(call, kind, nn.Module()))


class _Calls(TorchDispatchMode):
    """The operators that are called while it lasts, with their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append((func, args))
        return func(*args, **(kwargs or {}))


def _part(kind: StoredKind, place: int) -> Param:
    (_, name), (shape, dtype) = kind.weight.parameters[place], kind.types[place]
    return Param(name, TensorType(shape, dtype), (name,), frozen=True)


def _held(kind: StoredKind) -> nn.Module:
    """A module with a weight of a kind."""
    module = nn.Module()
    parts = {what: TensorType(*type_) for (what, _), type_ in zip(kind.weight.parameters, kind.types, strict=True)}
    hold_stored(module, kind.weight.attribute, kind.weight, parts)
    return module


class _Weights(nn.Module):
    """A module with a weight of each kind, that returns the sum of each: an output itself would be a copy."""

    def __init__(self, kinds: Sequence[StoredKind]) -> None:
        super().__init__()
        self.kinds = kinds
        self.holders = nn.ModuleList(nn.ModuleDict({kind.owner or "layer": _held(kind)}) for kind in kinds)

    def of_kinds(self) -> Iterator[tuple[StoredKind, str, nn.Module]]:
        """Each kind, with the path and the module of its weight."""
        for i, kind in enumerate(self.kinds):
            path = f"holders.{i}.{kind.owner or 'layer'}"
            yield kind, path, self.get_submodule(path)

    def forward(self, given: torch.Tensor) -> list[torch.Tensor]:
        return [getattr(module, kind.weight.attribute).sum() for kind, _, module in self.of_kinds()]


def _read(graph: Graph, weights: _Weights) -> Iterator[FormulaNodes]:
    params = {param.fqns[0]: param for param in graph.params}
    for (kind, path, module), total in zip(weights.of_kinds(), graph.outputs, strict=True):
        result = graph.producer[total].operands[0]
        nodes, read = _made_by(result, graph)
        parts = (params.get(f"{path}.{name}") for _, name in kind.weight.parameters)
        constants = tuple(constant for constant in graph.constants if constant in read)
        held = tuple(part for part in parts if part is not None)
        yield FormulaNodes(kind, held, constants, nodes, result, _strides(nodes[-1], kind, module))


def _made_by(result: Value, graph: Graph) -> tuple[tuple[Call, ...], set[Value]]:
    """The nodes that a value depends on, in order, and all values that they read."""
    needed, read = set[Any](), set[Value]()
    waiting = [result]
    while waiting:
        node = graph.producer.get(waiting.pop())
        if node is not None and node not in needed:
            needed.add(node)
            read.update(node.operands)
            waiting += node.operands
    return tuple(node for node in graph.nodes if isinstance(node, Call) and node in needed), read


def _strides(node: Call, kind: StoredKind, module: nn.Module) -> tuple[int, ...]:
    """The strides of a weight that `node` makes."""
    if not is_higher_order(node):
        return kind.weight.of(module).stride()
    (result,), (layout,) = node.results, higher_order_of(node).layouts
    strides, step = dict[int, int](), 1
    for dim in reversed(layout):
        strides[dim], step = step, step * int(result.type.shape[dim])
    return tuple(strides[dim] for dim in range(len(layout)))
