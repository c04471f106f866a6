"""The graph of a full export, from one with an operator in place of each repeated layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch.utils._pytree import tree_map

from ir.analysis.borders import Namer
from ir.analysis.dead_code import without_dead_code
from ir.capture.program.reader import Read
from ir.capture.repeats.again import AGAIN
from ir.capture.repeats.constants import OwnConstant
from ir.capture.repeats.numbering import Instance, LayerRepeats
from ir.capture.repeats.template import InDoubt
from ir.graph import Call, Constant, Graph, Node, Value
from ir.location import Where


def repeats(node: Node) -> bool:
    """Whether a node stands for a repeated layer."""
    return isinstance(node, Call) and node.op == AGAIN


def with_all_layers(graph: Graph, found: LayerRepeats, read: Read) -> Graph:
    """The graph with the template's nodes in place of each operator, under the names of a full export.

    Raises InDoubt where a template is not all there.
    """
    calls = {value.name: node for node in graph.nodes for value in node.results if isinstance(node, Call)}
    expansion = _Expansion(graph, read, calls)
    instances = {instance.number: instance for instance in found.instances}
    constants = expansion.constants(found.constants, instances)
    nodes = tuple(new for node in graph.nodes for new in expansion.of(node, instances))
    outputs = tuple(expansion.value(v) for v in graph.outputs)
    updates = tuple((state, expansion.value(v)) for state, v in graph.updates)
    modules = expansion.modules(instances)
    full = replace(graph, constants=constants, nodes=nodes, outputs=outputs, updates=updates, modules=modules)
    live = without_dead_code(full)
    if live.constants != constants:  # torch does not number those that it does not need
        raise InDoubt("a layer does not need all that those like it need")
    return _named(live, found.names, expansion)


@dataclass
class _Expansion:
    graph: Graph
    read: Read
    calls: Mapping[str, Call]  # by name of a result
    made: dict[Value, Value] = field(default_factory=dict)  # what stands for the results of the operators
    named: dict[Value, str] = field(default_factory=dict)  # the names of those in a full export
    own: dict[int, dict[Value, Value]] = field(default_factory=dict)  # constants of each instance, by the template's

    def value(self, value: Value) -> Value:
        return self.made.get(value, value)

    def constants(self, owned: Iterable[OwnConstant], instances: Mapping[int, Instance]) -> tuple[Constant, ...]:
        """The constants of a full export, in its order."""
        known = {one.placeholder: self._value(one.placeholder) for one in owned}
        others = [c for c in self.graph.constants if c not in known.values()]
        leaves = (*self.graph.inputs, *self.graph.params, *self.graph.states, *others)
        namer = Namer({*(v.name for v in leaves), *map(str, self.graph.hints)})
        made: list[Constant] = []
        for one in owned:
            if (value := known[one.placeholder]) is None:
                continue
            assert isinstance(value, Constant)
            again = one.instance in instances
            path = (
                _path(one.path, instances[one.instance].template, instances[one.instance].path) if again else one.path
            )
            fqn = f"{path}.{one.name}".lstrip(".")
            data = value.data.clone() if again else value.data
            made.append(replace(value, name=namer(fqn), fqn=fqn, data=data))
            (self.own.setdefault(one.instance, {}) if again else self.made)[value] = made[-1]
        return (*others, *made)

    def of(self, node: Node, instances: Mapping[int, Instance]) -> Iterator[Node]:
        if isinstance(node, Call) and node.op == AGAIN:
            yield from self._instance(node, instances[node.args[2]])
        else:
            yield _mapped(node, self.made)

    def _instance(self, again: Call, instance: Instance) -> Iterator[Node]:
        here = dict(self.own.get(instance.number, {}))
        for name, given in zip(instance.external, again.args[0], strict=True):
            known = self._value(name)
            if known is not None:
                here[known] = self.value(given)
        outputs = [self._value(name) for name in instance.outputs]
        outer = {v: r for v, r in zip(outputs, again.results, strict=True) if v is not None}
        for call in self._body(instance, set(here)):
            if not all(v in here for v in call.operands):
                raise InDoubt(f"{instance.path} reads what is not known")
            for result in call.results:
                here[result] = self._repeated(result, instance, call, again, outer.get(result))
            where = _moved(call.where, instance.template, again.where)
            yield replace(_mapped(call, here), results=tuple(here[r] for r in call.results), where=where)
        for wanted, result in zip(outputs, again.results, strict=True):
            if wanted is not None and wanted in here:
                self.made[result] = here[wanted]
            elif result in self.graph.kept or self.graph.users.get(result):
                raise InDoubt(f"{instance.path} has no {result.name}")

    def _body(self, instance: Instance, given: set[Value]) -> list[Call]:
        """The calls that the nodes of the template became."""
        values = (self._value(name) for name in instance.names)
        inside = [v for v in values if v is not None and v not in given and v.name in self.calls]
        return list(dict.fromkeys(self.calls[v.name] for v in inside))

    def _value(self, node: str) -> Value | None:
        name = self.read.values.get(node)
        return self._values.get(name) if name is not None else None

    @property
    def _values(self) -> Mapping[str, Value]:
        if not self._known:
            self._known.update({v.name: v for v in self.graph.leaves})
            self._known.update({v.name: v for n in self.graph.nodes for v in n.results})
        return self._known

    _known: dict[str, Value] = field(default_factory=dict)

    def _repeated(self, value: Value, instance: Instance, call: Call, again: Call, outer: Value | None) -> Value:
        """The value of the template in an instance; the variables of calls around it are those of the operator."""
        names, held = value.variables, ()
        if outer is not None and outer.name not in self.read.held_later:  # by a module that comes later
            held = outer.variables
        if outer is not None and (names or held):
            inside = len(call.where.frames) - len(again.where.frames) + 1  # calls of modules; forwards may call others
            depth = len(held or names[inside:]) - 1
            around = held or ("",) * depth
            names = (*around[:depth], *(names[depth:] or ("",) * (inside + 1)))
        new = replace(value, variables=names if any(names) else ())
        node, rest = self.read.wishes[value.name]
        self.named[new] = instance.names[node] + rest
        return new

    def modules(self, instances: Mapping[int, Instance]) -> dict[str, str]:
        """The classes of modules by path, in the order in which a full export meets them."""
        paths = {instance.path: instance.template for instance in instances.values()}
        found: dict[str, str] = {}
        for path, cls in self.graph.modules.items():
            found.setdefault(path, cls)
            if (template := paths.get(path)) is not None:
                inside = (p for p in self.graph.modules if p.startswith(f"{template}."))
                found |= {path + p[len(template) :]: self.graph.modules[p] for p in inside}
        return found


def _mapped(node: Any, values: Mapping[Value, Value]) -> Any:
    """The same node, which reads what stands for the values that it read."""
    if all(values.get(v, v) is v for v in node.operands):
        return node
    args, kwargs = tree_map(lambda a: values.get(a, a) if isinstance(a, Value) else a, (node.args, dict(node.kwargs)))
    return replace(node, args=args, kwargs=kwargs)


def _moved(where: Where, template: str, again: Where) -> Where:
    """A place in the template, moved to another call of the kind."""
    depth = len(again.frames) - 1
    frames = tuple(
        replace(frame, module=again.frames[i].module if i < depth else _path(frame.module, template, again.module))
        for i, frame in enumerate(where.frames)
    )
    return replace(where, module=_path(where.module, template, again.module), frames=frames)


def _path(path: str, template: str, place: str) -> str:
    return place + path[len(template) :] if f"{path}.".startswith(f"{template}.") else path


def _named(graph: Graph, names: Mapping[str, str], expansion: _Expansion) -> Graph:
    """The graph under the names of a full export."""
    wishes = expansion.read.wishes
    namer = Namer({*(v.name for v in graph.leaves), *map(str, graph.hints)})
    new: dict[Value, Value] = {}
    for value in (v for node in graph.nodes for v in node.results):
        if (wish := expansion.named.get(value)) is None:
            node, rest = wishes.get(value.name, (value.name, ""))
            wish = names.get(node, node) + rest
        new[value] = replace(value, name=namer(wish))
    return graph.map_values(lambda v: new.get(v, v))
