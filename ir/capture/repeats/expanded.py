"""The graph of a full export, from one with an operator in place of each repeated layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ir.analysis.borders import Namer
from ir.analysis.dead_code import without_dead_code
from ir.capture.program.reader import Read
from ir.capture.repeats.again import AGAIN
from ir.capture.repeats.call_recorder import InDoubt
from ir.capture.repeats.constants import OwnConstant
from ir.capture.repeats.numbering import Instance, LayerRepeats
from ir.graph import Call, Constant, Graph, Node, Value, rename
from ir.location import Frame, Where
from ir.objects.nested import mapped


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
            yield rename(node, self.value)

    def _instance(self, again: Call, instance: Instance) -> Iterator[Node]:
        here = dict(self.own.get(instance.number, {}))
        for name, given in zip(instance.external, again.args[0], strict=True):
            known = self._value(name)
            if known is not None:
                here[known] = self.value(given)
        outputs = [self._value(name) for name in instance.outputs]
        self._require_returned_alike(instance, outputs, again)
        outer = {v: r for v, r in zip(outputs, again.results, strict=True) if v is not None}
        move = _Move(instance.template, again.where)
        for call in self._body(instance, set(here)):
            if not all(v in here for v in call.operands):
                raise InDoubt(f"{instance.path} reads what is not known")
            for result in call.results:
                here[result] = self._repeated(result, instance, call, again, outer.get(result))
            args, kwargs = mapped(lambda a: here[a] if isinstance(a, Value) else a, (call.args, dict(call.kwargs)))
            results = tuple(here[r] for r in call.results)
            yield replace(call, args=args, kwargs=kwargs, results=results, where=move.where(call.where))
        for wanted, result in zip(outputs, again.results, strict=True):
            if wanted is not None and wanted in here:
                self.made[result] = here[wanted]
            elif result in self.graph.kept or self.graph.users.get(result):
                raise InDoubt(f"{instance.path} has no {result.name}")

    def _require_returned_alike(self, instance: Instance, outputs: Sequence[Value | None], again: Call) -> None:
        """Raise InDoubt where the model returns, and so copies, what one layer passes on, and not what another does."""
        for node, value, result in zip(instance.outputs, outputs, again.results, strict=True):
            copied = value is not None and value.name in self.read.copies
            passed_on = value is not None and self.read.wishes.get(value.name, (node, ""))[0] != node
            if (passed_on and result in self.graph.kept) or (copied and result not in self.graph.kept):
                raise InDoubt(f"the model returns what {instance.template} or {instance.path} passes on, not both")

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


@dataclass(frozen=True)
class _Move:
    """A move of places in the template to another call of the kind, `again`."""

    template: str
    again: Where
    frames: dict[tuple[int, int], Frame] = field(default_factory=dict)  # by depth and id: nodes share those around them

    def where(self, where: Where) -> Where:
        frames = tuple(self._frame(*numbered) for numbered in enumerate(where.frames))
        return replace(where, module=self._path(where.module), frames=frames)

    def _frame(self, depth: int, frame: Frame) -> Frame:
        key = depth, id(frame)
        if key not in self.frames:
            around = self.again.frames[:-1]
            module = around[depth].module if depth < len(around) else self._path(frame.module)
            self.frames[key] = replace(frame, module=module)
        return self.frames[key]

    def _path(self, path: str) -> str:
        return _path(path, self.template, self.again.module)


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
