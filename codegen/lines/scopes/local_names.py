"""Local variable names: from the user's source, unique among live values."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, count

from codegen.lines.inlining import Root, is_form
from codegen.structure.program import Launch, PartWrite, Statement, Update, Use, operands, results
from ir.analysis.borders import noun, word
from ir.graph import Call, State, Value
from ir.location import Frame

TAKEN = frozenset({*keyword.kwlist, "torch", "nn", "F", "aten", "math", "Any", "self", "device", "_"}) | {
    *("bool", "dict", "float", "getattr", "int", "len", "list", "range", "str", "super", "tuple", "type", "zip")
}


@dataclass
class Names:
    """The local variables of a function: which value each holds, and until which statement it is read."""

    reserved: frozenset[str]
    holder: dict[str, Value] = field(default_factory=dict)
    read_as: dict[Value, str] = field(default_factory=dict)  # how a value reads, be it a variable or not
    asked: set[str] = field(default_factory=set)  # the names of which it mattered whether they are reserved

    def inner(self) -> Names:
        """The names inside a loop, which leave those outside as they are."""
        return Names(self.reserved, dict(self.holder), dict(self.read_as), self.asked)

    def give(self, value: Value, candidates: Iterable[str], busy: AbstractSet[Value]) -> str:
        """A name that is not reserved and holds none of `busy`: the first wish that is free, or else numbered."""
        asked = [w for w in candidates if w.isidentifier()] or ["value"]
        name = next((w for w in asked if self.free(w, busy)), "") or self.fresh(asked[-1], busy)
        self.hold(name, value)
        return name

    def fresh(self, wish: str, busy: AbstractSet[Value]) -> str:
        """The name wished for, numbered where it is not free."""
        numbered = (f"{wish.rstrip('_')}_{n}" for n in count(2))
        return next(name for name in chain([wish], numbered) if self.free(name, busy))

    def hold(self, name: str, value: Value) -> None:
        self.holder[name] = value
        self.read_as[value] = name

    def free(self, name: str, busy: AbstractSet[Value]) -> bool:
        self.asked.add(name)
        return name not in self.reserved and name not in TAKEN and self.holder.get(name) not in busy


@dataclass(frozen=True)
class NameHints:
    """The user's source, as a source of names for the values of a body."""

    roots: Sequence[Root]
    last: Mapping[Value, int]  # the place of the root that reads a value last; past the end for what is kept
    names: Names
    preferred: Mapping[Value, str] = field(default_factory=dict)  # names that come first

    def candidates(self, at: int, result: int) -> Iterator[str]:
        """Names for a result of a root, best first; the last one may be numbered."""
        root = self.roots[at]
        value = results(root.statement)[result]
        if value in self.preferred:
            yield self.preferred[value]
        here, function, within, around = _variables(root, value)
        yield from here
        if isinstance(root.statement, PartWrite):
            yield _base_name(root.statement.base, self.names)
        if not here and isinstance(root.statement, Call):
            yield from self._shown(root, root.statement)
        if isinstance(root.statement, Call):
            yield from _state_changed(root.statement)
        several = len(results(root.statement)) > 1  # of a module: the names that it has for them itself come first
        yield from (*reversed(within), *function) if several else (*function, *within)
        if isinstance(root.statement, Use):
            yield from _name_inside(root.statement, result)
        yield from self._becomes.get(value, [])
        yield from self._role(root.statement)
        yield from around
        known = [*here, *function, *within]
        yield known[0] if known else self._noun(root)

    @cached_property
    def _becomes(self) -> Mapping[Value, list[str]]:
        """The name of the state whose next value each value is."""
        updates = [root.statement for root in self.roots if isinstance(root.statement, Update)]
        return {update.value: [update.state.fqns[0].rpartition(".")[2]] for update in updates}

    def _shown(self, root: Root, call: Call) -> Iterator[str]:
        """The name of the value that a call shows in another form, be it one in the same expression."""
        inner = operands(call)[:1] if is_form(call) else ()
        yield from [name for value in inner if value in root.nested for name in value.variables if name][-1:]
        subject = _subject(call, root)
        if is_form(call) and operands(subject):
            made = results(subject)[0] if subject is not call else None
            yield from [name for name in (made.variables if made else ()) if name][-1:]
            yield self.names.read_as.get(operands(subject)[0], "")

    @staticmethod
    def _role(statement: Statement) -> Iterator[str]:
        """The name of the module that makes a value."""
        match statement:
            case Use() as use:
                yield word(use.path)
            case Call() as call if call.where.frames and not call.where.frames[-1].line:
                yield word(call.where.module)

    @staticmethod
    def _noun(root: Root) -> str:
        match root.statement:
            case Use() as use:
                return word(use.path)
            case Launch() as launch:
                return launch.kernel.name
            case Call() as call:
                subject = _subject(call, root)
                return noun(subject if isinstance(subject, Call) and not subject.operands else call)
        return ""


def _base_name(base: Value, names: Names) -> str:
    """The name of a tensor before a write into it: its variable, or that of a state."""
    name = base.fqns[0].rpartition(".")[2] if isinstance(base, State) else names.read_as.get(base, "")
    return re.sub(r"(_\d+)+$", "", name)


def _state_changed(call: Call) -> Iterator[str]:
    """The name of the state that a call changes in place and returns: `keys` for `self.keys.index_put_(…)`."""
    changed = call.args[0] if call.op._schema.is_mutable and call.args else None
    if isinstance(changed, State):
        yield changed.fqns[0].rpartition(".")[2]


def _name_inside(use: Use, result: int) -> Iterator[str]:
    """The name that a module has for one of several results, or for what it returns in another form."""
    value, makers = use.block.outputs[result], {v: call for call in use.block.calls for v in call.results}
    while len(use.results) > 1 and value in makers:
        names, call = [name for name in value.variables if name], makers[value]
        if names or not is_form(call):
            yield from names[-1:]
            return
        value = call.operands[0]


def _variables(root: Root, value: Value) -> tuple[list[str], ...]:
    """The user's names for a value: in the modules of this function, in a function they call, within, and around.

    `within` are the modules that the statement calls, `around` those that call this function; innermost first.
    """
    names, frames = value.variables, _frames(root.statement)
    first = next((i for i, f in enumerate(frames) if f is root.frames[0]), 0) if root.frames else 0
    end = first + len(root.frames)
    parts = (names[first:end], names[-1:], names[end:-1], names[:first])
    return tuple([name for name in reversed(part) if name] for part in parts)


def _frames(statement: Statement) -> tuple[Frame, ...]:
    call = statement
    if isinstance(statement, (Use, Launch, PartWrite)):
        call = statement.calls[0 if isinstance(statement, Use) else -1]
    return call.where.frames if isinstance(call, Call) else ()


def _subject(call: Call, root: Root) -> Statement:
    """The beginning of a call's expression: the innermost statement in it that makes the first operand."""
    subject: Statement = call
    while (read := operands(subject)) and read[0] in root.nested:
        subject = root.nested[read[0]]
    return subject
