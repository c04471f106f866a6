"""A stage file: its parameters, tables and results, and the nodes on each line."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from runtime.manifest.lines import sum_of, words_by_line
from runtime.manifest.manifest import ProgramStage


def check_source(folder: Path, stage: ProgramStage, *, lines: bool) -> Iterator[str]:
    """The faults of the file of a stage, each with its line."""
    try:
        text = (folder / stage.module).read_text()
        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError) as e:
        yield f"{stage.module}: it cannot be read as Python: {e}"
        return
    own = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == stage.cls), None)
    functions = {f.name: f for f in own.body if isinstance(f, ast.FunctionDef)} if own else {}
    if not {"forward", "load"} <= functions.keys():
        yield f"{stage.module}: it has no class {stage.cls} with `forward` and `load`"
        return
    yield from (f"{stage.module}{fault}" for fault in _check_ends(tree, functions["forward"], stage))
    if lines:
        yield from (f"{stage.module}:{fault}" for fault in _check_lines(words_by_line(tree), stage))


def _check_ends(tree: ast.Module, forward: ast.FunctionDef, stage: ProgramStage) -> Iterator[str]:
    """The parameters of `forward`, the tables `RECEIVES` and `SENDS`, and the results."""
    given = [a.arg for a in (*forward.args.args[1:], *forward.args.kwonlyargs)]
    wanted = [*(receive.tensor.name for receive in stage.receives), *stage.sizes]
    if given != wanted:
        yield f":{forward.lineno}: forward takes {given}, the manifest lists {wanted}"
    receives = {r.tensor: f"({r.source}, " for r in stage.receives}
    sends = {s.tensor: f"({[*s.stages]}, {[*s.outputs]}, " for s in stage.sends}
    tables = {ast.unparse(a.targets[0]): ast.unparse(a.value) for a in tree.body if isinstance(a, ast.Assign)}
    for name, rows in (("RECEIVES", receives), ("SENDS", sends)):
        row = ", ".join(f"{t.name!r}: {ends}torch.{t.dtype}, {t.shape!r})" for t, ends in rows.items())
        if tables.get(name) != f"{{{row}}}":
            yield f": the table {name} differs from the manifest"
    returned = [ast.unparse(s.value) for s in forward.body if isinstance(s, ast.Return) and s.value]
    results = ast.unparse(ast.Tuple([ast.Name(send.tensor.name) for send in stage.sends]))
    if returned != [results]:
        yield f":{forward.lineno}: forward returns {', '.join(returned)}, the manifest lists {results}"


def _check_lines(words: dict[int, list[str]], stage: ProgramStage) -> Iterator[str]:
    """Each line is what the compiler wrote, and applies the operators of its nodes."""
    sums = {str(line): sum_of(found) for line, found in words.items()}
    for line in sorted(sums.keys() | stage.lines.keys(), key=int):
        if sums.get(line) != stage.lines.get(line):
            yield f"{line}: the line is not what the compiler wrote"
    for run in stage.runs:
        if run.line not in words or (run.spelled and run.spelled not in words[run.line]):
            yield f"{run.line}: it should run {run.node}"
