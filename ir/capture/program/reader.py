"""The walk over an ExportedProgram that makes the values and nodes of a Graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import sympy
import torch
from torch import fx, nn
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from ir.analysis.borders import Namer
from ir.analysis.dead_code import without_dead_code
from ir.capture.diagnosis import NotExported
from ir.capture.paths import clean
from ir.capture.program.gradients import GradientFlow
from ir.capture.program.higher_order import ReadBody, is_readable, read_higher_order
from ir.capture.program.in_place.mutation import mutates, rewritten
from ir.capture.program.in_place.own_results import alias_of, copy_of
from ir.capture.program.leaves import STATE_CHANGES, Leaves
from ir.capture.program.no_ops import is_checked_alone, is_returned_copy, is_truth_as_number, kept_operand
from ir.capture.program.result_types import Types
from ir.capture.program.returned import split_returns
from ir.capture.program.ties import tied_names
from ir.capture.sizes.counts import asserted_counts
from ir.capture.sizes.symbols import NamedSizes
from ir.capture.source_lines.variables import inherits_variables, variables_of
from ir.capture.source_lines.where import module_classes, where_of
from ir.errors import InternalError
from ir.graph import THIS_DEVICE, Call, Constant, Graph, Param, State, Value
from ir.location import Where
from ir.objects.signature import Signature, names
from ir.operators.facts import aten
from ir.operators.higher_order import Body
from ir.operators.int_sizes import STANDS_FOR


def read_program(
    program: ExportedProgram,
    model: nn.Module,
    signature: Signature,
    sizes: NamedSizes,
    detaches: bool = True,
) -> tuple[Graph, Read]:
    """The Graph of an exported `model`, and what its nodes became; in `signature.returns` sizes have slots, too.

    `detaches`: whether gradients end where the program says; a trace made after autograd detaches for its own ends.
    Raises NotExported for an operator, a region or a size that the graph cannot hold.
    """
    trained = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    namer = Namer(set(map(str, sizes.hints)))
    leaves = Leaves(program, tied_names(model), trained, namer)
    reader = _Reader(program, Types(sizes), leaves, GradientFlow(detaches), namer)
    reader.read_placeholders(names(signature.arguments))
    returned = reader.read_nodes(program.graph)
    return reader.graph(signature, returned), reader.read


@dataclass(frozen=True)
class Read:
    """The values that the nodes of a program became, by their names."""

    values: dict[str, str] = field(default_factory=dict)  # by node: the name of its value
    wishes: dict[str, tuple[str, str]] = field(default_factory=dict)  # by value: the node, and what follows its name
    copies: set[str] = field(default_factory=set)  # copies that the model returns beside the original
    held_later: set[str] = field(default_factory=set)  # values whose variables are of a later node that returns them

    def note(self, node: str, value: Any) -> None:
        if isinstance(value, Value):
            self.values[node] = value.name


_TOP = Where()


@dataclass
class _Reader:
    """Walks an exported graph once and collects what it finds."""

    program: ExportedProgram
    types: Types
    leaves: Leaves  # of the graph around it, too, in the body of a function
    flow: GradientFlow
    namer: Namer
    inside: Where = _TOP  # the call of the function whose body is read
    env: dict[fx.Node, Any] = field(default_factory=dict)  # a Value, an Expr, a tuple of them, or a number
    inputs: list[Value] = field(default_factory=list)
    nodes: list[Call] = field(default_factory=list)
    modules: dict[str, str] = field(default_factory=dict)
    variables: dict[Value, tuple[str, ...]] = field(default_factory=dict)
    read: Read = field(default_factory=Read)

    # ---- inputs, weights, constants and states

    def read_placeholders(self, input_names: Sequence[str]) -> None:
        placeholders = [n for n in self.program.graph.nodes if n.op == "placeholder"]
        specs = self.program.graph_signature.input_specs
        given = iter(input_names)
        for spec, node in zip(specs, placeholders, strict=True):
            if spec.kind is InputKind.USER_INPUT:
                self.env[node] = Value(self.namer(next(given)), self.types.type_of(node))
                self.inputs.append(self.env[node])
                self.flow.start(self.env[node])
        for spec, node in zip(specs, placeholders, strict=True):
            if spec.kind is not InputKind.USER_INPUT:
                self.env[node], trained = self.leaves.read(spec, node, self.types.type_of(node))
                self.flow.start(self.env[node], trained)
            self.read.note(node.name, self.env[node])

    # ---- nodes

    def read_nodes(self, graph: fx.Graph) -> Any:
        """Read a graph, or the body of a region; return what it returns: a list, or one value."""
        for node in graph.nodes:
            match node.op:
                case "call_function":
                    self.read_call(node)
                    self.read.note(node.name, self.env.get(node))
                case "get_attr":
                    self.env[node] = self.attribute(node)
                case "output":
                    return self.argument(node.args[0])
        return []

    def attribute(self, node: fx.Node) -> Any:
        value = operator.attrgetter(str(node.target))(node.graph.owning_module)
        return self.leaves.attribute(node, value) if isinstance(value, torch.Tensor) else value  # a region's body

    def read_call(self, node: fx.Node) -> None:
        self.modules |= module_classes(node)
        if is_checked_alone(node):
            return
        value = node.meta.get("val")
        if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            self.env[node] = self.types.size(value, node)
        elif isinstance(value, (int, float)) and self.inside is _TOP:
            self.env[node] = value
        elif node.target is operator.getitem:
            whole, index = node.args
            self.env[node] = self.env[whole][index]  # type: ignore[index]
            self.hold(node)
        elif is_truth_as_number(node):
            self.env[node] = sympy.Piecewise((1, sympy.sympify(self.argument(node.args[0]))), (0, True))
        elif is_readable(node):
            self.read_functions(node)
        elif isinstance(node.target, HigherOrderOperator):
            self.read_region(node)
        elif (kept := kept_operand(node)) is not None and not self.ends_gradients(node):
            self.env[node] = self.copied(node, kept) if is_returned_copy(node) else self.argument(kept)
            self.hold(node, later=not is_returned_copy(node))
        elif isinstance(node.target, OpOverload):
            self.read_operator(node, node.target)
        else:
            raise NotExported(f"{node.target} is not an operator that stages can run", where_of(node))

    def read_region(self, node: fx.Node) -> None:
        """Inline a region that sets a mode only: gradients, or autocast that is off.  Raises NotExported for others."""
        name = str(node.target)
        if "auto_functionalized" in name:
            advice = "have it return what it makes, mutates_args=(), or call it in a module of its own below the model"
            reason = f"the custom operator {node.args[0]} changes its arguments in place"
            raise NotExported(reason, where_of(node), advice)
        if "set_grad_enabled" not in name and "autocast" not in name:
            advice = "use torch.where, if it is for a branch"
            raise NotExported(f"{name} runs functions, which cannot be cut into stages", where_of(node), advice)
        first = next(i for i, a in enumerate(node.args) if isinstance(a, fx.Node) and a.op == "get_attr")
        body: fx.GraphModule = self.env[node.args[first]]  # type: ignore[index]
        inside = [n for n in body.graph.nodes if n.op == "placeholder"]
        self.env.update(zip(inside, map(self.argument, node.args[first + 1 :]), strict=True))
        self.env[node] = tuple(self.read_nodes(body.graph))

    def read_functions(self, node: fx.Node) -> None:
        """An operator that runs functions, such as `cond`: one node with their bodies."""
        results, where = self.results(node), self.where(node)
        producer = {value: call for call in self.nodes for value in call.results}
        call = read_higher_order(
            node, self.argument, partial(self.body, where), results, producer, self.types.sizes.hints, where
        )
        self.nodes.append(call)
        self.flow.follow(call)
        self.env[node] = results

    def body(self, where: Where, function: ReadBody) -> Body:
        """The body of a function that is called at `where`."""
        flow, namer = GradientFlow(self.flow.followed), Namer({str(s) for s in self.types.sizes.hints})
        placeholders = [n for n in function.module.graph.nodes if n.op == "placeholder"]
        named = [(n, n.meta["val"], namer(name)) for n, name in zip(placeholders, function.arguments, strict=True)]
        types = Types(self.types.sizes.with_numbers([(value, name) for _, value, name in named]))
        inner = _Reader(self.program, types, self.leaves, flow, namer, where)
        for node, value, name in named:
            if isinstance(value, torch.Tensor):
                inner.env[node] = Value(name, types.type_of(node))
                flow.start(inner.env[node])
            else:
                inner.env[node] = types.size(value, node)
        inputs = tuple(inner.env.values())
        returned = inner.read_nodes(function.module.graph)
        packed = isinstance(returned, list)
        return Body(function.name, inputs, tuple(inner.nodes), tuple(returned) if packed else (returned,), packed)

    def where(self, node: fx.Node) -> Where:
        return where_of(node) if self.inside is _TOP else self.inside

    def read_operator(self, node: fx.Node, op: OpOverload) -> None:
        rewrite = rewritten(node) if mutates(node) else None
        op, given = (TWINS.get(str(op), op), node.args) if rewrite is None else (rewrite.op, rewrite.args)
        args = tuple(self.argument(a) for a in given)
        kwargs = {k: self.argument(v) for k, v in node.kwargs.items() if (k, v) not in DEFAULTS}
        if op is aten.to.device:  # all that a stage has is on its device
            op, args = aten.to.dtype, (args[0], *args[2:])
        results = self.results(node) if rewrite is None else (self.changed(node, rewrite.changed),)
        self.nodes.append(Call(op=op, args=args, kwargs=kwargs, results=results, where=self.where(node)))
        self.flow.follow(self.nodes[-1])
        self.env[node] = results if self.nodes[-1].unpacks else results[0]
        if len(results) == 1:
            self.hold(node)
        if rewrite is not None:  # later nodes read the new value
            self.env[rewrite.changed] = results[0]

    def ends_gradients(self, node: fx.Node) -> bool:
        """Whether a node is a detach() that a gradient would reach."""
        return node.target is aten.detach.default and self.env[node.args[0]] in self.flow.carrying  # type: ignore[index]

    def copied(self, node: fx.Node, kept: fx.Node) -> Value:
        """A copy of an operand that a node returns: what the model returns apart from it is apart here, too."""
        result = Value(self.name(node.name), self.types.type_of(node))
        self.read.copies.add(result.name)
        self.nodes.append(copy_of(self.argument(kept), result, where=self.where(node)))
        self.flow.follow(self.nodes[-1])
        return result

    def hold(self, node: fx.Node, later: bool = False) -> None:
        """The variables of the user's that hold what a node makes; those of an earlier node with that result stay.

        `later`: whether it returns what an earlier node made.
        """
        value, names = self.env[node], variables_of(node)
        if isinstance(value, tuple) and len(value) == 1:
            [value] = value
        if isinstance(value, Value) and any(names) and not inherits_variables(node) and value not in self.variables:
            self.variables[value] = names
            if later:
                self.read.held_later.add(value.name)

    def changed(self, node: fx.Node, before: fx.Node) -> Value:
        return Value(self.name(node.name), self.types.type_of(before))

    def results(self, node: fx.Node) -> tuple[Value, ...]:
        value = node.meta["val"]
        if isinstance(value, torch.Tensor):
            return (Value(self.name(node.name), self.types.type_of(node)),)
        if not isinstance(value, (list, tuple)):
            raise NotExported(f"{node.target} returns {value} while it is traced, not tensors", where_of(node))
        named = {u.args[1]: u.name for u in node.users if u.target is operator.getitem}
        return tuple(
            Value(self.name(*((named[i],) if i in named else (node.name, f"_{i}"))), self.types.of_value(v, node))
            for i, v in enumerate(value)
        )

    def name(self, node: str, rest: str = "") -> str:
        """A name for what a node makes."""
        name = self.namer(node + rest)
        self.read.wishes[name] = node, rest
        return name

    # ---- arguments

    def argument(self, arg: Any) -> Any:
        match arg:
            case fx.Node():
                return self.env[arg]
            case list() | tuple():
                return [self.argument(a) for a in arg]
            case torch.SymInt() | torch.SymFloat() | torch.SymBool():
                return self.types.size(arg, None)
            case torch.device():
                return THIS_DEVICE
            case slice():
                raise NotExported("a slice object among the arguments of an operator")
            case _:
                return arg

    # ---- the end

    def graph(self, signature: Signature, returned: list[Any]) -> Graph:
        specs = self.program.graph_signature.output_specs
        updates: list[tuple[State, Value]] = []
        user: list[Any] = []
        for spec, value in zip(specs, returned, strict=True):
            match spec.kind.name:
                case "USER_OUTPUT":
                    user.append(value)
                case name if name in STATE_CHANGES:
                    state = self.leaves.state(clean(str(spec.target)))
                    updates.append((state, self.made(value, alias_of)))
                case "USER_INPUT_MUTATION":
                    pass  # see changed_inputs
                case name:
                    raise InternalError(f"torch.export returns a {name.lower()}, of which stages know nothing")
        returns, outputs = split_returns(signature.returns, user)
        graph = Graph(
            inputs=tuple(self.inputs),
            params=self.leaves.values(Param),
            constants=self.leaves.values(Constant),
            states=self.leaves.values(State),
            nodes=(),
            outputs=tuple(self.made(v, copy_of) for v in outputs),
            updates=tuple(updates),
            signature=replace(signature, returns=returns),
            hints=self.types.sizes.hints,
            ranges=self.types.sizes.ranges,
            guards=self.types.sizes.guards,
            counts=asserted_counts(self.nodes, self.inputs),
            modules=self.modules,
        )
        graph = without_dead_code(replace(graph, nodes=tuple(self.nodes)))
        return graph.map_values(lambda v: replace(v, variables=self.variables[v]) if v in self.variables else v)

    def made(self, value: Value, again: Callable[[Value, Value], Call]) -> Value:
        """The value if a node makes it, else what `again` makes of it: an input or a weight that is returned."""
        if any(value in n.results for n in reversed(self.nodes)):
            return value
        result = Value(self.namer(f"{value.name}_out"), value.type)
        self.nodes.append(again(value, result))
        return result


TWINS = {"transformers.grouped_mm_fallback.default": aten._grouped_mm.default, **STANDS_FOR}
"""For an operator of an export, the one that the model runs outside of exports."""

DEFAULTS = [("pin_memory", False), ("layout", torch.strided), ("non_blocking", False)]
