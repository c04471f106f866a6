"""The graph of a source, with what cutting it again needs, as a table of JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ir.decoding import Decoding, MediaPlaces
from ir.errors import SourceError
from ir.graph import Call, Constant, Graph, Param, Program, State, Value
from ir.location import Copy, Frame, Where
from ir.microbatching import Microbatching
from ir.objects.named_classes import NamedClass
from ir.objects.signature import FixedTensor, Signature, Slot, Tree
from ir.operators.higher_order import Body, HigherOrder, behind_key, is_higher_order, key_for
from ir.serialized.leaves import Unspeakable
from ir.serialized.rows import RowReader, RowWriter
from ir.sizes import CallSizes, DescribedValues, RowProductSum, TensorType, ValueCount

FORMAT = 1


@dataclass(frozen=True)
class Uncut:
    """A graph before the passes, as an artifact has it: what another cut begins with."""

    graph: Graph
    notes: tuple[str, ...] = ()  # of the source, for the user
    made_up: bool = False  # whether nobody chose the sizes of the example


_CLASSES: Mapping[str, type] = {
    cls.__name__: cls
    for cls in (
        *(Uncut, Graph, Program, Call, Value, Param, Constant, State, TensorType, CallSizes),
        *(ValueCount, RowProductSum, DescribedValues),
        *(Where, Frame, Copy, Signature, Tree, Slot, FixedTensor, NamedClass),
        *(Microbatching, Decoding, MediaPlaces, Body, HigherOrder),
    )
}


def graph_table(uncut: Uncut) -> tuple[dict[str, Any], tuple[torch.Tensor, ...]]:
    """The table, and the tensors that it refers to by their numbers: the data of constants and states.

    Of a graph that no file can have, the table says why.
    """
    graph = uncut.graph
    if graph.whole:
        return _refusal(f"{graph.whole[0].path} is kept whole, and only the model itself has it"), ()
    writer = RowWriter(_CLASSES)
    try:
        writer.write(replace(uncut, graph=graph.map(_with_function)))
    except Unspeakable as e:
        return _refusal(f"its graph holds {e}"), ()
    return {"format": FORMAT, "rows": writer.rows}, tuple(writer.tensors)


def _refusal(why: str) -> dict[str, Any]:
    return {"format": FORMAT, "why_not": why}


def uncut_of(table: Any, tensor: Callable[[int], torch.Tensor]) -> Uncut:
    """The graph of `graph_table`; `tensor` gives the data of a number.

    Raises SourceError, with the reason, for a graph that the table does not have, and for a table of another format.
    """
    match table:
        case {"format": int(version)} if version != FORMAT:
            raise SourceError(f"its graph is of format {version}, and this version of stagecut reads format {FORMAT}")
        case {"why_not": str(why)}:
            raise SourceError(why)
        case {"rows": list(rows)}:
            found = RowReader(_CLASSES, tensor).read(rows)
            if isinstance(found, Uncut):
                return replace(found, graph=found.graph.map(_with_key))
    raise SourceError("its graph is no table of one")


def _with_function(node: Any) -> Any:
    """A node with the functions that it runs in place of the key, by which only this process knows them."""
    if not is_higher_order(node):
        return node
    operands, sizes, key = node.args
    what = behind_key(key)
    return replace(node, args=(operands, sizes, what.map(lambda body: body.map(lambda n: [_with_function(n)]))))


def _with_key(node: Any) -> Any:
    match node:
        case Call(args=(operands, sizes, HigherOrder() as what)):
            inner = what.map(lambda body: body.map(lambda n: [_with_key(n)]))
            return replace(node, args=(operands, sizes, key_for(inner)))
    return node
