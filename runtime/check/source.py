"""A stage file: its parameters, tables and results, and that each line runs the nodes that the manifest says."""

from __future__ import annotations

import ast
import builtins
import symtable
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from runtime.check.applied import applied
from runtime.manifest import ProgramEntry, ProgramStage

_SIZES = {"max", "min", "math", "float", "int"}  # names in an expression of sizes and numbers, besides the symbols


def check_source(folder: Path, stage: ProgramStage, program: ProgramEntry) -> Iterator[str]:
    try:
        text = (folder / stage.module).read_text()
        tree, table = ast.parse(text), symtable.symtable(text, stage.module, "exec")
    except (OSError, SyntaxError, ValueError) as e:
        yield f"{stage.module}: it cannot be read as Python: {e}"
        return
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    functions = {f"{c.name}.{f.name}": f for c in classes for f in c.body if isinstance(f, ast.FunctionDef)}
    forward = functions.get(f"{stage.cls}.forward")
    if forward is None or f"{stage.cls}.load" not in functions:
        yield f"{stage.module}: it has no class {stage.cls} with `forward` and `load`"
        return
    yield from _check_ends(tree, forward, stage)
    known = {*dir(builtins), *(s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported())}
    for function in (function for cls in table.get_children() for function in cls.get_children()):
        lost = [s.get_name() for s in function.get_symbols() if s.is_global() and s.get_name() not in known]
        yield from (f"{stage.module}:{function.get_lineno()}: {name} is never assigned" for name in lost)
    forwards = {name: function for name, function in functions.items() if name.endswith(".forward")}
    updates = [(name, ast.unparse(e)) for name, f in forwards.items() for e in ast.walk(f) if isinstance(e, ast.Expr)]
    if len({*updates}) < len(updates) or not (updates or all(held.becomes == "" for held in stage.holds.values())):
        yield f"{stage.module}: it does not change each state once"
    if stage.matched:
        yield from unmatched_lines(text, stage, program)


def unmatched_lines(text: str, stage: ProgramStage, program: ProgramEntry) -> Iterator[str]:
    """The lines of a stage file that do not apply the operators of their nodes, as far as those can be read off."""
    classes = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    functions = {f"{c.name}.{f.name}": f for c in classes for f in c.body if isinstance(f, ast.FunctionDef)}
    forward, lines = functions[f"{stage.cls}.forward"], _Lines(stage, program)
    for function in (function for name, function in functions.items() if name.endswith(".forward")):
        yield from lines.check(function, outermost=function is forward)
    for line in sorted(lines.nodes.keys() - lines.seen):
        yield f"{stage.module}:{line}: it should run {', '.join(lines.nodes[line])}"
    yield from lines.check_results(forward)


def _check_ends(tree: ast.Module, forward: ast.FunctionDef, stage: ProgramStage) -> Iterator[str]:
    """The parameters of `forward`, the tables `RECEIVES` and `SENDS`, and the number of results."""
    given = [a.arg for a in (*forward.args.args[1:], *forward.args.kwonlyargs)]
    wanted = [*(receive.tensor.name for receive in stage.receives), *stage.sizes]
    if given != wanted:
        yield f"{stage.module}:{forward.lineno}: forward takes {given}, the manifest lists {wanted}"
    receives = {r.tensor: f"({r.source}, " for r in stage.receives}
    sends = {s.tensor: f"({[*s.stages]}, {[*s.outputs]}, " for s in stage.sends}
    tables = {ast.unparse(a.targets[0]): ast.unparse(a.value) for a in tree.body if isinstance(a, ast.Assign)}
    for name, rows in (("RECEIVES", receives), ("SENDS", sends)):
        wanted = ", ".join(f"{t.name!r}: {ends}torch.{t.dtype}, {t.shape!r})" for t, ends in rows.items())
        if tables.get(name) != f"{{{wanted}}}":
            yield f"{stage.module}: the table {name} differs from the manifest"
    match forward.body[-1]:
        case ast.Return(value=ast.Tuple(elts=results)) if len(results) == len(stage.sends):
            if sum(isinstance(node, ast.Return) for node in _own(forward)) == 1:
                return
    yield f"{stage.module}: forward does not return {len(stage.sends)} tensors"


class _Lines:
    """The nodes that each line of a stage file runs, by the manifest.

    The lines of a loop or of a module's class run several times, those of one body as often as each other.
    """

    def __init__(self, stage: ProgramStage, program: ProgramEntry) -> None:
        self.stage, self.program = stage, program
        self.seen: set[int] = set()
        self.nodes: dict[int, list[str]] = {}
        self.spelled: dict[int, Counter[str]] = {}
        self.flat = False  # whether all nodes are on lines of the stage's own forward, none on those of other classes
        for run in stage.runs:
            self.nodes.setdefault(run.line, []).append(run.node)
            self.spelled.setdefault(run.line, Counter())[run.spelled] += 1

    def check(self, function: ast.FunctionDef, *, outermost: bool) -> Iterator[str]:
        """The lines of a function, which is the stage's own `forward` if it is the `outermost`."""
        body = range(function.lineno, (function.end_lineno or 0) + 1)
        self.flat = outermost and self.nodes.keys() <= {*body}
        if outermost or not self.nodes.keys().isdisjoint(body):  # else a class that a module of torch is written as
            loose = {"self", "getattr", "tensors"}
            for node in ast.walk(function):
                match node:
                    case ast.For(target=target) | ast.Assign(targets=[target], value=ast.List(elts=[])):
                        loose |= {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}
            yield from self._check_body(function.body, 1 if outermost else 0, loose)

    def _check_body(self, body: list[ast.stmt], times: int, loose: set[str]) -> Iterator[str]:
        """`times`: how often the body runs; 0 if that is not known yet."""
        for statement in body:
            if isinstance(statement, ast.FunctionDef):  # what a higher-order operator runs: its digest tells
                continue
            if isinstance(statement, (ast.For, ast.With)):
                yield from self._check_body(statement.body, times if isinstance(statement, ast.With) else 0, loose)
                continue
            self.seen.add(statement.lineno)
            wanted, (found, others) = self.spelled.get(statement.lineno, Counter()), self._operators(statement, loose)
            often = min((wanted[name] // count for name, count in found.items()), default=times or len(self.stage.runs))
            times = times or (often if found else 0)
            rest = wanted.total() - often * found.total()
            idle = self.flat and not wanted and isinstance(statement, ast.Assign) and _calls_module(statement.value)
            if often != (times or often) or not 0 <= rest <= others * often or idle:
                nodes = ", ".join(self.nodes.get(statement.lineno, ["no node"]))
                yield f"{self.stage.module}:{statement.lineno}: it should run {nodes}, and applies {', '.join(found)}"

    def _operators(self, statement: ast.stmt, loose: set[str]) -> tuple[Counter[str], int]:
        """The operators of a statement, and how often it calls or indexes what starts at a `loose` name.

        Each of the latter may be a module, which applies an operator of its own, a view of a weight, or neither.
        """
        found, others = Counter[str](), 0
        sizes = {*self.program.symbols, *_SIZES}
        for node in ast.walk(getattr(statement, "value", None) or ast.Tuple([])):
            if not applied(node) or {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} <= sizes:
                continue
            match node:
                case ast.Subscript(value=ast.Attribute(attr="shape")):
                    pass
                case ast.Call(func=of) | ast.Subscript(value=of) if _root(of) in loose:
                    others += 1
                case _:
                    found[applied(node)] += 1
        return found, others

    def check_results(self, forward: ast.FunctionDef) -> Iterator[str]:
        """What is returned at each place was assigned on the line that makes what is sent at that place."""
        makers = {tensor.name: node.makes[0].name for node in self.program.nodes for tensor in node.makes}
        names = [(n, s.lineno) for s in forward.body for n in _own(s) if isinstance(n, ast.Name)]
        assigned = {name.id: line for name, line in names if isinstance(name.ctx, ast.Store)}
        results = getattr(getattr(forward.body[-1], "value", None), "elts", ())
        for result, send in zip(results, self.stage.sends, strict=False):
            line = assigned.get(ast.unparse(result), 0)
            if line in self.nodes and makers.get(send.tensor.name) not in self.nodes[line]:
                yield f"{self.stage.module}:{line}: {ast.unparse(result)} is returned, where {send.tensor.name} is sent"


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all in it, without the functions that are defined there."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef):
            yield child
            yield from _own(child)


def _calls_module(value: ast.expr) -> bool:
    return any(isinstance(node, ast.Call) and _root(node.func) == "self" for node in ast.walk(value))


def _root(node: ast.expr) -> str:
    """The name at the start of `self.layers[3].fc`; "" for what is no such path."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) != "getattr":
            return ""
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""
