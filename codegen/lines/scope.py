"""How values, modules and calls read in one function of a stage file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from codegen.lines.file_scope import Vocabulary
from codegen.lines.local_names import Names
from codegen.spelling.operators import Text, spelled
from codegen.spelling.torch_modules import input_of, leaf_module
from codegen.structure.program import Block, Statement, Steps, Update, Use, operands, walk
from ir.graph import Call, Value


@dataclass
class Expressions:
    """Writes what stands in a function of the module `path`."""

    words: Vocabulary
    path: str
    names: Names
    given: dict[Block, tuple[str, ...]]  # what blocks are called with, by name
    variables: dict[str, str] = field(default_factory=dict)  # the loop variable for a module

    def of(self, statement: Statement, nested: Mapping[Value, Statement]) -> Text:
        """A statement as an expression, with what is nested in it."""

        def write(value: Value) -> Text:
            return self.of(nested[value], nested) if value in nested else self.write(value)

        match statement:
            case Call() if self._is_leaf(statement):
                return Text(f"{self.reach(statement.where.module)}({write(input_of(statement)).source})")
            case Call():
                return spelled(statement, write)
            case Use():
                sizes = [f"{s}={s}" for s in self.words.missing(statement.block)]
                given = tuple(write(v).source for v in statement.args)
                self.given.setdefault(statement.block, given)
                return Text(f"{self.reach(statement.path)}({', '.join((*given, *sizes))})")
            case Update():
                return Text(f"{self.reach(self.words.fqns[statement.state])}.copy_({write(statement.value).source})")
        raise AssertionError(statement)

    def _is_leaf(self, call: Call) -> bool:
        """Whether a call is that of a module of torch's own."""
        leaf = self.words.leaves.get(call.where.module)
        return leaf is not None and leaf_module(call, leaf.cls, leaf.stored) == leaf.source

    def write(self, value: Value) -> Text:
        """A value as a local variable, or as the path of a weight."""
        return Text(self.names.of[value] if value in self.names.of else self.reach(self.words.fqns[value]))

    def reach(self, path: str) -> str:
        """A module, or what it holds, from where the function stands."""
        for first, variable in self.variables.items():
            if f"{path}.".startswith(f"{first}."):
                return self.words.paths.reach(variable, first, path)
        return self.words.paths.reach("self", self.path, path)

    def over(self, steps: Steps) -> str:
        """The modules that a loop goes over."""
        container = self.reach(steps.container)
        first, last = steps.numbers[0], steps.numbers[-1]
        listed = self.words.paths.numbers.get(steps.container, ())
        if steps.numbers == listed:
            return container
        by = steps.numbers[1] - first
        if by > 0 and steps.numbers == tuple(range(first, last + 1, by)) and steps.container in self.words.sliced:
            return f"{container}[{first}:{last + 1}{f':{by}' if by > 1 else ''}]"
        return f"({', '.join(self.words.paths.step(container, steps.container, str(n)) for n in steps.numbers)})"

    def device(self, inputs: Sequence[Value], body: Sequence[Statement]) -> str:
        """The device that a function runs on."""
        stored = [v for s in walk(body) for v in operands(s) if v in self.words.fqns]
        first = next(iter((*inputs, *stored)), None)
        return f"{self.write(first).source}.device" if first is not None else "torch.get_default_device()"
