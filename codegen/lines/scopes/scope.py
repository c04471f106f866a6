"""Names in one function: expressions for its values, modules and calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import sympy

from codegen.lines.scopes.file_scope import FileScope
from codegen.lines.scopes.local_names import Names
from codegen.spelling.expressions import (
    Attribute,
    Expression,
    FunctionsCall,
    Invocation,
    OpaqueCall,
    Operation,
    Subscript,
    Tuple,
    Variable,
)
from codegen.spelling.torch_modules import input_of, torch_module
from codegen.structure.program import Launch, Statement, Steps, Update, Use, operands, walk
from ir.graph import Call, Value, is_whole, opaque_of
from ir.operators.higher_order import Body, HigherOrder, is_higher_order

SELF = Variable("self")


@dataclass(frozen=True)
class Functions:
    """The functions that a node runs, by name."""

    what: HigherOrder
    names: Mapping[Body, str]


@dataclass(frozen=True)
class Scope:
    """The names in a function of the module `path`, or in a loop of it."""

    file: FileScope
    path: str
    names: Names
    modules: dict[str, str] = field(default_factory=dict)  # variables by path; of a loop's, that of the first module
    items: dict[Value, Expression] = field(default_factory=dict)  # what is read from lists and from around a function
    sizes: dict[sympy.Basic, str] = field(default_factory=dict)  # the names of long sizes
    functions: dict[Call, Functions] = field(default_factory=dict)  # of the nodes before which they are defined

    def inner(self) -> Scope:
        """The scope of a loop's body, whose names leave those outside as they are."""
        return replace(self, names=self.names.inner(), modules=dict(self.modules))

    # ---- expressions

    def expression(self, statement: Statement, nested: Mapping[Value, Statement]) -> Expression:
        """A statement as an expression, with those that are `nested` in it by their results."""

        def operand(value: Value) -> Expression:
            return self.expression(nested[value], nested) if value in nested else self.value(value)

        match statement:
            case Call() if is_whole(statement):
                module = self.reach(opaque_of(statement).path)
                return OpaqueCall(statement, module, _by_value(statement, operand), self.file.opaque)
            case Call() if is_higher_order(statement):
                found = self.functions[statement]
                return FunctionsCall(statement, found.what, found.names, tuple(map(operand, statement.args[0])))
            case Call() if self.is_torch_module(statement):
                return Invocation(self.reach(statement.where.module), (operand(input_of(statement)),), runs=statement)
            case Call():
                return Operation(statement, _by_value(statement, operand), self.sizes)
            case Use():
                sizes = tuple((str(s), str(s)) for s in self.file.missing(statement.block))
                return Invocation(self.reach(statement.path), tuple(map(operand, statement.args)), sizes, statement)
            case Launch():
                return Invocation(Variable(statement.kernel.name), tuple(map(operand, statement.args)))
            case Update():
                state = self.reach(self.file.fqns[statement.state])
                return Invocation(Attribute(state, "copy_"), (operand(statement.value),))
        raise AssertionError(statement)

    def is_torch_module(self, call: Call) -> bool:
        """Whether a call is written as one of a module of torch's own; not so in the class of that module itself."""
        module = self.file.torch_modules.get(call.where.module)
        return (
            call.where.module != self.path
            and module is not None
            and torch_module(call, module.cls, module.stored) == module.source
        )

    def value(self, value: Value) -> Expression:
        """A value: a local variable, an item of a list, or a stored tensor."""
        if value in self.items:
            return self.items[value]
        return Variable(self.names.read_as[value]) if value in self.names.read_as else self.reach(self.file.fqns[value])

    def reach(self, path: str) -> Expression:
        """A module or a stored tensor, by way of the variable that stands for the innermost module around it."""
        first = max((first for first in self.modules if f"{path}.".startswith(f"{first}.")), key=len, default="")
        if first:
            return self.file.paths.reach(Variable(self.modules[first]), first, path)
        return self.file.paths.reach(SELF, self.path, path)

    def over(self, steps: Steps) -> Expression:
        """The modules that a loop goes over: a list or the values of a dict, a slice of them, or a tuple of items."""
        container, numbers = self.reach(steps.container), self.file.paths.numbers.get(steps.container, ())
        first, last = steps.numbers[0], steps.numbers[-1]
        keyed = steps.container in self.file.paths.keyed
        over = Invocation(Attribute(container, "values")) if keyed else container
        if steps.numbers == numbers:
            return over
        if keyed and (part := _part(steps.numbers, numbers)) is not None:
            return Subscript(Invocation(Variable("list"), (over,)), part)
        by = steps.numbers[1] - first
        is_even = by > 0 and steps.numbers == tuple(range(first, last + 1, by))
        if is_even and not keyed and steps.container in self.file.sliced:
            return Subscript(container, slice(first, last + 1, by if by > 1 else None))
        return Tuple(tuple(self.file.paths.step(container, steps.container, str(n)) for n in steps.numbers))

    def device(self, inputs: Sequence[Value], body: Sequence[Statement]) -> Expression:
        """The device that a function runs on."""
        stored = [v for s in walk(body) for v in operands(s) if v in self.file.fqns]
        first = next(iter((*inputs, *stored)), None)
        if first is None:
            return Invocation(Attribute(Variable("torch"), "get_default_device"))
        return Attribute(self.value(first), "device")


def _part(numbers: Sequence[int], of: Sequence[int]) -> slice | None:
    """The slice of a list that has these numbers; None where there is none."""
    start, end = of.index(numbers[0]), of.index(numbers[-1]) + 1
    by = of.index(numbers[1]) - start
    if by < 1 or list(of[start:end:by]) != list(numbers):
        return None
    return slice(start or None, end if end < len(of) else None, by if by > 1 else None)


def _by_value(call: Call, operand: Callable[[Value], Expression]) -> dict[Value, Expression]:
    return {value: operand(value) for value in call.operands}
