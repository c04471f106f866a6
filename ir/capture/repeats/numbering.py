"""The names of nodes in a full export: torch numbers nodes of one operator as they are created."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx.graph import _Namespace

from ir.capture.repeats.call_recorder import InDoubt
from ir.capture.repeats.constants import OwnConstant, constants_of
from ir.capture.repeats.layers import Created, LayersOnce, Recorded, Repeated

_ITEM = "getitem"


@dataclass(frozen=True)
class Instance:
    """A repeated layer: by the names of the template's nodes, those that a full export has for it."""

    number: int
    path: str
    template: str  # its path
    names: Mapping[str, str]
    external: tuple[str, ...]  # the nodes of the tensors that the template took from outside; "" for none
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class LayerRepeats:
    """The repeated layers of an export, and the name in a full one of each node besides."""

    instances: tuple[Instance, ...]
    names: Mapping[str, str]
    constants: tuple[OwnConstant, ...]  # those of a full one
    templates: tuple[int, ...]  # the call of each kind that is its template


def repeats_of(once: LayersOnce, program: ExportedProgram) -> LayerRepeats | None:
    """The repeated layers of an exported program; None where there is none.

    Raises InDoubt where torch names nodes in another way than it is known to.
    """
    if not once.repeated:
        return None
    graph = once.created[once.repeated[0].start].graph
    created = [c for c in once.created if c.graph is graph]  # not those in functions that operators run
    final = _items(created, program) | _placeholders(created, program)
    numbering = _Numbering(once.created, graph, final)
    constants = constants_of(once.created, once.repeated, program, final)
    starts = {repeated.start: repeated for repeated in once.repeated}
    names: dict[str, str] = {}
    instances: list[Instance] = []
    number = 0
    while number < len(once.created):
        if (repeated := starts.get(number)) is not None:
            numbering.follow(once.created[repeated.start : repeated.end])
            instances.append(numbering.instance(repeated))
            number = repeated.end
            continue
        numbering.follow([once.created[number]])
        names |= numbering.named([once.created[number]])
        number += 1
    return LayerRepeats(tuple(instances), names, constants, once.templates)


class _Numbering:
    """Names the nodes of a graph as torch does, those of an export and those of a full one."""

    def __init__(self, created: Sequence[Created], graph: fx.Graph, final: Mapping[str, str]) -> None:
        self._created, self._graph = created, graph
        self._final = final  # the names in the program of nodes that torch renamed
        self._ours, self._full = _Namespace(), _Namespace()
        found = {
            _number(name) - _number(c.name) for c in self._of_graph(created) if c.item and (name := final.get(c.name))
        }
        if len(found) > 1:
            raise InDoubt("torch numbers the results of operators anew")
        self._shift = next(iter(found), 0)  # regions that torch takes out have such nodes, too, when it copies others

    def follow(self, created: Sequence[Created]) -> None:
        """Name nodes of the export.  Raises InDoubt where torch named them otherwise."""
        for one in self._of_graph(created):
            if self._ours.create_name(one.wish, None) != one.name:
                raise InDoubt(f"torch names a node {one.name}")

    def named(self, created: Sequence[Created]) -> dict[str, str]:
        """The names of the next nodes in a full export, by those in the program."""
        return {self._final.get(c.name, c.name): self._next(c) for c in self._of_graph(created)}

    def instance(self, repeated: Repeated) -> Instance:
        recorded: Recorded = repeated.recorded
        names = self.named(self._created[recorded.start : recorded.end])
        external, outputs = (tuple(self._final.get(n, n) for n in ns) for ns in (recorded.external, recorded.outputs))
        return Instance(repeated.number, repeated.path, recorded.path, names, external, outputs)

    def _of_graph(self, created: Iterable[Created]) -> Iterator[Created]:
        return (one for one in created if one.graph is self._graph)

    def _next(self, created: Created) -> str:
        name = self._full.create_name(created.wish, None)
        return f"{_ITEM}_{_number(name) + self._shift}" if created.item and self._shift else name


def _number(item: str) -> int:
    """The number in `getitem_7`."""
    return int(item.removeprefix(_ITEM).removeprefix("_") or 0)


def _items(created: Sequence[Created], program: ExportedProgram) -> dict[str, str]:
    """The names that results of operators with several have in a program, by those that they were created with."""
    final = {node.args: node.name for node in _nodes(program, "call_function") if node.target is operator.getitem}
    named = {(source.name, index): name for (source, index), name in final.items() if isinstance(source, fx.Node)}
    return {c.name: named[c.item] for c in created if c.item in named}


def _placeholders(created: Sequence[Created], program: ExportedProgram) -> dict[str, str]:
    """The names of a program's placeholders, by those that they were created with."""
    kinds = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.USER_INPUT)
    given = zip(program.graph_signature.input_specs, _nodes(program, "placeholder"), strict=True)
    placed = [node.name for spec, node in given if spec.kind in kinds]
    first = [c.name for c in created if c.placeholder]
    if len(first) != len(placed):
        raise InDoubt("torch gives the program other inputs than it traced")
    return dict(zip(first, placed, strict=True))


def _nodes(program: ExportedProgram, op: str) -> Iterator[fx.Node]:
    return (node for node in program.graph.nodes if node.op == op)
