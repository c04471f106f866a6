"""The body of a `forward`: statements as source lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from torch.utils._pytree import tree_leaves

from codegen.lines.inlining import Root, calls_in_modules, fold
from codegen.lines.local_names import Names, Source
from codegen.lines.scope import Expressions
from codegen.spelling.opaque_modules import Whole
from codegen.spelling.operators import Text
from codegen.structure.program import (
    Carried,
    Collected,
    Loop,
    Statement,
    Steps,
    Use,
    inside,
    operands,
    relative,
    results,
    walk,
)
from codegen.text.source import Source as Lines
from ir.graph import THIS_DEVICE, Call, Value, dims, is_whole, opaque_of


@dataclass(frozen=True)
class Written:
    """A statement that stands in the source: its last line, the names it gives, and those not read any more."""

    line: int
    bound: frozenset[str]
    dead: tuple[str | None, ...]


SOON = 4  # statements that a large value may live on without a `del`


@dataclass
class Function:
    """Writes the statements of one `forward`."""

    texts: Expressions
    src: Lines
    placed: dict[Call, int]  # the line of each call
    whole: Whole
    inputs: AbstractSet[Value] = frozenset()  # arguments, which the caller holds as well
    busy: Counter[str] = field(default_factory=Counter)  # how many of the statements come from each module
    large: int = 0  # bytes of a value that is worth a `del`
    bound: list[str] = field(default_factory=list)  # the names given so far, in order
    module: str | None = None  # where the last comment was

    @property
    def names(self) -> Names:
        return self.texts.names

    @property
    def path(self) -> str:
        """Of the module that the function belongs to."""
        return self.texts.path

    def sizes(self, inputs: Sequence[Value], body: Sequence[Statement]) -> None:
        """Lines that read sizes off the shapes of arguments, and the device."""
        shown = dims(inputs)
        by_value: dict[Value, dict[int, str]] = {}
        for symbol in self.texts.words.needed(body):
            if symbol in shown:
                value, dim = shown[symbol]
                by_value.setdefault(value, {})[dim] = str(symbol)
        for value, found in by_value.items():
            self.src.lines(_shape_lines(self.names.of[value], found, len(value.type.shape)))
        if any(a is THIS_DEVICE for c in walk(body) if isinstance(c, Call) for a in tree_leaves((c.args, c.kwargs))):
            self.src.line(f"device = {self.texts.device(inputs, body)}")

    # ---- statements

    def all(self, inputs: Sequence[Value], body: Sequence[Statement], outputs: Sequence[Value], returns: bool) -> bool:
        """Write a whole function; whether its last statement is the `return`."""
        self.busy = calls_in_modules(body, self.path)
        self.sizes(inputs, body)
        return self.statements(body, outputs, returns=returns)

    def statements(
        self,
        body: Sequence[Statement],
        kept: Sequence[Value],
        living: AbstractSet[Value] = frozenset(),
        hopes: Mapping[Value, str] | None = None,
        returns: bool = False,
    ) -> bool:
        """Write statements; whether the last one returns.

        `kept` are read after them, `living` are values of the names around that must stay, `hopes` are names
        that values should get.  RETURNS: the last statement may be `return` and an expression.
        """
        roots = fold(body, set(kept), self.path, self.busy)
        last = {v: i for i, r in enumerate(roots) for v in r.reads} | dict.fromkeys(kept, len(roots))
        source = Source(roots, last, self.names, {**self._hopes(roots), **(hopes or {})})
        written: list[Written] = []
        returned = returns and bool(roots) and _returned(roots[-1], kept)
        for i, root in enumerate(roots):
            busy = {v for v, end in last.items() if end > i} | living
            start = len(self.bound)
            self._comment(root)
            if isinstance(root.statement, Loop):
                self._loop(root.statement, busy)
            elif returned and i == len(roots) - 1:
                self._emit(root, f"return {self.texts.of(root.statement, root.nested).source}")
            else:
                self._line(root, source, i, busy, living)
            dead = [v for v in dict.fromkeys(root.reads) if last[v] == i and self._lingers(v, living)]
            written.append(Written(self.src.count, frozenset(self.bound[start:]), tuple(map(self.names.of.get, dead))))
        self._let_go(written)
        return returned

    def _lingers(self, value: Value, living: AbstractSet[Value]) -> bool:
        """Whether a variable of this function still holds a large value."""
        name = self.names.of.get(value, "")
        mine = value not in living and value not in self.inputs and self.names.holder.get(name) is value
        return mine and self.texts.words.nbytes(value) >= self.large

    def _let_go(self, written: Sequence[Written]) -> None:
        """A `del` after the last use of what would live on for long: no statement soon gives its name away."""
        for i in range(len(written) - SOON - 1, -1, -1):
            soon = {name for w in written[i + 1 : i + 1 + SOON] for name in w.bound}
            names = [name for name in written[i].dead if name and name not in soon]
            if names:
                line = written[i].line
                self.src.insert(line, f"del {', '.join(names)}")
                for call, at in self.placed.items():
                    self.placed[call] = at + (at > line)

    def _hopes(self, roots: Sequence[Root]) -> dict[Value, str]:
        """A value that goes round in a loop gets from the start the name that it has there."""
        found: dict[Value, str] = {}
        for loop in (r.statement for r in roots if isinstance(r.statement, Loop)):
            inner = fold(loop.body, {c.after for c in loop.carried}, self.path, self.busy)
            last = {c.after: len(inner) for c in loop.carried}
            for carried in loop.carried:
                at = next(i for i, r in enumerate(inner) if carried.after in results(r.statement))
                place = results(inner[at].statement).index(carried.after)
                found[carried.before] = next(Source(inner, last, self.names).wishes(at, place))
        return found

    def _line(self, root: Root, source: Source, i: int, busy: AbstractSet[Value], living: AbstractSet[Value]) -> None:
        whole = isinstance(root.statement, Call) and is_whole(root.statement)
        text = Text("") if whole else self.texts.of(root.statement, root.nested)
        made = results(root.statement)
        names = []
        for r, value in enumerate(made):
            wishes = list(source.wishes(i, r)) if value in source.last or value in busy else []
            if wishes:
                self._make_room(root, wishes[0], busy, living)
            names.append(self.names.give(value, wishes, busy) if wishes else "_")
            self.bound.append(names[-1])
            busy = busy | {value}
        statement = root.statement
        if isinstance(statement, Call) and whole:
            callee = self.texts.reach(opaque_of(statement).path)
            self._emit(root, self.whole.statement(statement, names, callee, lambda v: self.texts.write(v).source))
            return
        comma = "," if isinstance(statement, Call) and statement.unpacks and len(names) == 1 else ""
        self._emit(root, f"{', '.join(names)}{comma} = {text.source}" if made else text.source)

    def _make_room(self, root: Root, name: str, busy: AbstractSet[Value], living: AbstractSet[Value]) -> None:
        """`residual = hidden_states`: as in the user's source, before a name gets another value."""
        held = self.names.holder.get(name)
        if held is None or held not in busy or held in living:
            return
        for frame in reversed(root.frames):
            for copy in reversed(frame.copies):
                read = busy | set(root.reads)  # the copy is made before the statement runs
                if copy.old == name and copy.line < frame.line and self.names.free(copy.new, read):
                    self.src.line(f"{copy.new} = {name}")
                    del self.names.holder[name]
                    self.names.hold(copy.new, held)
                    self.bound.append(copy.new)
                    return

    def _emit(self, root: Root, line: str) -> None:
        self.src.line(line)
        for statement in (root.statement, *root.nested.values()):
            if isinstance(statement, Call):
                self.placed[statement] = self.src.count

    def _comment(self, root: Root) -> None:
        """Where a group of statements comes from."""
        if not root.frames or root.frames[-1].module == self.module:
            return
        first, self.module = self.module is None, root.frames[-1].module
        if first and self.path and self.module == self.path:
            return  # the class says it
        place = f"{root.frames[-1].file}:{root.frames[-1].line}"
        shown = relative(self.module, self.path) if inside(self.path, self.module) else self.module
        if self.module == self.path:
            shown = "" if self.path else "the model itself"
        self.src.line(f"# {shown} ({place})" if shown else f"# {place}")

    # ---- loops

    def _loop(self, loop: Loop, busy: AbstractSet[Value]) -> None:
        living = busy | set(operands(loop))
        for carried in loop.carried:
            self._carry(carried, loop, busy, living)
            living = living | {carried.inside}
        lists = [self._list(c, living) for c in loop.collected]
        head, fixed = self._head(loop, living)
        outer, around = dict(self.names.holder), dict(self.texts.variables)
        self.texts.variables |= fixed
        with self.src.block(head):
            kept = [*(c.after for c in loop.carried), *(c.inside for c in loop.collected)]
            variables = {c: self.names.of[c.inside] for c in loop.carried}
            hopes = {c.after: variables[c] for c in loop.carried}
            self.statements(loop.body, kept, living - {c.inside for c in loop.carried}, hopes)
            self._turn_end(loop, variables, lists)
        self.names.holder, self.texts.variables = outer, around
        self.names.reserved -= set(fixed.values())
        for carried in loop.carried:
            if carried.final is not None:
                self.names.hold(variables[carried], carried.final)
        for name, collected in zip(lists, loop.collected, strict=True):
            self.names.of |= {value: f"{name}[{t}]" for t, value in enumerate(collected.values)}

    def _carry(self, carried: Carried, loop: Loop, busy: AbstractSet[Value], living: AbstractSet[Value]) -> None:
        """The variable that a turn hands to the next: that of the first value, if nothing else reads it later."""
        before = carried.before
        readers = [v for s in loop.body for v in operands(s)] + [v for e in loop.each for v in e.values]
        readers += [c.before for c in loop.carried if c is not carried]
        name = self.names.of.get(before, "")
        if self.names.holder.get(name) is before and before not in busy and before not in readers:
            self.names.hold(name, carried.inside)
            return
        text = self.texts.write(before).source
        fresh = self.names.give(carried.inside, _words(text)[-1:], living)
        self.bound.append(fresh)
        self.src.line(f"{fresh} = {text}")

    def _list(self, collected: Collected, living: AbstractSet[Value]) -> str:
        """An empty list, whose name stays its own."""
        stem = collected.inside.name.rstrip("_0123456789")
        name = self.names.give(collected.values[0], [f"all_{stem}"], living)
        self.names.reserved |= {name}
        self.src.line(f"{name} = []")
        return name

    def _head(self, loop: Loop, living: AbstractSet[Value]) -> tuple[str, dict[str, str]]:
        """The line of a loop, and its variable for each of the modules."""
        targets, sources, fixed = [], [], {}
        for steps in loop.steps:
            fixed[steps.first] = self.names.fresh(_loop_variable(steps, loop), living)
            self.names.reserved |= {fixed[steps.first]}
            targets.append(fixed[steps.first])
            sources.append(self.texts.over(steps))
        for each in loop.each:
            texts = [self.texts.write(v).source for v in each.values]
            targets.append(self.names.give(each.inside, _words(texts[0])[-1:], living))
            living = living | {each.inside}
            sources.append(_sequence(texts))
        if not targets:
            return f"for _ in range({len(loop.turns)}):", fixed
        over = sources[0] if len(sources) == 1 else f"zip({', '.join(sources)}, strict=True)"
        return f"for {', '.join(targets)} in {over}:", fixed

    def _turn_end(self, loop: Loop, variables: Mapping[Carried, str], lists: Sequence[str]) -> None:
        """Keep what is collected, and hand over what is not in its variable yet."""
        for name, collected in zip(lists, loop.collected, strict=True):
            self.src.line(f"{name}.append({self.texts.write(collected.inside).source})")
        pairs = [(variables[c], self.texts.write(c.after).source) for c in loop.carried]
        moved = [(a, b) for a, b in pairs if a != b]
        if moved:
            self.src.line(f"{', '.join(a for a, _ in moved)} = {', '.join(b for _, b in moved)}")


def _returned(root: Root, kept: Sequence[Value]) -> bool:
    """Whether a statement makes all that a function returns."""
    plain = isinstance(root.statement, Use) or (isinstance(root.statement, Call) and not is_whole(root.statement))
    return plain and results(root.statement) == tuple(kept)


def _shape_lines(name: str, found: Mapping[int, str], rank: int) -> str:
    first = sorted(found)
    if len(first) > 1 and first == list(range(len(first))):
        cut = "" if len(first) == rank else f"[:{len(first)}]"
        return f"{', '.join(found[d] for d in first)} = {name}.shape{cut}"
    return "\n".join(f"{found[d]} = {name}.shape[{d}]" for d in first)


def _loop_variable(steps: Steps, loop: Loop) -> str:
    """`layer` for LlamaDecoderLayer, or for what stands in `layers`."""
    used = next((s.block.cls for s in loop.body if isinstance(s, Use) and s.path == steps.first), "")
    words = re.findall(r"[A-Z][a-z]+", used)
    if words:
        return words[-1].lower()
    name = steps.container.rpartition(".")[2]
    return name.removesuffix("s") if name.isidentifier() and len(name) > 2 else "part"


def _sequence(texts: Sequence[str]) -> str:
    """Expressions to go over; the list itself where they are all that it holds."""
    whole = texts[0].removesuffix("[0]")
    if texts == [f"{whole}[{i}]" for i in range(len(texts))] and whole.isidentifier():
        return whole
    return f"({', '.join(texts)})"


def _words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z_]\w*", text)
