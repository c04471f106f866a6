"""Which calls stand inside the expression of another: those that the user wrote in one statement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import torch

from codegen.program import Loop, Statement, Update, Use, operands, results, walk
from codegen.spelling import Text, spelled
from ir.graph import Call, Frame, Value
from ir.opaque import is_whole

WIDEST = 88  # characters of an expression, roughly


@dataclass(frozen=True, eq=False)
class Root:
    """A statement that gets a line, and what stands inside it."""

    statement: Statement
    frames: tuple[Frame, ...]
    nested: Mapping[Value, Statement] = field(default_factory=dict)
    width: int = 0

    @property
    def reads(self) -> tuple[Value, ...]:
        """The values that must have names."""
        inner = (v for s in self.nested.values() for v in operands(s))
        return tuple(v for v in (*inner, *operands(self.statement)) if v not in self.nested)


def calls_in_modules(body: Sequence[Statement], path: str) -> Counter[str]:
    """How many statements of a function come from each module."""
    return Counter(f.module for statement in walk(body) for f in frames_of(statement, path))


def fold(body: Sequence[Statement], kept: AbstractSet[Value], path: str, busy: Counter[str]) -> list[Root]:
    """The statements of a function in order; a value read once, right after it, stands where it is read.

    Only where both come from one statement of the user's source, or one is a view, and the expression stays short.
    `busy` counts the statements of the function by module.
    """
    uses = Counter(v for s in body for v in operands(s))
    uses.update(kept)
    roots: list[Root] = []
    for statement in body:
        around = frames_of(statement, path)
        while (
            isinstance(statement, Call) and len(around) > 1 and busy[around[-1].module] == 1
        ):  # a module of one call reads as that call
            around = around[:-1]
        roots.append(_folded(Root(statement, around, width=width(statement)), roots, uses))
    return roots


def _folded(root: Root, roots: list[Root], uses: Counter[Value]) -> Root:
    """A statement with those before it that fit into it, which are taken off the list."""
    statement = root.statement
    if isinstance(statement, (Loop, Update)) or (isinstance(statement, Call) and is_whole(statement)):
        return root
    for value in reversed(operands(statement)):
        if not roots or uses[value] != 1 or not _fits(roots[-1], value, root):
            continue
        inner = roots.pop()
        nested = {**root.nested, **inner.nested, value: inner.statement}
        root = Root(statement, root.frames, nested, root.width + inner.width)
    return root


def _fits(inner: Root, value: Value, outer: Root) -> bool:
    statement = inner.statement
    if not isinstance(statement, (Call, Use)) or results(statement) != (value,):
        return False
    if isinstance(statement, Call) and (statement.unpacks or is_random(statement) or is_whole(statement)):
        return False
    if not inner.frames or inner.width + outer.width > WIDEST:
        return False
    view = is_form(statement) or is_form(outer.statement)
    return inner.frames == outer.frames or (view and _module(inner) == _module(outer))


def _module(root: Root) -> str:
    return root.frames[-1].module if root.frames else ""


_FORMS = frozenset(
    {"alias", "clone", "contiguous", "expand", "flatten", "permute", "repeat", "reshape", "slice", "squeeze", "to"}
    | {"transpose", "type_as", "unsqueeze", "view"}
)


def is_form(statement: Statement) -> bool:
    """Whether a statement shows its first operand in another form."""
    return isinstance(statement, Call) and statement.op._schema.name.rpartition("::")[2] in _FORMS


def is_random(call: Call) -> bool:
    return torch.Tag.nondeterministic_seeded in call.op.tags


def width(statement: Statement) -> int:
    """About how many characters an expression has, with names of usual length."""
    match statement:
        case Call() if not is_whole(statement):
            return len(spelled(statement, lambda v: Text("value" if v.type.shape else "one")).source)
        case Use():
            return len(statement.path.rpartition(".")[2]) + 10 + 10 * len(statement.args)
    return 0


def frames_of(statement: Statement, path: str) -> tuple[Frame, ...]:
    """The calls that led to a statement, from the one of module `path` on, as far as the user wrote them."""
    match statement:
        case Call():
            frames = statement.where.frames
        case Use():
            frames = before(statement.calls[0].where.frames, statement.path)
        case _:
            return ()
    start = next((i for i, f in enumerate(frames) if f.module == path), len(frames))
    end = next((i for i in range(len(frames), start, -1) if frames[i - 1].line), start)
    return frames[start:end]


def before(frames: tuple[Frame, ...], path: str) -> tuple[Frame, ...]:
    """The calls that led to the call of a module."""
    return frames[: next((i for i, f in enumerate(frames) if f.module == path), len(frames))]
