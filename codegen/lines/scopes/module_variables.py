"""Variables for modules: those that a loop goes over, and those that a function reaches often by a long path."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codegen.lines.inlining import Root
from codegen.lines.scopes.scope import Scope
from codegen.spelling.expressions import source
from codegen.structure.program import Loop, Statement, Steps, Use, operands, results
from ir.graph import Call, is_whole, opaque_of

_OFTEN = 5  # times that a function reaches a module
_SAVED = 100  # characters less in a function


@dataclass(frozen=True)
class ModuleVariable:
    """`block = self.attentions[0].transformer_blocks[0]`, for the statements from the `first` to the `last`."""

    path: str
    name: str
    first: int
    last: int

    def apart_from(self, other: ModuleVariable) -> bool:
        return self.name != other.name or self.last < other.first or other.last < self.first


def module_variables(scope: Scope, roots: Sequence[Root]) -> list[ModuleVariable]:
    """The variables that make a function shorter, those that do so by the most characters first."""
    reached = [(i, path) for i, root in enumerate(roots) for path in _reached(scope, root)]
    values = {name for root in roots for s in _statements(root) for v in results(s) for name in v.variables}
    loops = [s for root in roots for s in _statements(root) if isinstance(s, Loop)]
    names = {*values, *scope.names.holder, *(loop_variable(steps, loop) for loop in loops for steps in loop.steps)}
    found: list[ModuleVariable] = []
    while best := _best(scope, reached, names, found):
        found.append(best)
        reached = [(i, path) for i, path in reached if not path.startswith(f"{best.path}.")]
    return found


def loop_variable(steps: Steps, loop: Loop) -> str:
    """`layer` for LlamaDecoderLayer, or for what stands in `layers`."""
    used = next((s.block.cls for s in loop.body if isinstance(s, Use) and s.path == steps.first), "")
    words = re.findall(r"[A-Z][a-z]+", used)
    return words[-1].lower() if words else _singular(steps.container)


def _singular(container: str) -> str:
    name = container.rpartition(".")[2]
    return name.removesuffix("s") if name.isidentifier() and len(name) > 2 else "part"


def _best(
    scope: Scope, reached: Sequence[tuple[int, str]], names: set[str], found: Sequence[ModuleVariable]
) -> ModuleVariable | None:
    best, most = None, _SAVED
    for path, places in _around(scope, reached).items():
        around, _, last = path.rpartition(".")
        name = _singular(around) if last.isdigit() else last
        variable = ModuleVariable(path, name, places[0], places[-1])
        fits = len(places) >= _OFTEN and path not in scope.file.paths.numbers and all(map(variable.apart_from, found))
        if not fits or not re.fullmatch("[a-z_][a-z_0-9]*", name) or name in names or not scope.names.free(name, set()):
            continue
        saved = (len(places) - 1) * (len(source(scope.reach(path))) - len(name))
        if saved >= most:
            best, most = variable, saved
    return best


def _around(scope: Scope, reached: Sequence[tuple[int, str]]) -> dict[str, list[int]]:
    """The modules inside that of the function around what it reaches, with the statements that do."""
    own = len(scope.path.split(".")) if scope.path else 0
    found: dict[str, list[int]] = {}
    for i, path in reached:
        parts = path.split(".")
        for end in range(own + 2, len(parts)):
            found.setdefault(".".join(parts[:end]), []).append(i)
    return found


def _statements(root: Root) -> Iterator[Statement]:
    yield from (*root.nested.values(), root.statement)


def _reached(scope: Scope, root: Root) -> Iterator[str]:
    """The modules and stored tensors that a statement reaches, be it not a loop."""
    for statement in _statements(root):
        match statement:
            case Loop():
                pass
            case Call() if not is_whole(statement) and scope.is_torch_module(statement):
                yield statement.where.module
            case _:
                if isinstance(statement, Use):
                    yield statement.path
                elif isinstance(statement, Call) and is_whole(statement):
                    yield opaque_of(statement).path
                yield from (scope.file.fqns[v] for v in operands(statement) if v in scope.file.fqns)
