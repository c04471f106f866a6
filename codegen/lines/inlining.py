"""Inlining: calls that the user wrote in one statement become one expression."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

from codegen.spelling.operators import spelled
from codegen.spelling.size_names import short_names
from codegen.spelling.writers import ATOM, Text
from codegen.structure.program import (
    Launch,
    Loop,
    PartWrite,
    Statement,
    Update,
    Use,
    is_random,
    operands,
    relative,
    results,
    walk,
)
from ir.graph import Call, Constant, Param, State, Value, is_whole
from ir.location import Frame
from ir.operators.facts import Elements, rearrangement
from ir.operators.higher_order import is_higher_order

_USUAL = "some_value"  # a name of usual length
WIDEST = 100  # characters of an expression, roughly: a line without its indent and `some_value = `


@dataclass(frozen=True, eq=False)
class Root:
    """A statement that gets a line, and the statements nested in its expression, by their result."""

    statement: Statement
    frames: tuple[Frame, ...]
    nested: Mapping[Value, Statement] = field(default_factory=dict)
    width: int = 0

    @property
    def origin(self) -> Frame | None:
        """The user's statement."""
        return self.frames[-1] if self.frames else None

    @property
    def reads(self) -> tuple[Value, ...]:
        """The values that it reads from variables."""
        inner = (v for s in self.nested.values() for v in operands(s))
        return tuple(v for v in (*inner, *operands(self.statement)) if v not in self.nested)


def calls_in_modules(body: Sequence[Statement], path: str) -> Counter[str]:
    """The number of calls of a function, and of the classes that it uses, from each module."""
    inner = (call for statement in walk(body) if isinstance(statement, Use) for call in statement.calls)
    return Counter(f.module for statement in (*walk(body), *inner) for f in frames_of(statement, path))


def inline_calls(body: Sequence[Statement], kept: AbstractSet[Value], path: str, busy: Counter[str]) -> list[Root]:
    """The statements of a function that get a line, in order, with the others nested in them.

    A statement is nested where its result is read once, by a statement right after it; both come from one
    statement of the user's source, or one is a view; and the expression stays short.  `kept` are the values that
    are read after the function's statements; `path` is the module of the function; `busy` counts the statements
    of the function by module.
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
        root = Root(statement, around, width=width(statement, path))
        place = _place_of_converted(root, roots, uses)
        if place > 1:
            roots[-place] = _nesting(replace(root, frames=roots[-place].frames), roots[-place])
        else:
            roots.append(_folded(root, roots, uses))
    return roots


def _folded(root: Root, roots: list[Root], uses: Counter[Value]) -> Root:
    """A statement with those before it that can be nested in it, which are taken off the list."""
    statement = root.statement
    if isinstance(statement, (Loop, Update)) or (isinstance(statement, Call) and not is_operation(statement)):
        return root
    while place := _place_of_inner(root, roots, uses):
        root = _nesting(root, roots.pop(-place))
    return root


def _nesting(root: Root, inner: Root) -> Root:
    """A root with another one, which makes an operand, in its expression."""
    nested = {**root.nested, **inner.nested, results(inner.statement)[0]: inner.statement}
    return replace(root, nested=nested, width=root.width + inner.width - len(_USUAL))


def _place_of_converted(root: Root, roots: list[Root], uses: Counter[Value]) -> int:
    """The place of the root whose result a cast converts, if it can be nested in the cast; 0 for none.

    A cast reads nothing else, so it can stand where that is made.
    """
    statement = root.statement
    moves = rearrangement(statement.op) if isinstance(statement, Call) else None
    if moves is None or moves.elements is not Elements.CAST or len(operands(statement)) != 1:
        return 0
    [value] = operands(statement)
    place = next((i for i, r in enumerate(reversed(roots), 1) if value in results(r.statement)), 0)
    return place if place and uses[value] == 1 and _fits(roots[-place], value, root) else 0


def _place_of_inner(root: Root, roots: list[Root], uses: Counter[Value]) -> int:
    """The place of a root that can be nested in another, counted from the end of `roots`; 0 for none.

    Usually it is the statement just before; skipping others would reorder them.  A call without operands may come
    from anywhere, if its consumer is a view.
    """
    far = is_form(root.statement)
    for value in reversed(operands(root.statement)):
        if uses[value] != 1 or value in root.nested:
            continue
        if isinstance(root.statement, PartWrite) and value is root.statement.base:
            continue  # a variable to write into
        place = next((i for i, r in enumerate(reversed(roots), 1) if value in results(r.statement)), 0)
        if place and (place == 1 or (far and not roots[-place].reads)) and _fits(roots[-place], value, root):
            return place
    return 0


def _fits(inner: Root, value: Value, outer: Root) -> bool:
    statement = inner.statement
    if not isinstance(statement, (Call, Use, Launch)) or results(statement) != (value,):
        return False
    if isinstance(statement, Call) and (statement.unpacks or is_random(statement) or is_whole(statement)):
        return False
    if not inner.frames or inner.width + outer.width - len(_USUAL) > WIDEST:
        return False
    if isinstance(statement, Use) and isinstance(outer.statement, Use) and _follow(statement, outer.statement):
        return False
    view = is_form(statement) or (is_form(outer.statement) and _binds(statement) == ATOM)
    return inner.frames == outer.frames or (view and _module(inner) == _module(outer))


def _binds(statement: Statement) -> int:
    """The precedence of an expression: a sum that another statement of the user's views is no `(a + b).view()`."""
    return _usual(statement).binds if isinstance(statement, Call) else ATOM


def _follow(a: Use, b: Use) -> bool:
    """Whether the paths of two modules differ in numbers alone: they are turns of a loop of the user's."""
    return re.sub(r"\d+", "", a.path) == re.sub(r"\d+", "", b.path)


def _module(root: Root) -> str:
    return root.frames[-1].module if root.frames else ""


def is_form(statement: Statement) -> bool:
    """Whether a statement is a view or a copy of its first operand."""
    return isinstance(statement, Call) and rearrangement(statement.op) is not None


def is_operation(call: Call) -> bool:
    """Whether a call is that of an operator on its operands, not of a module or of functions."""
    return not is_whole(call) and not is_higher_order(call)


def width(statement: Statement, path: str) -> int:
    """The approximate length of an expression in the function of module `path`, in characters."""
    match statement:
        case Call() if is_operation(statement):
            stored = any(isinstance(v, (Param, State, Constant)) for v in statement.operands)
            shown = len(_usual(statement).source)
            return shown + (len(relative(statement.where.module, path)) if stored else 0)
        case Use():
            return len(relative(statement.path, path)) + 10 + 10 * len(statement.args)
        case Launch():
            return len(statement.kernel.name) + 10 * len(statement.args)
        case PartWrite():
            return 2 * len(_USUAL) + 10 * len(statement.part)
    return 0


_USUAL_TEXT: WeakKeyDictionary[Call, Text] = WeakKeyDictionary()  # a file is planned several times


def _usual(call: Call) -> Text:
    """A call of an operator on values with names of usual length."""
    if call not in _USUAL_TEXT:
        _USUAL_TEXT[call] = spelled(call, _usual_name, short_names(call))
    return _USUAL_TEXT[call]


def _usual_name(value: Value) -> Text:
    if isinstance(value, (Param, State, Constant)):
        return Text("")  # its path counts once, be it that of the module or of a weight
    return Text(_USUAL if value.type.shape else "one")


def frames_of(statement: Statement, path: str) -> tuple[Frame, ...]:
    """The frames of a statement from module `path` inwards, up to the last in the user's source."""
    match statement:
        case Call():
            frames = statement.where.frames
        case Launch() | PartWrite():
            frames = statement.calls[-1].where.frames
        case Use():
            frames = before(statement.calls[0].where.frames, statement.path)
        case _:
            return ()
    start = next((i for i, f in enumerate(frames) if f.module == path), len(frames))
    end = next((i for i in range(len(frames), start, -1) if frames[i - 1].line), start)
    return frames[start:end]


def before(frames: tuple[Frame, ...], path: str) -> tuple[Frame, ...]:
    """The frames outside of the call of the module `path`."""
    return frames[: next((i for i, f in enumerate(frames) if f.module == path), len(frames))]
