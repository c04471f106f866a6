"""The nodes that make a weight of its stored tensors, captured once for all weights of a kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ir.capture.export.example import Example, slotted
from ir.capture.export.recording import record
from ir.checkpoint.quantized.kept import KeptWeight, hold_stored
from ir.graph import Call, Constant, Graph, Param, Value
from ir.objects.signature import flatten, forward_parameters
from ir.operators.higher_order import higher_order_of, is_higher_order


@dataclass(frozen=True)
class StoredKind:
    """The facts in which weights agree that the same nodes make."""

    weight: KeptWeight
    types: tuple[tuple[tuple[int, ...], torch.dtype], ...]  # of the stored tensors, in the order of the weight's
    owner: str  # the last name of the module's path: functions for each expert have arguments called so
    default: torch.dtype  # torch's own, which tables of numbers have


@dataclass(frozen=True, eq=False)
class Formula:
    """The nodes that make a weight of its stored tensors."""

    kind: StoredKind
    parts: tuple[Param, ...]  # in the order of the weight's
    constants: tuple[Constant, ...]
    nodes: tuple[Call, ...]
    result: Value
    strides: tuple[int, ...]  # of the result, which may lie transposed in memory

    def stand_in(self) -> nn.Parameter:
        """A plain weight on the meta device."""
        shape: Any = self.result.type.shape
        plain = torch.empty_strided(shape, self.strides, dtype=self.result.type.dtype, device="meta")
        return nn.Parameter(plain, requires_grad=False)


_KNOWN: dict[StoredKind, Formula] = {}


def kind_of(weight: KeptWeight, module: nn.Module, path: str) -> StoredKind:
    """The kind of a weight that a module holds as it is stored."""
    tensors: list[Any] = [module._parameters[name] for _, name in weight.parameters]
    types = tuple((tuple(tensor.shape), tensor.dtype) for tensor in tensors)
    owner = path.rpartition(".")[2] if weight.is_of_experts(tensors[0]) else ""
    return StoredKind(weight, types, owner, torch.get_default_dtype())


def formulas_of(kinds: Sequence[StoredKind]) -> dict[StoredKind, Formula]:
    """The formula of each kind, by one export for all that are not known yet.  Raises CaptureError."""
    if new := [kind for kind in dict.fromkeys(kinds) if kind not in _KNOWN]:
        module, given = _Weights(new), torch.zeros(1)
        example = Example(module, forward_parameters(module), slotted(*flatten({"given": given})), [given], [{}])
        graph = record(example).graph
        _KNOWN.update((formula.kind, formula) for formula in _read(graph, module))
    return {kind: _KNOWN[kind] for kind in kinds}


class _Weights(nn.Module):
    """A module with a weight of each kind, that returns the sum of each: an output itself would be a copy."""

    def __init__(self, kinds: Sequence[StoredKind]) -> None:
        super().__init__()
        self.kinds = kinds
        self.holders = nn.ModuleList(nn.ModuleDict({_held(kind): nn.Module()}) for kind in kinds)
        for kind, module in zip(kinds, self.modules_of_kinds(), strict=True):
            empty = {
                what: torch.empty(shape, dtype=dtype, device="meta")
                for (what, _), (shape, dtype) in zip(kind.weight.parameters, kind.types, strict=True)
            }
            hold_stored(module, kind.weight.attribute, kind.weight, empty)

    def modules_of_kinds(self) -> Iterator[Any]:
        for kind, holder in zip(self.kinds, self.holders, strict=True):
            yield holder.get_submodule(_held(kind))

    def forward(self, given: torch.Tensor) -> list[torch.Tensor]:
        modules = zip(self.kinds, self.modules_of_kinds(), strict=True)
        return [getattr(module, kind.weight.attribute).sum() for kind, module in modules]


def _held(kind: StoredKind) -> str:
    return kind.owner or "layer"


def _read(graph: Graph, module: _Weights) -> Iterator[Formula]:
    params = {param.fqns[0]: param for param in graph.params}
    holders = zip(module.kinds, module.modules_of_kinds(), graph.outputs, strict=True)
    for i, (kind, holder, total) in enumerate(holders):
        result = graph.producer[total].operands[0]
        nodes, read = _made_by(result, graph)
        parts = (params.get(f"holders.{i}.{_held(kind)}.{name}") for _, name in kind.weight.parameters)
        constants = tuple(constant for constant in graph.constants if constant in read)
        held = tuple(part for part in parts if part is not None)
        yield Formula(kind, held, constants, nodes, result, _strides(nodes[-1], kind, holder))


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


def _strides(node: Any, kind: StoredKind, holder: nn.Module) -> tuple[int, ...]:
    """The strides of a weight that `node` makes."""
    if not is_higher_order(node):
        return kind.weight.of(holder).stride()
    (result,), (layout,) = node.results, higher_order_of(node).layouts
    strides, step = dict[int, int](), 1
    for dim in reversed(layout):
        strides[dim], step = step, step * int(result.type.shape[dim])
    return tuple(strides[dim] for dim in range(len(layout)))
