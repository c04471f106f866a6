"""Loops over sizes that may change, found as they are entered while a model is exported."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import CellType, CodeType, FrameType, FunctionType
from typing import Any
from unittest.mock import patch

import torch

from ir.capture.loops.rewritten import SCAN, has_loop_at, with_scans
from ir.capture.loops.turns import Turns, is_any_size
from ir.capture.paths import is_torch_file


class LoopOfAnySize(BaseException):
    """Such a loop, in code that may be rewritten: the export begins again.  Models catch exceptions, not this."""


@dataclass(frozen=True)
class Rewritten:
    """The code of functions in which loops are scans, in place of the code that they have."""

    code: CodeType
    functions: Sequence[FunctionType]


@dataclass
class Loops:
    """The functions of a model with loops over sizes that may change, by their code."""

    rewritten: dict[CodeType, Rewritten] = field(default_factory=dict)
    refused: set[CodeType] = field(default_factory=set)

    def refuse(self, code: CodeType) -> None:
        """Leave the loops of a function as they are."""
        self.refused.add(code)
        self.rewritten.pop(code, None)

    def refuse_all(self) -> None:
        """Leave the loops of all functions that are known as they are."""
        for code in [*self.rewritten]:
            self.refuse(code)

    @contextmanager
    def as_scans(self) -> Iterator[None]:
        """Inside the context, such loops are recorded as scans.  Raises LoopOfAnySize at one that is not known yet."""
        index = torch.SymInt.__index__

        def asked(size: torch.SymInt) -> Any:
            self._look(sys._getframe(1), size)
            return index(size)

        turns = Turns({new.code: old for old, new in self.rewritten.items()})
        with ExitStack() as patches:
            for new in self.rewritten.values():
                for function in new.functions:
                    patches.enter_context(_with_code(function, new.code, turns))
            patches.enter_context(patch.object(torch.SymInt, "__index__", asked))
            yield

    def _look(self, asker: FrameType, size: torch.SymInt) -> None:
        """Raise LoopOfAnySize where the size is the end of a range that a loop goes over."""
        code = asker.f_code
        known = code in self.refused or any(code is new.code for new in self.rewritten.values())
        if known or is_torch_file(code.co_filename) or not is_any_size(size) or not has_loop_at(code, asker.f_lineno):
            return
        new, functions = with_scans(code), _functions_of(code, asker.f_globals)
        if new is None or not functions or code in self.rewritten:  # or a call of the model makes such a function
            self.refuse(code)
            return
        self.rewritten[code] = Rewritten(new, functions)
        raise LoopOfAnySize


@contextmanager
def _with_code(function: FunctionType, code: CodeType, turns: Turns) -> Iterator[None]:
    """Give a function other code, for whoever calls it, inside the context."""
    before = function.__code__
    function.__code__, function.__globals__[SCAN] = code, turns
    try:
        yield
    finally:
        function.__code__ = before
        function.__globals__.pop(SCAN, None)


def _functions_of(code: CodeType, names: Mapping[str, Any]) -> list[FunctionType]:
    """The functions that have this code, as closures may: of a module, under decorators, in classes, and any others.

    Python lists none that gc.freeze() has put aside.
    """
    found, seen, left = list[FunctionType](), set[int](), list(names.values())
    while left:
        thing = left.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        match thing:
            case FunctionType():
                found += [thing] * (thing.__code__ is code)
                left += [getattr(thing, "__wrapped__", None), *map(_content, thing.__closure__ or ())]
            case type() if thing.__module__ == names.get("__name__"):
                left += vars(thing).values()
            case staticmethod() | classmethod():
                left.append(thing.__func__)
    found += [f for f in gc.get_referrers(code) if isinstance(f, FunctionType) and f.__code__ is code]
    return list({id(f): f for f in found}.values())


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None
