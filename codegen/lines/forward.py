"""The lines of a `forward`: statements, loops, and a name for each value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from codegen.lines.functions import function_lines
from codegen.lines.inlining import Root, calls_in_modules, inline_calls, is_operation
from codegen.lines.layout import StatementLines, with_comments, with_deletions
from codegen.lines.line import Bind, For, Line, Put, Return
from codegen.lines.scopes.local_names import NameHints
from codegen.lines.scopes.module_variables import ModuleVariable, loop_variable, module_variables
from codegen.lines.scopes.scope import Scope
from codegen.lines.sizes import opening_lines
from codegen.lines.writes import InPlace, with_writes
from codegen.spelling.expressions import (
    Attribute,
    EmptyList,
    Expression,
    Invocation,
    Operation,
    Subscript,
    Tuple,
    Variable,
    number,
    subject,
)
from codegen.spelling.opaque_modules import returns_container
from codegen.structure.program import (
    Carried,
    Collected,
    Kernel,
    Launch,
    Loop,
    PartWrite,
    Statement,
    Use,
    operands,
    results,
)
from ir.graph import Call, Value, is_whole
from ir.operators.higher_order import is_higher_order


def forward_lines(
    scope: Scope,
    inputs: Sequence[Value],
    body: Sequence[Statement],
    outputs: Sequence[Value],
    *,
    borrowed: AbstractSet[Value] = frozenset(),
    as_tuple: bool = False,
) -> tuple[Line, ...]:
    """The lines of a function.

    `borrowed` are arguments that the caller holds as well.  `as_tuple`: it returns a tuple also of one value, of
    variables that have the names of the values.
    """
    large = scope.file.large(inputs, body)
    planner = _BodyPlanner(calls_in_modules(body, scope.path), borrowed, large)
    own = {v: v.name for v in outputs} if as_tuple else {}
    lines = [
        *opening_lines(scope, inputs, body),
        *planner.lines(body, scope, outputs, preferred=own, returns=not as_tuple, binds=True),
    ]
    if as_tuple:
        lines += [*_bound_to_names(scope, outputs), Return((Tuple(tuple(Variable(v.name) for v in outputs)),))]
    return with_comments(lines, scope.path)


def kernel_lines(scope: Scope, kernel: Kernel) -> tuple[Line, ...]:
    """The lines of the function of a kernel, whose parameters `scope` knows by name."""
    planner = _BodyPlanner(calls_in_modules(kernel.calls, kernel.path), frozenset(kernel.inputs), 1 << 62)
    return planner.lines(kernel.calls, scope, kernel.outputs, returns=True)


def _bound_to_names(scope: Scope, outputs: Sequence[Value]) -> Iterator[Bind]:
    """`hidden_states_1 = hidden_states`: where a loop began with an argument, its variable has that name."""
    other = {v.name: scope.value(v) for v in outputs if scope.names.read_as.get(v) != v.name}
    if other:
        yield Bind(tuple(other), tuple(other.values()))


@dataclass(frozen=True)
class _BodyPlanner:
    """Turns the statements of one function into lines."""

    busy: Counter[str]  # how many of the statements come from each module
    borrowed: AbstractSet[Value]
    large: int  # bytes of a value that is worth a `del`

    def lines(
        self,
        body: Sequence[Statement],
        scope: Scope,
        kept: Sequence[Value],
        live_out: AbstractSet[Value] = frozenset(),
        preferred: Mapping[Value, str] | None = None,
        returns: bool = False,
        binds: bool = False,
    ) -> tuple[Line, ...]:
        """The lines of statements.

        `kept` are read after them.  `live_out` are values whose variables must survive; `preferred` are names to use
        if they are free.  `returns`: the last line returns `kept`.  `binds`: modules may get variables.
        """
        roots = inline_calls(with_writes(body, set(kept)), set(kept), scope.path, self.busy)
        last = {v: i for i, r in enumerate(roots) for v in r.reads} | dict.fromkeys(kept, len(roots))
        preferred = preferred or {}
        source = NameHints(roots, last, scope.names, {**self._preferred(roots, scope, preferred), **preferred})
        in_place = InPlace.among(roots, last, live_out)
        at_once = returns and bool(roots) and _makes_all(roots[-1], kept)
        modules = module_variables(scope, roots) if binds else []
        scope.names.reserved |= {variable.name for variable in modules}
        steps: list[StatementLines] = []
        for i, root in enumerate(roots):
            bound = [_bound_module(variable, root, scope) for variable in modules if variable.first == i]
            live = {v for v, end in last.items() if end > i} | live_out
            if isinstance(root.statement, Loop):
                lines = self._loop(root.statement, scope, live)
            elif isinstance(root.statement, PartWrite):
                lines = _write(root, i, source, in_place, live, scope)
            elif at_once and i == len(roots) - 1:
                lines = [Return((scope.expression(root.statement, root.nested),), root.origin)]
            else:
                defined = self._functions(root.statement, live, scope)
                lines = [*defined, *_statement(root, i, source, live, live_out, scope)]
            dead = [v for v in dict.fromkeys(root.reads) if last[v] == i and self._lingers(v, live_out, scope)]
            steps.append(StatementLines((*bound, *lines), tuple(scope.names.read_as[v] for v in dead)))
            for variable in (variable for variable in modules if variable.last == i):
                del scope.modules[variable.path]
        ends = (Return(tuple(map(scope.value, kept))),) if returns and not at_once else ()
        return (*with_deletions(steps), *ends)

    def _functions(self, statement: Statement, live: AbstractSet[Value], scope: Scope) -> list[Line]:
        """The functions that a statement runs."""
        if not isinstance(statement, Call) or not is_higher_order(statement):
            return []

        def plan(body: Sequence[Call], inner: Scope, kept: Sequence[Value]) -> tuple[Line, ...]:
            return _BodyPlanner(calls_in_modules(body, scope.path), frozenset(), self.large).lines(body, inner, kept)

        return list(function_lines(statement, live, scope, plan))

    def _lingers(self, value: Value, live_out: AbstractSet[Value], scope: Scope) -> bool:
        """Whether a variable of this function still holds a large value, and no list with others."""
        if value in scope.items:
            return False
        name = scope.names.read_as.get(value, "")
        own = value not in live_out and value not in self.borrowed and scope.names.holder.get(name) is value
        return own and scope.file.nbytes(value) >= self.large

    def _preferred(self, roots: Sequence[Root], scope: Scope, after: Mapping[Value, str]) -> dict[Value, str]:
        """Names for values that go round in a loop: from the start those that they have there, or `after` it."""
        found: dict[Value, str] = {}
        for loop in (r.statement for r in roots if isinstance(r.statement, Loop)):
            inner = inline_calls(loop.body, {c.after for c in loop.carried}, scope.path, self.busy)
            last = {c.after: len(inner) for c in loop.carried}
            for carried in loop.carried:
                at = next(i for i, r in enumerate(inner) if carried.after in results(r.statement))
                place = results(inner[at].statement).index(carried.after)
                inside = next(NameHints(inner, last, scope.names).candidates(at, place))
                found[carried.before] = inside if carried.final is None else after.get(carried.final, inside)
        return found

    def _loop(self, loop: Loop, scope: Scope, live: AbstractSet[Value]) -> list[Line]:
        live_out = live | set(operands(loop))
        lines: list[Line] = []
        for carried in loop.carried:
            lines += _carry(carried, loop, live, live_out, scope)
            live_out = live_out | {carried.inside}
        lists = [_list(collected, live_out, scope) for collected in loop.collected]
        inner = scope.inner()
        targets, over = _head(loop, live_out, inner)
        variables = {c: inner.names.read_as[c.inside] for c in loop.carried}
        kept = [*(c.after for c in loop.carried), *(c.inside for c in loop.collected)]
        around = live_out - {c.inside for c in loop.carried}
        body = self.lines(loop.body, inner, kept, around, {c.after: variables[c] for c in loop.carried})
        end = list(_turn_end(loop, variables, lists, inner))
        for carried in loop.carried:
            if carried.final is not None:
                scope.names.hold(variables[carried], carried.final)
        for name, collected in zip(lists, loop.collected, strict=True):
            scope.items.update((value, Subscript(Variable(name), t)) for t, value in enumerate(collected.values))
        return [*lines, *(Bind((name,), (EmptyList(),)) for name in lists), For(targets, over, (*body, *end))]


def _makes_all(root: Root, kept: Sequence[Value]) -> bool:
    """Whether a statement makes all that a function returns."""
    statement = root.statement
    plain = isinstance(statement, (Use, Launch)) or (isinstance(statement, Call) and is_operation(statement))
    return plain and results(statement) == tuple(kept)


# ---- statements


def _bound_module(variable: ModuleVariable, root: Root, scope: Scope) -> Bind:
    """The line that names a module, by which the scope reaches what lies in it from then on."""
    module = scope.reach(variable.path)
    scope.modules[variable.path] = variable.name
    return Bind((variable.name,), (module,), origin=root.origin)


def _statement(
    root: Root, at: int, source: NameHints, live: AbstractSet[Value], live_out: AbstractSet[Value], scope: Scope
) -> list[Line]:
    """A line that gives names to the results of a statement, the root `at` of those of the `source`."""
    statement, lines = root.statement, list[Line]()
    value = scope.expression(statement, root.nested)
    targets, before = list[str](), live - set(results(statement))
    for r, result in enumerate(results(statement)):
        names = list(source.candidates(at, r)) if result in source.last or result in live else []
        if names:
            lines += _make_room(root, names[0], before, live_out, scope)
        targets.append(scope.names.give(result, names, live) if names else "_")
        live = live | {result}
    return [*lines, Bind(tuple(targets), (value,), _unpacks(statement), root.origin)]


def _write(
    root: Root, at: int, source: NameHints, in_place: InPlace, live: AbstractSet[Value], scope: Scope
) -> list[Line]:
    """A line that writes into a tensor, or else into a copy of it, which gets the name.

    What lies in the tensor itself is copied before it is written there.
    """
    write = root.statement
    assert isinstance(write, PartWrite)
    [result] = write.results

    def operand(value: Value) -> Expression:
        return scope.expression(root.nested[value], root.nested) if value in root.nested else scope.value(value)

    base = scope.value(write.base)
    made: Expression = operand(write.value) if isinstance(write.value, Value) else number(write.value)
    copied: list[Line] = []
    if write in in_place.writes and isinstance(base, Variable) and scope.names.holder.get(base.name) is write.base:
        scope.names.hold(base.name, result)
        made = Invocation(Attribute(made, "clone")) if write in in_place.copies else made
    else:
        name = scope.names.give(result, source.candidates(at, 0), live | set(root.reads))
        copied = [Bind((name,), (Invocation(Attribute(base, "clone")),), origin=root.origin)]
    target = scope.value(result)
    for call in write.part:
        known = {v: operand(v) for v in call.operands[1:]}
        target = Operation(call, {call.operands[0]: target, **known})
    return [*copied, Put(target, made, write.calls, root.origin, write in in_place.sums)]


def _unpacks(statement: Statement) -> bool:
    """Whether the results stand in a tuple or list even where there is one."""
    if not isinstance(statement, Call):
        return False
    return returns_container(statement) if is_whole(statement) else statement.unpacks


def _make_room(
    root: Root, name: str, live: AbstractSet[Value], live_out: AbstractSet[Value], scope: Scope
) -> Iterator[Bind]:
    """`residual = hidden_states`: as in the user's source, before a name gets another value."""
    names = scope.names
    held = names.holder.get(name)
    if held is None or held not in live or held in live_out:
        return
    for frame in reversed(root.frames):
        for copy in reversed(frame.copies):
            read = live | set(root.reads)  # the copy is made before the statement runs
            if copy.old == name and copy.line < frame.line and names.free(copy.new, read):
                del names.holder[name]
                names.hold(copy.new, held)
                yield Bind((copy.new,), (Variable(name),), origin=root.origin)
                return


# ---- loops


def _carry(
    carried: Carried, loop: Loop, live: AbstractSet[Value], live_out: AbstractSet[Value], scope: Scope
) -> Iterator[Bind]:
    """The variable that a turn hands to the next: that of the first value, or a copy where that is read later."""
    names, before = scope.names, carried.before
    readers = [v for s in loop.body for v in operands(s)] + [v for e in loop.each for v in e.values]
    readers += [c.before for c in loop.carried if c is not carried]
    name = names.read_as.get(before, "")
    if names.holder.get(name) is before and before not in live and before not in readers:
        names.hold(name, carried.inside)
        return
    first = scope.value(before)
    yield Bind((names.give(carried.inside, [subject(first)], live_out),), (first,))


def _list(collected: Collected, live_out: AbstractSet[Value], scope: Scope) -> str:
    """The name of a list, which stays its own."""
    stem = collected.inside.name.rstrip("_0123456789")
    name = scope.names.give(collected.values[0], [f"all_{stem}"], live_out)
    scope.names.reserved |= {name}
    return name


def _head(loop: Loop, live_out: AbstractSet[Value], inner: Scope) -> tuple[tuple[str, ...], Expression]:
    """The variables of a loop, and what it goes over; gives the names to the scope of its body."""
    targets: list[str] = []
    sources: list[Expression] = []
    for steps in loop.steps:
        sources.append(inner.over(steps))
        targets.append(inner.names.fresh(loop_variable(steps, loop), live_out))
        inner.names.reserved |= {targets[-1]}
    for each in loop.each:
        values = [inner.value(v) for v in each.values]
        targets.append(inner.names.give(each.inside, [subject(values[0])], live_out))
        live_out = live_out | {each.inside}
        sources.append(_sequence(values, inner))
    inner.modules.update(zip((steps.first for steps in loop.steps), targets, strict=False))
    if not targets:
        return ("_",), Invocation(Variable("range"), (Variable(str(len(loop.turns))),))
    if len(sources) == 1:
        return tuple(targets), sources[0]
    return tuple(targets), Invocation(Variable("zip"), tuple(sources), (("strict", "True"),))


def _sequence(values: Sequence[Expression], scope: Scope) -> Expression:
    """Expressions to go over; the list itself where they are all that it holds."""
    lists = [item for item in scope.items.values() if isinstance(item, Subscript)]
    match values[0]:
        case Subscript(Variable() as whole) if [item for item in lists if item.owner == whole] == values:
            return whole
    return Tuple(tuple(values))


def _turn_end(loop: Loop, variables: Mapping[Carried, str], lists: Sequence[str], inner: Scope) -> Iterator[Bind]:
    """The end of a turn: values are collected in lists, and carried ones handed to the next turn."""
    for name, collected in zip(lists, loop.collected, strict=True):
        append = Attribute(Variable(name), "append")
        yield Bind((), (Invocation(append, (inner.value(collected.inside),)),))
    pairs = {variables[c]: inner.value(c.after) for c in loop.carried}
    moved = {name: value for name, value in pairs.items() if value != Variable(name)}
    if moved:
        yield Bind(tuple(moved), tuple(moved.values()))
