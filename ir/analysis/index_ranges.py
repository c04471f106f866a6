"""The values that integer inputs may have, as they index tables: token ids, classes, positions."""

from __future__ import annotations

from collections.abc import Iterator

from ir.graph import Call, Graph, Value
from ir.operators.facts import Elements, aten, rearrangement

_PARTS = {Elements.SLICED, Elements.SELECTED}


def index_ranges(graph: Graph) -> dict[str, tuple[int, int]]:
    """The least and the largest value of each input whose elements all index a table of a known size."""
    source = {v: v for v in graph.inputs if not (v.type.dtype.is_floating_point or v.type.dtype.is_complex)}
    found: dict[str, tuple[int, int]] = {}
    for node in graph.nodes:
        if not isinstance(node, Call):
            continue
        moves = rearrangement(node.op)
        if moves is not None and moves.elements not in _PARTS and (given := source.get(node.operands[0])):
            source[node.results[0]] = given
        for index, low, high in _indices(node):
            if (given := source.get(index)) is not None and _is_integer(index):
                known = found.get(given.name, (low, high))
                found[given.name] = (max(low, known[0]), min(high, known[1]))
    return found


def _is_integer(value: Value) -> bool:
    return not value.type.dtype.is_floating_point and str(value.type.dtype) != "torch.bool"


def _indices(node: Call) -> Iterator[tuple[Value, int, int]]:
    """The values that index a table, and the least and the largest index."""
    table = node.args[0] if node.args else None
    if not isinstance(table, Value):
        return
    shape = table.type.shape
    match node.op:
        case aten.embedding.default:
            indexed = [(node.args[1], shape[0], False)]
        case aten.index_select.default | aten.gather.default:
            indexed = [(node.args[2], shape[node.args[1]], False)] if shape else []
        case aten.index.Tensor:
            indexed = [(index, size, True) for index, size in zip(node.args[1], shape, strict=False)]
        case _:
            return
    for index, size, from_the_end in indexed:
        if isinstance(index, Value) and isinstance(size, int):
            yield index, -size if from_the_end else 0, size - 1
