"""Writes into parts of tensors: which operators are one, and which may change the tensor that is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from codegen.lines.inlining import Root
from codegen.lines.line import AUGMENTED
from codegen.spelling.subscripts import is_subscript
from codegen.structure.program import PartWrite, Statement, operands, results
from ir.graph import Call, Value, is_whole
from ir.operators.facts import (
    NEVER_VIEWS,
    PART_READERS,
    Elements,
    aten,
    aten_name,
    is_composite,
    place_of_part,
    rearrangement,
)
from ir.operators.higher_order import is_higher_order

_FILLS = (aten.fill.Scalar, aten.fill.Tensor, aten.copy.default)


def with_writes(body: Sequence[Statement], kept: AbstractSet[Value]) -> list[Statement]:
    """The statements of a function with its writes, each in place of the operators that it stands for.

    `kept` are the values that are read after the statements.
    """
    uses = Counter(v for s in body for v in operands(s))
    uses.update(kept)
    makers = {v: s for s in body if isinstance(s, Call) for v in s.results}
    writes: dict[Statement, PartWrite] = {}
    inner: set[Statement] = set()
    for statement in reversed(body):
        if isinstance(statement, Call) and statement not in inner:
            write = _Written(statement, makers, uses).write()
            if write is not None:
                writes[statement] = write
                inner |= set(write.calls) - {statement}
    return [writes.get(s, s) for s in body if s not in inner]


@dataclass
class _Written:
    """A call that may write into a part of a tensor, and the calls that do nothing else than to prepare it."""

    outer: Call
    makers: Mapping[Value, Call]
    uses: Counter[Value]
    part: list[Call] = field(default_factory=list)
    inner: list[Call] = field(default_factory=list)

    def write(self) -> PartWrite | None:
        """The write, if the call is one."""
        call, base = self.outer, next(iter(self.outer.operands), None)
        if base is None or (view := _part(call, base)) is None:
            return None
        self.part.append(view)
        while (within := self._writer_within(call)) is not None:
            self.inner.append(within)
            self._take_reader(within.operands[0])
            call = within
        [result] = self.outer.results
        return PartWrite(base, tuple(self.part), self._value(_source(call)), (result,), self._all_calls())

    def _all_calls(self) -> tuple[Call, ...]:
        return (*reversed(self.inner), self.outer)

    def _writer_within(self, call: Call) -> Call | None:
        """The call that makes what another one writes by a write into the same part of the tensor."""
        within = self._only(_source(call))
        if within is None or call.op not in PART_READERS or not within.operands:
            return None
        view = _part(within, self.part[-1].results[0])
        if view is None or not self._reads(within.operands[0], len(self.part)):
            return None
        self.part.append(view)
        return within

    def _reads(self, value: Value, depth: int) -> bool:
        """Whether a value is what the first calls of the part take of the tensor."""
        if depth == 0:
            return value is self.outer.operands[0]
        call, view = self.makers.get(value), self.part[depth - 1]
        if call is None or call.op is not view.op or _place(call) != _place(view):
            return False
        return self._reads(call.operands[0], depth - 1)

    def _value(self, source: Any) -> Any:
        """The value that is written; of a part that is filled, or copied to, what it is filled with."""
        filled = self._only(source)
        if filled is None or filled.op not in _FILLS or not self._reads(filled.operands[0], len(self.part)):
            return source
        self.inner.append(filled)
        self._take_reader(filled.operands[0])
        return filled.args[1]

    def _only(self, value: Any) -> Call | None:
        """The maker of a value that nothing else reads."""
        return self.makers.get(value) if isinstance(value, Value) and self.uses[value] == 1 else None

    def _take_reader(self, value: Value) -> None:
        """Take what reads a part for the write alone."""
        while (reader := self._only(value)) is not None and reader.op in PART_READERS.values():
            self.inner.append(reader)
            value = reader.operands[0]


def _source(call: Call) -> Any:
    return call.arguments["values" if call.op is aten.index_put.default else "src"]


def _part(call: Call, base: Value) -> Call | None:
    """A call that takes the part of `base` that another one writes to; None where that is no write to a part."""
    if call.op is aten.index_put.default:
        indices = call.arguments["indices"]
        tensors = all(i is None or (isinstance(i, Value) and i.type.shape) for i in indices)
        made = Call(op=aten.index.Tensor, args=(base, indices), results=(), where=call.where)
        return made if tensors and not call.arguments["accumulate"] else None
    if call.op not in PART_READERS:
        return None
    given = [value for name, value in call.arguments.items() if name not in ("self", "src")]
    part = Value("part", _source(call).type)
    made = Call(op=PART_READERS[call.op], args=(base, *given), results=(part,), where=call.where)
    return made if is_subscript(made) or call.op is not aten.slice_scatter.default else None


def _place(view: Call) -> dict[str, Any]:
    return place_of_part(view.arguments, len(view.operands[0].type.shape))


# ---- in place


@dataclass(frozen=True)
class InPlace:
    """The writes of a function that may change the tensor that is there, and those that may add to it, say.

    Of some, what they write may lie in the tensor itself: `copies`.
    """

    writes: AbstractSet[PartWrite]
    sums: AbstractSet[PartWrite]
    copies: AbstractSet[PartWrite]

    @classmethod
    def among(
        cls, roots: Sequence[Root], last: Mapping[Value, int], live_out: AbstractSet[Value] = frozenset()
    ) -> InPlace:
        """Those among the statements of a function.

        The function made the tensor, neither it nor another one in its memory is read afterwards, and nothing that
        has read one is to have it when gradients are computed.  `x[1:] += x[:-1]` would read what it has written: in
        the expression of a sum, only the part itself is read.  `last` has the place of the root that reads a value
        last; `live_out` are read after the function's statements.
        """
        memory, writes, sums, copies = _Memory(), set[PartWrite](), set[PartWrite](), set[PartWrite]()
        until = max((i for i, root in enumerate(roots) if isinstance(root.statement, PartWrite)), default=-1)
        for i, root in enumerate(roots[: until + 1]):
            write = root.statement
            for statement in (*root.nested.values(), write):
                memory.add(statement)
            if not isinstance(write, PartWrite):
                memory.keep(root)
                continue
            sharing = memory.sharing(write.base)
            read = [v for s in root.nested.values() for v in operands(s) if v in sharing and v not in root.nested]
            if read == [write.base] and _changes_part(write, root):
                sums.add(write)
            else:
                memory.keep(root)
            ends = all(last.get(v, -1) <= i and v not in live_out for v in sharing)
            if ends and memory.kept.isdisjoint(sharing) and memory.is_own(write.base):
                writes.add(write)
                copies |= {write} if write.value in sharing else set()
                memory.join([write.base, *write.results])
        return cls(writes, sums, copies)


def _changes_part(write: PartWrite, root: Root) -> bool:
    """Whether what is written is the part as it was, plus, minus, times or by something."""
    value = root.nested.get(write.value) if isinstance(write.value, Value) else None
    if not isinstance(value, Call) or value.op not in AUGMENTED:
        return False
    changed = value.args[0]
    while isinstance(view := root.nested.get(changed), Call) and is_subscript(view):
        changed = view.operands[0]
    return changed is write.base


@dataclass
class _Memory:
    """The values that may share memory, as far as the statements of a function show, and those kept for gradients."""

    makers: dict[Value, Statement] = field(default_factory=dict)
    sets: dict[Value, set[Value]] = field(default_factory=dict)
    kept: set[Value] = field(default_factory=set)

    def keep(self, root: Root) -> None:
        """Note the values that the statements of a root may have when gradients are computed."""
        for statement in (*root.nested.values(), root.statement):
            self.kept.update(_kept(statement))

    def add(self, statement: Statement) -> None:
        """Note what a statement makes."""
        self.makers |= dict.fromkeys(results(statement), statement)
        self.join([*results(statement), *_shared(statement)])

    def join(self, values: Sequence[Value]) -> None:
        """Have values share memory."""
        sets = [self.sharing(v) for v in values]
        one = max(sets, key=len, default=set())
        for other in [found for found in sets if found is not one]:
            one |= other
            self.sets |= dict.fromkeys(other, one)
        self.sets |= dict.fromkeys(values, one)

    def sharing(self, value: Value) -> set[Value]:
        """The values that may share memory with a value, itself included."""
        return self.sets.get(value, {value})

    def is_own(self, value: Value) -> bool:
        """Whether the function made the memory of a value, of which each element has its own address.

        What makes it has no use for its result when gradients are computed.
        """
        match self.makers.get(value):
            case PartWrite():
                return True
            case Call(op=op) as call if (moves := rearrangement(op)) is not None and _shared(call):
                return moves.elements in _APART and self.is_own(call.operands[0])
            case Call(op=op):
                return aten_name(op) in _MAKERS
        return False


def _kept(statement: Statement) -> Sequence[Value]:
    """The operands that a statement may have when gradients are computed."""
    match statement:
        case PartWrite():
            return ()
        case Call(op=op) if (moves := rearrangement(op)) is not None and moves.may_alias:
            return ()
        case Call(op=op) if aten_name(op) in _KEEPS_NOTHING or (
            aten_name(op) in ("mul", "div") and len(operands(statement)) == 1
        ):
            return ()
    return [v for v in operands(statement) if v.type.dtype.is_floating_point or v.type.dtype.is_complex]


def _shared(statement: Statement) -> Sequence[Value]:
    """The operands in whose memory the results of a statement may lie."""
    match statement:
        case PartWrite():
            return ()
        case Call(op=op) if not is_whole(statement) and not is_higher_order(statement):
            if (moves := rearrangement(op)) is not None:
                cast = moves.elements is Elements.CAST and statement.operands[0].type != statement.results[0].type
                return statement.operands[:1] if moves.may_alias and not cast else ()
            states_views = any(r.alias_info is not None for r in op._schema.returns)
            unknown = is_composite(op) and aten_name(op) not in NEVER_VIEWS
            return statement.operands if states_views or unknown else ()
    return operands(statement)


_APART = {Elements.SAME, Elements.CAST, Elements.RESHAPED, Elements.PERMUTED, Elements.SLICED, Elements.SELECTED}
_KEEPS_NOTHING = {"add", "cat", "clone", "neg", "stack", "sub", "sum", "to", "_to_copy"}
_MAKERS = {"add", "arange", "cat", "clone", "contiguous", "conv1d", "conv2d", "conv3d", "copy", "div", "embedding"}
_MAKERS |= {"empty", "empty_like", "eye", "fill", "full", "full_like", "index", "index_add", "index_copy", "index_put"}
_MAKERS |= {"linear", "masked_fill", "matmul", "mul", "neg", "new_empty", "new_full", "new_ones", "new_zeros", "ones"}
_MAKERS |= {"ones_like", "pad", "repeat", "roll", "scatter", "scatter_add", "select_scatter", "slice_scatter", "stack"}
_MAKERS |= {"sub", "to", "_to_copy", "tril", "triu", "where", "zeros", "zeros_like"}
