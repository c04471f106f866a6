"""The scheme by which a graph dequantizes a weight: the graph's nodes are those of the scheme's own formula."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import torch

from ir.capture.stored_weights.formulas import StoredKind, formula_nodes
from ir.checkpoint.quantized.kept import KeptWeight
from ir.checkpoint.quantized.packed import Gptq, PackedRows
from ir.checkpoint.quantized.scaled import Scaled
from ir.checkpoint.quantized.scheme import Scheme
from ir.graph import Call, Graph, Node, Param, Value
from ir.objects.nested import mapped
from ir.sizes import TensorType

Formula: TypeAlias = Any
"""An operator with its arguments, each a formula, a literal, or what a stored tensor is: `codes`, `scale`, …"""

_Types: TypeAlias = tuple[tuple[str, TensorType], ...]


@dataclass(frozen=True)
class WeightAsStored:
    """A weight in a graph: its scheme, and its stored tensors by what they are."""

    scheme: Scheme
    parts: Mapping[str, Param]


def stored_weight(weight: Value, graph: Graph) -> WeightAsStored | None:
    """The weight that a value is, computed by one of the known schemes from params alone; None where it is not."""
    params = _params_of(weight, graph)
    if not params or not all(isinstance(size, int) for size in weight.type.shape):
        return None
    codes = min(params, key=lambda param: len(param.fqns[0]))
    parts = {"codes" if p is codes else p.fqns[0].removeprefix(f"{codes.fqns[0]}_"): p for p in params}
    if "scale" not in parts:
        return None
    named = {param: what for what, param in parts.items()}
    formula = formula_of(weight, graph.producer, named)
    types = tuple((what, parts[what].type) for what in sorted(parts))
    schemes = _schemes(weight.type, codes.type)
    scheme = next((s for s in schemes if _formula_of_scheme(s, weight.type, types) == formula), None)
    return None if scheme is None else WeightAsStored(scheme, parts)


def formula_of(value: Value, producer: Mapping[Value, Node], named: Mapping[Param, str]) -> Formula:
    """The formula of a value; other leaves than those `named` stand for themselves."""
    node = producer.get(value)
    if isinstance(value, Param):
        return named.get(value, value)
    if not isinstance(node, Call) or len(node.results) > 1:
        return value
    args, kwargs = mapped(
        lambda a: formula_of(a, producer, named) if isinstance(a, Value) else a, (node.args, dict(node.kwargs))
    )
    return (node.op, args, tuple(kwargs.items()))


def _params_of(value: Value, graph: Graph) -> set[Param]:
    """The params that a value is computed from; none where it is computed from anything else."""
    found, waiting = set[Param](), [value]
    while waiting:
        value = waiting.pop()
        node = graph.producer.get(value)
        if isinstance(value, Param):
            found.add(value)
        elif isinstance(node, Call) and not node.op._schema.is_mutable:
            waiting += node.operands
        else:
            return set()
    return found


_IN_WORDS = (2, 4, 8)
"""The bits of numbers that a word of 32 holds some of as a whole, as the operator takes them."""


def _schemes(weight: TensorType, codes: TensorType) -> Iterator[Scheme]:
    """The schemes that codes of this type may be of."""
    (rows, columns), size = weight.shape, codes.shape
    if codes.dtype == torch.int32 and len(size) == 2:
        if size[0] == rows and isinstance(columns, int) and (bits := int(size[1]) * 32 // columns) in _IN_WORDS:
            yield PackedRows(bits, columns)
        if (bits := int(size[0]) * 32 // int(columns)) in _IN_WORDS:
            yield from (Gptq(bits, less_one) for less_one in (True, False))
    elif codes.dtype in (torch.float8_e4m3fn, torch.float8_e5m2, torch.int8):
        yield from (Scaled(block, wide) for block in (None, (128, 128)) for wide in (True, False))


@lru_cache(maxsize=256)
def _formula_of_scheme(scheme: Scheme, weight: TensorType, types: _Types) -> Formula:
    """The formula of a weight as a graph of it has it; None where these types do not go with it."""
    of_parts: dict[str, Any] = {what: (part.shape, part.dtype) for what, part in types}
    names = {what: "weight" if what == "codes" else f"weight_{what}" for what in ("codes", *of_parts)}
    kept = KeptWeight(scheme, tuple(names.items()), weight.dtype)
    kind = StoredKind(kept, tuple(of_parts[what] for what in names), False, "", torch.get_default_dtype())
    try:
        known = formula_nodes([kind])[kind]
    except Exception:  # of a formula for tensors of other sizes
        return None
    attributes = {name: what for what, name in names.items()}
    named = {part: attributes[part.fqns[0].rpartition(".")[2]] for part in known.parts}
    return formula_of(known.result, known.producer, named) if known.result.type == weight else None
