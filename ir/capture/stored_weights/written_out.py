"""A graph of plain weights -> the graph of the stored ones, each made of its stored tensors where it is read."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby

from ir.capture.stored_weights.stand_ins import StandIn
from ir.graph import Call, Constant, Graph, Node, Param, Value, rename
from ir.objects.nested import mapped
from ir.sizes import TensorType

_LIFTED = "lifted_tensor_"


def can_be_written_out(graph: Graph, stand_ins: Mapping[str, StandIn]) -> bool:
    """Whether the model changes none of its weights: it would change one that is computed for that use alone.

    A module that is kept whole reads none, as its class could not be imported.
    """
    return not any(fqn in stand_ins for state in graph.states for fqn in state.fqns)


def written_out(graph: Graph, stand_ins: Mapping[str, StandIn]) -> Graph:
    """The graph with the nodes of a weight's formula ahead of each node that reads the weight."""
    return _WritingOut(graph, stand_ins).graph_of_stored() if stand_ins else graph


@dataclass
class _Names:
    """Unique names by their stems, numbered as torch numbers nodes."""

    taken: set[str]
    counts: dict[str, int] = field(default_factory=dict)

    def numbered(self, stem: str) -> str:
        count = self.counts.get(stem, int(keyword.iskeyword(stem)))
        while (name := f"{stem}_{count}" if count else stem) in self.taken:
            count += 1
        self.counts[stem] = count + 1
        self.taken.add(name)
        return name


@dataclass
class _WritingOut:
    graph: Graph
    stand_ins: Mapping[str, StandIn]
    names: _Names = field(init=False)
    stored: dict[Value, tuple[StandIn, dict[Value, Value]]] = field(default_factory=dict)  # by the plain weight
    constants: list[Constant] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = _Names(self.graph.names)
        self.lifted = sum(_LIFTED in constant.fqn for constant in self.graph.constants)

    def graph_of_stored(self) -> Graph:
        params = tuple(self._params())
        nodes = tuple(new for node in self.graph.nodes for new in self._with_formulas(node))
        return replace(self.graph, params=params, constants=(*self.graph.constants, *self.constants), nodes=nodes)

    def _params(self) -> Iterator[Param]:
        """The params with the stored tensors, in the order in which modules hold them."""
        for owner, held in groupby(self.graph.params, lambda p: p.fqns[0].rpartition(".")[0]):
            params, order = list[Param](), dict[str, int]()
            for param in held:
                stand_in = self.stand_ins.get(param.fqns[0])
                if stand_in is None:
                    params.append(param)
                    continue
                order = {f"{owner}.{name}".lstrip("."): place for place, name in enumerate(stand_in.order)}
                params += self._parts(param, stand_in)
            yield from sorted(params, key=lambda p: order[p.fqns[0]]) if order else params

    def _parts(self, plain: Param, stand_in: StandIn) -> list[Param]:
        """The stored tensors of a weight."""
        owners = [fqn.rpartition(".")[0] for fqn in plain.fqns]
        parts: dict[Value, Param] = {}
        for part in stand_in.formula.parts:
            attribute = part.fqns[0].rpartition(".")[2]
            fqns = tuple(f"{owner}.{attribute}".lstrip(".") for owner in owners)
            codes = attribute == stand_in.weight.attribute
            name = plain.name if codes else self.names.numbered(re.sub(r"\W", "_", fqns[0]))
            parts[part] = Param(name, part.type, fqns, frozen=True)
        self.stored[plain] = stand_in, dict(parts)
        return list(parts.values())

    def _with_formulas(self, node: Node) -> Iterator[Node]:
        made: dict[Value, Value] = {}
        for plain in dict.fromkeys(node.operands):
            if plain in self.stored:
                calls = list(self._formula(plain, node))
                yield from calls
                made[plain] = calls[-1].results[0]
        yield rename(node, lambda v: made.get(v, v)) if made else node

    def _formula(self, plain: Value, reader: Node) -> Iterator[Call]:
        """The nodes that make a weight, the last of which returns it."""
        stand_in, parts = self.stored[plain]
        held = _held_in(stand_in, reader)
        here = {**parts, **{constant: self._own(constant, stand_in) for constant in stand_in.formula.constants}}
        for call in stand_in.formula.nodes:
            for result in call.results:
                name = self.names.numbered(re.sub(r"_\d+$", "", result.name))
                here[result] = Value(name, result.type, variables=held if result is stand_in.formula.result else ())
            args, kwargs = mapped(lambda a: here[a] if isinstance(a, Value) else a, (call.args, dict(call.kwargs)))
            results = tuple(here[result] for result in call.results)
            yield Call(op=call.op, args=args, kwargs=kwargs, results=results, where=reader.where)

    def _own(self, constant: Constant, stand_in: StandIn) -> Constant:
        """A copy of a formula's constant for one weight."""
        name = f"{_LIFTED}{self.lifted}"
        self.lifted += 1
        fqn = f"{stand_in.path}.{name}".lstrip(".")
        type_ = TensorType(constant.type.shape, constant.type.dtype)
        own = Constant(self.names.numbered(re.sub(r"\W", "_", fqn)), type_, fqn, constant.data.clone())
        self.constants.append(own)
        return own


def _held_in(stand_in: StandIn, reader: Node) -> tuple[str, ...]:
    """The variables that hold a weight: that of experts is a statement of its own, called as the module calls it."""
    if not stand_in.formula.kind.of_experts:
        return ()
    return (*("" for _ in reader.where.frames[1:]), stand_in.weight.attribute, "")
