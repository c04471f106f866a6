"""Questions about sizes that a model's own code asks during an export: the recording assumes each answer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import FrameType
from typing import Any
from unittest.mock import patch

import sympy
import torch
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from ir.capture.paths import in_torch, is_torch_file, short_path
from ir.capture.source_lines.where import where_of
from ir.operators.facts import aten

_MACHINERY = ("fx/experimental/", "__init__.py", "_ops.py", "utils/_stats.py")  # inside torch's package
_EXPORT = "export/_trace.py"  # what calls the model


@dataclass(frozen=True)
class Question:
    """A condition such as `x.shape[0] > 1` at a line of the model, over torch's symbols, and the recorded answer."""

    asked: sympy.Basic
    answer: sympy.Basic
    place: str  # "model.py:12"; empty where no line of the model's asks
    direct: bool  # asked by the line itself, not by torch on its way

    @property
    def at(self) -> str:
        """Its place, as messages end with it."""
        return f" (at {self.place})" if self.place else ""

    @property
    def assumed(self) -> sympy.Basic:
        """The condition under which the answer holds."""
        if self.answer in (sympy.true, sympy.false):
            return self.asked if self.answer == sympy.true else sympy.Not(self.asked)
        return sympy.Eq(self.asked, self.answer)

    @property
    def fixed(self) -> int | None:
        """The number that the answer fixes a size at; None if it fixes none."""
        match self.assumed:
            case sympy.Eq(lhs=sympy.Symbol(), rhs=sympy.Integer() as number):
                return int(number)
        return None


@contextmanager
def watched() -> Iterator[list[Question]]:
    """Collect the questions of code outside torch, and those of torch that fix a size; torch asks thousands more."""
    questions: list[Question] = []
    evaluate = ShapeEnv.evaluate_expr

    def evaluate_and_note(env: ShapeEnv, expr: Any, *args: Any, **kwargs: Any) -> Any:
        answer = evaluate(env, expr, *args, **kwargs)
        if not isinstance(expr, sympy.Basic):
            return answer
        asker = _beyond(sys._getframe(1), _is_machinery)
        direct = asker is not None and not is_torch_file(asker.f_code.co_filename)
        if direct or _may_fix(expr, answer):
            line = _beyond(asker, is_torch_file)
            if line is not None:
                question = Question(expr, sympy.sympify(answer), _place(asker, line), direct)
                if direct or question.fixed is not None:
                    questions.append(question)
        return answer

    with patch.object(ShapeEnv, "evaluate_expr", evaluate_and_note):
        yield questions


def _may_fix(expr: sympy.Basic, answer: Any) -> bool:
    """Whether an answer may fix a size at a number: most of torch's questions are told quickly, as inequalities."""
    if answer is True or answer is sympy.true:
        return isinstance(expr, sympy.Eq)
    if answer is False or answer is sympy.false:
        return isinstance(expr, (sympy.Ne, sympy.Not))
    return True


def about_squeezes(program: ExportedProgram) -> Iterator[Question]:
    """The question of each squeeze() whether a dimension is 1: torch, which takes every size for 2 or more, asks none.

    A graph may hold the squeezed shape alone, as in `weight.expand_as(x.squeeze())`, and no node that shows it.
    """
    for node in program.graph.nodes:
        if getattr(node.target, "overloadpacket", None) not in (aten.squeeze, aten.squeeze_):
            continue
        where, shape = where_of(node), node.args[0].meta["val"].shape
        dims = node.args[1] if node.args[1:] else range(len(shape))
        for size in (shape[d] for d in ([dims] if isinstance(dims, int) else dims)):
            if isinstance(size, torch.SymInt):
                yield Question(sympy.Eq(size.node.expr, 1), sympy.false, f"{where.file}:{where.line}", direct=True)


def _place(asker: FrameType | None, line: FrameType) -> str:
    """The line as messages say it; none if that line called the export, which asks by itself."""
    while asker is not None and asker is not line and in_torch(asker.f_code.co_filename) != _EXPORT:
        asker = asker.f_back
    return f"{short_path(line.f_code.co_filename)}:{line.f_lineno}" if asker is line else ""


@cache
def _is_machinery(path: str) -> bool:
    return in_torch(path).startswith(_MACHINERY)


def _beyond(frame: FrameType | None, passed: Callable[[str], bool]) -> FrameType | None:
    """The innermost frame whose file is not `passed`."""
    while frame is not None and passed(frame.f_code.co_filename):
        frame = frame.f_back
    return frame
