"""The code of a function in which a loop over a size is a function of one turn, which scan runs.

    for t in range(seq):                        def turn(state, x):
        state = decay[:, t] * state + x[:, t]       state = x[0] * state + x[1]
        outputs.append(state @ weight)              return state, state @ weight

A turn may read the t-th slices of tensors, hand names on to the next turn, append to lists and fill the t-th slice of
tensors.  A loop that does anything else with its counter, or that ends early, stays as it is.
"""

from __future__ import annotations
import __future__

import ast
import inspect
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import CodeType

from ir.capture.loops.names import (
    Function,
    bound_before,
    changed_after,
    is_new_before,
    is_only_joined,
    names_assigned,
    names_read,
    read_after,
    read_first,
)

SCAN = "__scan_of_turns"  # the name in the function's globals of what runs the turns
_FUTURE = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
_OF_TYPES = {"dtype", "device", "shape", "ndim"}
_REFUSED = (
    *(ast.Return, ast.Break, ast.Continue, ast.Yield, ast.YieldFrom, ast.Await, ast.Global, ast.Nonlocal, ast.Delete),
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.While, ast.Try, ast.With, ast.AsyncWith),
    *(ast.NamedExpr, ast.Import, ast.ImportFrom, ast.Raise, ast.Assert, ast.AugAssign),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
)


class NotAScan(Exception):
    """A loop that no scan computes."""


@lru_cache(maxsize=256)
def has_loop_at(code: CodeType, line: int) -> bool:
    """Whether a loop `for i in range(...)` begins at a line of a function."""
    function = _parsed(code)
    return function is not None and any(loop.lineno == line for loop in _loops(function))


def with_scans(code: CodeType) -> CodeType | None:
    """The code with the loops over sizes that can be scans; None where none can."""
    function = _parsed(code)
    if function is None or any(map(_mangled, ast.walk(function))) or not _is_source_of(code):
        return None
    rewritten = 0
    for loop in _loops(function):
        try:
            parts = _rewritten(loop, function)
        except NotAScan:
            continue
        for node in parts:
            ast.copy_location(node, loop)
        block = next(b for n in ast.walk(function) for b in _blocks(n) if loop in b)
        block[block.index(loop) : block.index(loop) + 1] = parts
        rewritten += 1
    return _compiled(function, code) if rewritten else None


def _loops(function: Function) -> list[ast.For]:
    found = [n for n in ast.walk(function) if isinstance(n, ast.For) and isinstance(n.target, ast.Name)]
    return [loop for loop in found if _range_of(loop) and not loop.orelse]


def _range_of(loop: ast.For) -> list[ast.expr]:
    match loop.iter:
        case ast.Call(func=ast.Name(id="range"), args=[_] | [_, _] as args, keywords=[]):
            return args
    return []


def _blocks(node: ast.AST) -> list[list[ast.stmt]]:
    fields = (getattr(node, name, None) for name in ("body", "orelse", "finalbody"))
    return [field for field in fields if isinstance(field, list)]


@lru_cache(maxsize=256)
def _source(code: CodeType) -> str:
    try:
        return textwrap.dedent(inspect.getsource(code))
    except (OSError, TypeError):
        return ""


def _parsed(code: CodeType) -> Function | None:
    """The function as a tree of its own, with the lines of its file; None where its source is not found."""
    try:
        [function] = ast.parse(_source(code)).body
    except (SyntaxError, ValueError):
        return None
    if not isinstance(function, ast.FunctionDef) or function.name != code.co_name:
        return None
    ast.increment_lineno(function, code.co_firstlineno - 1)
    function.decorator_list = []
    return function


def _compiled(function: Function, code: CodeType) -> CodeType | None:
    """The code of a changed function with the free variables of the one before."""
    around = ast.parse(f"def around({', '.join(code.co_freevars)}): pass")
    outer = around.body[0]
    assert isinstance(outer, ast.FunctionDef)
    given = function.args
    given.defaults, given.kw_defaults = [], [None] * len(given.kwonlyargs)  # those of the function object stay
    outer.body = [function]
    flags = code.co_flags & _FUTURE
    module = compile(ast.fix_missing_locations(around), code.co_filename, "exec", flags, dont_inherit=True)
    made = _inner(_inner(module, "around"), code.co_name)
    return made if made is not None and made.co_freevars == code.co_freevars else None


def _is_source_of(code: CodeType) -> bool:
    """Whether a function is in its file as it runs: the file may have changed since."""
    try:
        lines, _ = inspect.findsource(code)
        return _has(compile("".join(lines), code.co_filename, "exec", dont_inherit=True), code)
    except (OSError, TypeError, SyntaxError, ValueError):
        return False


def _has(code: CodeType, wanted: CodeType) -> bool:
    """Whether code, or what is defined in it, is equal to other code."""
    return code == wanted or any(_has(c, wanted) for c in code.co_consts if isinstance(c, CodeType))


def _inner(code: CodeType | None, name: str) -> CodeType | None:
    constants = code.co_consts if code is not None else ()
    return next((c for c in constants if isinstance(c, CodeType) and c.co_name == name), None)


# ---- one loop


@dataclass(frozen=True)
class _Output:
    """A result of each turn, for a list or for a slice of a tensor."""

    into: str
    dim: int | None  # of the tensor; None for a list
    is_new: bool = False  # whether nothing else can hold the tensor


def _rewritten(loop: ast.For, function: Function) -> list[ast.stmt]:
    """The function of a turn, and what runs it, or the loop where its size is a number.  Raises NotAScan."""
    assert isinstance(loop.target, ast.Name)
    counter = loop.target.id
    if any(isinstance(node, _REFUSED) for statement in loop.body for node in ast.walk(statement)):
        raise NotAScan
    outputs: list[_Output] = []
    body = [_statement(statement, counter, outputs) for statement in _copied(loop.body)]
    names = names_assigned(body) - {_made(i) for i in range(len(outputs))}
    filled = {output.into for output in outputs}
    items = _Items(counter, names)
    body = [ast.fix_missing_locations(items.visit(statement)) for statement in body]
    if counter in names_read(body) | names or filled & (names | _read(body)) or read_after(counter, loop, function):
        raise NotAScan
    if not items.found:
        raise NotAScan
    carried = sorted(n for n in names if read_first(n, loop.body) or read_after(n, loop, function))
    if not carried or not all(bound_before(name, loop, function) for name in carried):
        raise NotAScan
    if any(changed_after(name, loop, function) for name in carried):  # in the model, items and results, too
        raise NotAScan
    if not all(o.dim is not None or is_only_joined(o.into, loop, function) for o in outputs):
        raise NotAScan
    outputs = [replace(o, is_new=o.dim is not None and is_new_before(o.into, loop, function)) for o in outputs]
    return _written(loop, body, carried, items.found, outputs)


def _copied(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    found = ast.parse(ast.unparse(ast.Module(list(body), [])))
    for old, new in zip(body, found.body, strict=True):
        for one, other in zip(ast.walk(old), ast.walk(new), strict=True):
            if hasattr(one, "lineno"):
                ast.copy_location(other, one)
    return found.body


def _mangled(node: ast.AST) -> bool:
    """Whether a name is one that a class makes its own."""
    name = getattr(node, "id", None) or getattr(node, "attr", None) or ""
    return name.startswith("__") and not name.endswith("__")


def _made(i: int) -> str:
    return f"__made_{i}"


def _statement(statement: ast.stmt, counter: str, outputs: list[_Output]) -> ast.stmt:
    """A statement of a turn, whose results for lists and slices of tensors get a name.  Raises NotAScan."""
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Attribute(ast.Name(id=into), "append"), args=[value], keywords=[])):
            made = _Output(into, None)
        case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=into), slice=index)], value=value):
            made = _Output(into, _only_at(index, counter))
        case ast.Assign() | ast.AnnAssign() | ast.Expr(value=ast.Constant()) | ast.Pass():
            if any(
                isinstance(n, (ast.Subscript, ast.Attribute)) and isinstance(n.ctx, ast.Store)
                for n in ast.walk(statement)
            ):
                raise NotAScan
            return statement
        case _:
            raise NotAScan
    if any(made.into == other.into for other in outputs):
        raise NotAScan
    outputs.append(made)
    target = ast.Name(_made(len(outputs) - 1), ast.Store())
    return ast.copy_location(ast.Assign([target], value), statement)


def _only_at(index: ast.expr, counter: str) -> int:
    """The dimension of which an index takes one element by the counter, and of others all.  Raises NotAScan."""
    elements = list(index.elts) if isinstance(index, ast.Tuple) else [index]
    at = _dim_of(elements, counter)
    if not all(e is elements[at] or _is_whole(e) or _is_ellipsis(e) for e in elements):
        raise NotAScan
    return at


def _dim_of(elements: Sequence[ast.expr], counter: str) -> int:
    """The place of the counter in an index, from the end where an ellipsis comes first.  Raises NotAScan."""
    places = [i for i, e in enumerate(elements) if isinstance(e, ast.Name) and e.id == counter]
    if len(places) != 1:
        raise NotAScan
    [at] = places
    if any(not isinstance(e, ast.Slice) and not _is_ellipsis(e) for e in elements[:at]):
        raise NotAScan  # an index before it takes a dimension away
    return at - len(elements) if any(map(_is_ellipsis, elements[:at])) else at


def _is_whole(element: ast.expr) -> bool:
    return isinstance(element, ast.Slice) and not (element.lower or element.upper or element.step)


def _is_ellipsis(element: ast.expr) -> bool:
    return isinstance(element, ast.Constant) and element.value is ...


def _read(body: Sequence[ast.stmt]) -> set[str]:
    """The names that code reads, other than for the type of a tensor."""
    types = {id(n.value) for s in body for n in ast.walk(s) if isinstance(n, ast.Attribute) and n.attr in _OF_TYPES}
    names = (n for s in body for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))
    return {n.id for n in names if id(n) not in types}


class _Items(ast.NodeTransformer):
    """Reads the slices of tensors by a counter from the items of a turn: `x[:, t, 0]` as `items[1][:, 0]`."""

    def __init__(self, counter: str, stored: set[str]) -> None:
        self._counter, self._stored = counter, stored
        self.found: list[tuple[ast.expr, int]] = []  # tensors, and the dimension that the counter goes along

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        elements = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
        plain = any(isinstance(e, ast.Name) and e.id == self._counter for e in elements)
        if not plain or not isinstance(node.ctx, ast.Load):
            return self.generic_visit(node)
        if not _is_path(node.value) or names_read(node.value) & (self._stored | {self._counter}):
            raise NotAScan
        dim = _dim_of(elements, self._counter)
        del elements[dim]
        rest = [self.visit(element) for element in elements]
        item: ast.expr = ast.Subscript(
            ast.Name("__items", ast.Load()), ast.Constant(self._index(node.value, dim)), ast.Load()
        )
        if not all(map(_is_whole, rest)):
            item = ast.Subscript(item, ast.Tuple(rest, ast.Load()), ast.Load())
        return ast.copy_location(item, node)

    def _index(self, tensor: ast.expr, dim: int) -> int:
        known = [(ast.dump(t), d) for t, d in self.found]
        if (ast.dump(tensor), dim) not in known:
            self.found.append((tensor, dim))
            return len(known)
        return known.index((ast.dump(tensor), dim))


def _is_path(node: ast.expr) -> bool:
    """Whether an expression is a name, or attributes of one."""
    return isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and _is_path(node.value))


def _written(
    loop: ast.For,
    body: list[ast.stmt],
    carried: Sequence[str],
    items: Sequence[tuple[ast.expr, int]],
    outputs: Sequence[_Output],
) -> list[ast.stmt]:
    """The loop as statements: a turn's function, and the run of it where the range is of any size."""
    start, *stop = (ast.unparse(a) for a in _range_of(loop))
    bounds = f"({start}, {stop[0]})" if stop else f"(0, {start})"
    names = "".join(f"{name}, " for name in carried)
    made = "".join(f"{_made(i)}, " for i in range(len(outputs)))
    given = "".join(f"({ast.unparse(tensor)}, {dim}), " for tensor, dim in items)
    into = "".join(f"({output.into}, {output.dim}, {output.is_new}), " for output in outputs)
    filled = "".join(f"{output.into}, " for output in outputs if output.dim is not None)
    text = f"""
if {SCAN}.is_of_any_size({bounds}):
    def __turn(__carried, __items):
        {names}= __carried
        return ({names}), ({made})
    {names}{filled}= {SCAN}.run(__turn, ({names}), ({given}), ({into}), {bounds})
else:
    pass
"""
    [branch] = ast.parse(text).body
    assert isinstance(branch, ast.If)
    for node in ast.walk(branch):
        if hasattr(node, "lineno"):
            ast.copy_location(node, loop)
    turn = branch.body[0]
    assert isinstance(turn, ast.FunctionDef)
    turn.body[1:1] = body
    branch.orelse = [loop]
    return [branch]
