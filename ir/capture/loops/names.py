"""Names in a loop: those that a turn hands on to the next one, and those that what follows reads."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence

Function = ast.FunctionDef | ast.AsyncFunctionDef


def names_read(node: ast.AST | Iterable[ast.AST]) -> set[str]:
    """The names that code reads."""
    return set(_named(node, ast.Load))


def names_assigned(node: ast.AST | Iterable[ast.AST]) -> set[str]:
    """The names that code assigns to."""
    return set(_named(node, (ast.Store, ast.Del)))


def _named(node: ast.AST | Iterable[ast.AST], context: type | tuple[type, ...]) -> Iterator[str]:
    for part in [node] if isinstance(node, ast.AST) else node:
        for inner in ast.walk(part):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, context):
                yield inner.id
            if isinstance(inner, ast.AugAssign) and isinstance(inner.target, ast.Name) and context is ast.Load:
                yield inner.target.id


def read_first(name: str, body: Sequence[ast.stmt]) -> bool:
    """Whether statements may read a name before they assign to it."""
    for statement in body:
        if name in _before_assigning(statement):
            return True
        if _assigns(name, statement):
            return False
    return False


def _before_assigning(statement: ast.stmt) -> set[str]:
    """The names that a statement may read before it assigns to them."""
    match statement:
        case ast.Assign(targets=targets, value=value):
            return names_read([value, *targets])
        case ast.AnnAssign(target=target, value=value):
            return names_read([target, *([value] if value else [])])
    return names_read(statement)


def _assigns(name: str, statement: ast.stmt) -> bool:
    """Whether a statement assigns to a name whatever happens."""
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return any(name in names_assigned(target) for target in targets)


_INNER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def read_after(name: str, loop: ast.For, function: Function) -> bool:
    """Whether what may run after a loop may read what a name was in it."""
    path = _path_to(loop, function)
    if name in names_read(n for n in ast.walk(function) if n is not function and isinstance(n, _INNER)):
        return True
    for around, block in reversed(path):
        place = next(i for i, statement in enumerate(block) if any(inner is loop for inner in ast.walk(statement)))
        for statement in block[place + 1 :]:
            if name in _before_assigning(statement):
                return True
            if _assigns(name, statement):
                return False
        if isinstance(around, (ast.For, ast.While, ast.AsyncFor, ast.Try)):
            return _read_elsewhere(name, loop, function)
    return False


def _read_elsewhere(name: str, loop: ast.For, function: Function) -> bool:
    inside = {id(node) for node in ast.walk(loop)}
    names = (node for node in ast.walk(function) if isinstance(node, ast.Name) and id(node) not in inside)
    return any(node.id == name and isinstance(node.ctx, ast.Load) for node in names)


def _path_to(loop: ast.For, function: Function) -> list[tuple[ast.AST, list[ast.stmt]]]:
    """The blocks around a loop, the outermost first, each with the statement that it belongs to."""
    path: list[tuple[ast.AST, list[ast.stmt]]] = []
    around: ast.AST = function
    while around is not loop:
        block, inner = next(_blocks_with(around, loop))
        path.append((around, block))
        around = inner
    return path


def _blocks_with(around: ast.AST, loop: ast.For) -> Iterator[tuple[list[ast.stmt], ast.AST]]:
    holders = [around, *getattr(around, "handlers", []), *getattr(around, "cases", [])]
    for holder in holders:
        for field in ("body", "orelse", "finalbody"):
            block = getattr(holder, field, [])
            for statement in block if isinstance(block, list) else []:
                if any(inner is loop for inner in ast.walk(statement)):
                    yield block, statement


def bound_before(name: str, loop: ast.For, function: Function) -> bool:
    """Whether a function may have assigned to a name above a loop, or has it as a parameter."""
    given = function.args
    extra = [a for a in (given.vararg, given.kwarg) if a is not None]
    if name in {a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs, *extra)}:
        return True
    stored = (n for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    return any(node.id == name and node.lineno < loop.lineno for node in stored)


_MAKES = {
    f"{new}{kind}{like}"
    for new in ("", "new_")
    for kind in ("zeros", "ones", "empty", "full")
    for like in ("", "_like")
}


def is_new_before(name: str, loop: ast.For, function: Function) -> bool:
    """Whether a name is that of a tensor that torch.zeros() or its like made, and that nothing reads before a loop."""
    _, block = _path_to(loop, function)[-1]
    above = block[: block.index(loop)]
    made = next((i for i, statement in enumerate(above) if _makes(name, statement)), None)
    between = above[made + 1 :] if made is not None else []
    return made is not None and not any(name in names_read(s) | names_assigned(s) for s in between)


def _makes(name: str, statement: ast.stmt) -> bool:
    match statement:
        case ast.Assign(targets=[ast.Name(id=target)], value=ast.Call(func=ast.Attribute(attr=attr))):
            return target == name and attr in _MAKES
    return False


def changed_after(name: str, loop: ast.For, function: Function) -> bool:
    """Whether code outside a loop may change the tensor of a name in place."""
    inside = {id(node) for node in ast.walk(loop)}
    return any(_changes(name, node) for node in ast.walk(function) if id(node) not in inside)


def _changes(name: str, node: ast.AST) -> bool:
    match node:
        case ast.AugAssign(target=changed):
            pass
        case ast.Subscript(value=changed, ctx=ast.Store()):
            pass
        case ast.Call(func=ast.Attribute(value=changed, attr=attr)) if attr.endswith("_") and not attr.endswith("__"):
            pass
        case _:
            return False
    while isinstance(changed, (ast.Subscript, ast.Attribute, ast.Call)):
        changed = changed.func if isinstance(changed, ast.Call) else changed.value
    return isinstance(changed, ast.Name) and changed.id == name


_JOINS = {"stack", "cat", "concat", "concatenate"}


def is_only_joined(name: str, loop: ast.For, function: Function) -> bool:
    """Whether a list is a function's own, and all that is done with it beside a loop is to join what it has.

    Its length is a number, of which nothing could be recorded.
    """
    made = [n for n in ast.walk(function) if _makes_list(name, n) and n.lineno < loop.lineno]  # type: ignore[attr-defined]
    if not made:
        return False
    first = max(n.lineno for n in made)  # type: ignore[attr-defined]
    inside = {id(node) for node in ast.walk(loop)}
    again = [n for n in ast.walk(function) if isinstance(n, ast.Assign) and n.lineno > loop.lineno]
    last = min((n.end_lineno or n.lineno for n in again if name in names_assigned(n.targets)), default=None)
    joined = {id(n) for call in ast.walk(function) if _is_join(call, name) for n in ast.walk(call)}
    return all(
        id(node) in inside or id(node) in joined or node.lineno < first or (last is not None and node.lineno > last)
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)
    )


def _makes_list(name: str, node: ast.AST) -> bool:
    match node:
        case ast.Assign(targets=[ast.Name(id=target)], value=ast.List()):
            return target == name
        case ast.AnnAssign(target=ast.Name(id=target), value=ast.List()):
            return target == name
        case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)) if len(targets) == len(values):
            pairs = zip(targets, values, strict=True)
            return any(isinstance(t, ast.Name) and t.id == name and isinstance(v, ast.List) for t, v in pairs)
    return False


def _is_join(node: ast.AST, name: str) -> bool:
    """Whether a call joins a list, alone or among others, or appends to it."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=to), attr="append")) if to == name:
            return name not in names_read(node.args)
        case ast.Call(func=ast.Attribute(attr=attr), args=[first, *rest]) if attr in _JOINS:
            return name not in names_read(rest) and _is_list(first)
    return False


def _is_list(node: ast.expr) -> bool:
    """Whether an expression is names of lists, put together."""
    match node:
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _is_list(left) and _is_list(right)
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return all((isinstance(e, ast.Starred) and _is_list(e.value)) or isinstance(e, ast.Name) for e in elements)
    return isinstance(node, ast.Name)
