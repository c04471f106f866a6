"""What values are called: as in the user's source, and never two at a time alike."""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import chain, count

from codegen.lines.inlining import Root, is_form
from codegen.structure.program import Statement, Use, operands, results
from ir.graph import Call, Value

TAKEN = frozenset({*keyword.kwlist, "torch", "nn", "F", "aten", "math", "Any", "self", "device", "_"}) | {
    *("bool", "dict", "float", "getattr", "int", "len", "list", "range", "str", "super", "tuple", "type", "zip")
}

_NOUNS = {
    "add": "total",
    "sub": "difference",
    "mul": "product",
    "div": "quotient",
    "matmul": "product",
    "bmm": "product",
    "pow": "power",
    "__and__": "both",
    "__or__": "either",
    "le": "mask",
    "lt": "mask",
    "ge": "mask",
    "gt": "mask",
    "eq": "equal",
    "ne": "unequal",
    "scaled_dot_product_attention": "attention",
    "to": "converted",
    "index": "picked",
    "select": "picked",
    "slice": "part",
    "cat": "joined",
    "arange": "positions",
    "split": "parts",
    "chunk": "parts",
    "neg": "negated",
    "view": "viewed",
    "reshape": "reshaped",
    "transpose": "transposed",
    "permute": "permuted",
    "expand": "expanded",
    "unsqueeze": "unsqueezed",
    "where": "masked",
}


@dataclass
class Names:
    """The local variables of a function: which value each holds, and until which statement it is read."""

    reserved: frozenset[str]
    holder: dict[str, Value] = field(default_factory=dict)
    of: dict[Value, str] = field(default_factory=dict)  # how a value reads, be it a variable or not

    def inner(self) -> Names:
        """The names inside a loop, which leave those outside as they are."""
        return Names(self.reserved, dict(self.holder), dict(self.of))

    def give(self, value: Value, wishes: Iterable[str], busy: AbstractSet[Value]) -> str:
        """A name that is not reserved and holds none of `busy`: the first wish that is free, or else numbered."""
        asked = [w for w in wishes if w.isidentifier()] or ["value"]
        name = next((w for w in asked if self.free(w, busy)), "") or self.fresh(asked[-1], busy)
        self.hold(name, value)
        return name

    def fresh(self, wish: str, busy: AbstractSet[Value]) -> str:
        """The name wished for, numbered where it is not free."""
        numbered = (f"{wish.rstrip('_')}_{n}" for n in count(2))
        return next(name for name in chain([wish], numbered) if self.free(name, busy))

    def hold(self, name: str, value: Value) -> None:
        self.holder[name] = value
        self.of[value] = name

    def free(self, name: str, busy: AbstractSet[Value]) -> bool:
        return name not in self.reserved and name not in TAKEN and self.holder.get(name) not in busy


@dataclass(frozen=True)
class Source:
    """What the user's source says about the values of a body."""

    roots: Sequence[Root]
    last: Mapping[Value, int]  # the place of the root that reads a value last; past the end for what is kept
    names: Names
    hopes: Mapping[Value, str] = field(default_factory=dict)  # names that come first

    def wishes(self, at: int, result: int) -> Iterator[str]:
        """Names for a result of a root, best first; the last one may be numbered."""
        given: list[str] = []
        for name in self._given(at, result):
            given += [name] if name else []
            yield name
        yield from self._own(self.roots[at], result, given)

    def _given(self, at: int, result: int) -> Iterator[str]:
        """The names that the user's statements give to a result."""
        root = self.roots[at]
        value = results(root.statement)[result]
        if value in self.hopes:
            yield self.hopes[value]
        returned: str = ""
        for depth in range(len(root.frames), 0, -1):
            first, end = self._group(at, depth)
            made = [v for r in self.roots[first:end] for v in results(r.statement)]
            read_after = [v for v in made if self.last.get(v, -1) >= end]
            assigned = root.frames[depth - 1].assigns
            names = [n for n in assigned if n and n != "_"]
            if value not in read_after:
                yield from names if len(names) == 1 else ()
                break
            returns = root.frames[depth - 1].returns
            if len(read_after) <= len(returns):
                returned = returned or returns[read_after.index(value)]
            if len(names) > 1:  # what a module returns comes before what was made on the way
                uses = [r.statement for r in self.roots[first:end] if isinstance(r.statement, Use)]
                read_after.sort(key=lambda v: all(v not in use.results for use in uses))
            if names:
                if len(names) < len(read_after):
                    yield returned
                yield from self._assigned(results(root.statement), result, assigned, names, read_after)
                break

    def _own(self, root: Root, result: int, given: Sequence[str]) -> Iterator[str]:
        """The name of what makes a value: of the module, of the value that it is a form of, of the operator."""
        match root.statement:
            case Use() as use:
                yield _inner_name(use, result)
                yield given[0] if given else _word(use.path)
            case Call() as call:
                leaf = call.where.frames[-1] if call.where.frames else None
                if leaf is not None and not leaf.line:
                    yield _word(call.where.module)
                subject = _subject(call, root)
                if isinstance(subject, Call) and not subject.operands:
                    yield _noun(subject)
                    return
                if is_form(call):
                    yield self.names.of.get(operands(subject)[0], "")
                yield _noun(call)

    @staticmethod
    def _assigned(
        made: Sequence[Value], result: int, assigned: Sequence[str], names: Sequence[str], read: Sequence[Value]
    ) -> Iterator[str]:
        if len(made) == len(assigned) > 1:
            yield assigned[result]
        elif len(read) <= len(names):
            yield names[read.index(made[result])]
        elif len(names) == 1 and made[result] is (read[-1] if len(made) == 1 else made[0]):
            yield names[0]

    def _group(self, at: int, depth: int) -> tuple[int, int]:
        """The roots around one that come from the same statement, seen `depth` calls deep."""
        frames = self.roots[at].frames[:depth]
        first = end = at
        while first > 0 and self.roots[first - 1].frames[:depth] == frames:
            first -= 1
        while end < len(self.roots) and self.roots[end].frames[:depth] == frames:
            end += 1
        return first, end


def _subject(call: Call, root: Root) -> Statement:
    """What a call begins with: the innermost statement in its expression that makes the first operand."""
    subject: Statement = call
    while (read := operands(subject)) and read[0] in root.nested:
        subject = root.nested[read[0]]
    return subject


def _noun(call: Call) -> str:
    """What an operator makes."""
    op = call.op._schema.name.rpartition("::")[2]
    return _NOUNS.get(op, op.strip("_"))


def _inner_name(use: Use, result: int) -> str:
    """What a block itself calls one of its results."""
    for call in use.calls:
        if use.results[result] in call.results and call.where.frames:
            frame = call.where.frames[-1]
            same = [v for c in use.calls if c.where.frames[-1:] == (frame,) for v in c.results if v in use.results]
            named = [n for n in frame.assigns if n != "_"]
            if len(same) <= len(named):
                return named[same.index(use.results[result])]
    return ""


def _word(path: str) -> str:
    """The last part of a path that is a name: `layers.0` -> layers."""
    return next((part for part in reversed(path.split(".")) if part.isidentifier()), "")
