"""Errors of torch.export, as a message with the innermost module, the source line and what usually helps."""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import sympy
from torch import nn

from ir.capture.holdable import not_carried
from ir.capture.paths import clean, is_torch_file, short_path
from ir.capture.sizes.dynamic import FixedSizes, Marks
from ir.capture.sizes.guards import divisors_in
from ir.capture.sizes.questions import Question
from ir.errors import CaptureError
from ir.location import Where

_KNOWN = {
    "GuardOnDataDependentSymNode": (
        "it decides by the values of a tensor",
        "use torch.where in place of if and while, or decide from shapes alone",
    ),
    "DynamicOutputShapeException": (
        "the size of a result depends on values",
        "use torch.where, or a result of fixed size, in place of nonzero, unique and boolean masks",
    ),
    "DataDependentOutputException": (
        "it reads a value out of a tensor",
        "keep it a tensor, without .item(), int() and bool()",
    ),
}
_BY_SIZE = re.compile("unhashable type: .*SymInt")
_HINTS = re.compile(
    r"For more information|Exception raised from|\(Size-like symbols|\(unhinted|The error above|While executing %"
)
_SYMBOLIC = re.compile(r"Cannot call \w+\(\) on tensor with symbolic")
_FOREIGN = re.compile(r"argument of type: <class '(?:\w+\.)*(\w+)'>")
_WITHOUT_FAKE = re.compile(r"no fake impl registered for <CustomOpDef\((\S+)\)>")
_NUMPY = ("it leaves torch for numpy", "write it with torch operators")
_SIZE_OF_VALUES = (
    "it makes a size of the values of a tensor",
    "compute sizes from shapes, or do all that uses such sizes in one module below the model, which is kept whole",
)
_UNFOLLOWED = (
    "it computes where torch's tracing does not follow, as on another thread",
    "call it on the thread that calls the model",
)
_NO_CONSTANT = "should have been constant"  # what torch 2.11 says of a size that is made of values
_RUN = "run the model on its example inputs first; if that works, write the line above with torch operators alone"


_NOWHERE = Where()


class NotExported(CaptureError):
    """Code in `where.module` that torch.export does not support: `reason` says what it does."""

    def __init__(
        self,
        reason: str,
        where: Where = _NOWHERE,
        advice: str = _RUN,
        by_values: bool = False,
        cond: sympy.Basic | None = None,
    ) -> None:
        line = f"\n  in {where}" if where.file else ""
        super().__init__(f"the model cannot be exported: {reason}{line}\n  what usually helps: {advice}")
        self.reason = reason
        self.where = where
        self.advice = advice
        self.by_values = by_values  # whether values decide what is computed
        self.cond = cond  # a size or a condition that is not known, as torch calls it in its own errors
        self.origins: frozenset[Any] = frozenset()  # what a call is given that these values are made of

    @property
    def may_be_its_own(self) -> bool:
        """Whether the model itself may raise the error: torch's export has no class for it."""
        return _RUN in self.advice

    def at_derivatives(self, lines: Sequence[Where]) -> NotExported:
        """The error at the first of the `lines` that take derivatives; this one if there is none, or values decide."""
        if not lines or self.by_values:
            return self
        where = replace(lines[0], module=self.where.module)
        return NotExported("it takes derivatives itself", where, "have forward compute without derivatives")

    def advising(self, *more: str) -> NotExported:
        """The same error with more advice."""
        error = NotExported(self.reason, self.where, ", or ".join((self.advice, *more)), self.by_values, self.cond)
        error.origins = self.origins
        return error


def explain(
    error: Exception, model: nn.Module, marks: Marks, input_names: Sequence[str], questions: Sequence[Question]
) -> CaptureError:
    """The error to show to the user, made from what torch.export raised."""
    if own := next((e for e in causes(error) if isinstance(e, CaptureError)), None):
        return own
    if fixed := dict(_fixed_sizes(str(error), marks, input_names, questions)):
        return FixedSizes(fixed, divisors_in(q.asked for q in questions))
    names = {cls.__name__ for e in causes(error) for cls in type(e).__mro__}
    what, advice = next((known for name, known in _KNOWN.items() if name in names), _unknown(error, marks, input_names))
    where = next((w for e in causes(error) if (w := _innermost(e.__traceback__, model)).file), Where())
    if attribute := re.search(r"model attribute: (\S+)\.", str(error)):  # found at the end, far from its line
        where = Where(clean(attribute[1].rpartition(".")[0]))
    if foreign := _FOREIGN.search(str(error)):
        return CaptureError(not_carried(foreign[1], where))
    by_values = not names.isdisjoint(_KNOWN) or _NO_CONSTANT in str(error)
    return NotExported(what, where, advice, by_values)


def raised_itself(error: Exception, model: nn.Module) -> CaptureError:
    """The error to show to the user where the model raises one in a plain call."""
    where = _innermost(error.__traceback__, model)
    line = f"\n  in {where}" if where.file else ""
    return CaptureError(f"the model does not run: called with its example inputs, it raises {_short(error)}{line}")


def _unknown(error: Exception, marks: Marks, input_names: Sequence[str]) -> tuple[str, str]:
    """The reason and the advice for an error that torch has no class for."""
    if _BY_SIZE.search(str(error)):
        return "it looks up a size that may change in a table", _fix_a_size(marks)
    if _SYMBOLIC.search(str(error)):
        return "it calls what torch computes for fixed sizes alone", _fix_a_size(marks)
    if unknown := _WITHOUT_FAKE.search(str(error)):
        return (
            f"the operator {unknown[1]} does not say what it returns where tensors have no data",
            f'register that: torch.library.register_fake("{unknown[1]}")',
        )
    if "but got FakeTensor" in str(error) or _NO_CONSTANT in str(error):
        return _SIZE_OF_VALUES
    if "fake tensor in the exported program" in str(error):
        return _UNFOLLOWED
    return _NUMPY if "numpy" in str(error) else (_in_own_names(_short(error), input_names), _RUN)


def _fix_a_size(marks: Marks) -> str:
    sizes = ", ".join(dict.fromkeys(f"`{mark.name}`" for dims in marks for mark in dims.values()))
    return f"fix that size: leave it out of the dynamic sizes {sizes}"


def _in_own_names(text: str, input_names: Sequence[str]) -> str:
    """A message of torch's with the user's names: of inputs, and of weights without our wrapper's prefix."""

    def named(found: re.Match[str]) -> str:
        place = int(found[1] or found[2])
        return input_names[place] if place < len(input_names) else found[0]

    text = re.sub(r"\btensors_(\d+)\b|L?\[?'?\btensors'?\]?\[(\d+)\]", named, text)
    return re.sub(r"\b(self\.|L\['self'\]\.)?m\.(?=[a-z_]\w*)", "", text)


def _fixed_sizes(
    text: str, marks: Marks, input_names: Sequence[str], questions: Sequence[Question]
) -> Iterator[tuple[tuple[int, int], str]]:
    """Dynamic sizes that torch specialized to constants: tensor and dimension, and the reason in the user's names."""
    pattern = (
        r"marked \S*?(\d+)\S*?\.size\(\)\[(\d+)\] as dynamic but your code specialized it to be a constant \((\d+)\)"
    )
    for tensor, dim, size in re.findall(pattern, text.replace("['", "").replace("']", "")):
        name = marks[int(tensor)][int(dim)].name
        place = f"dimension {dim} of `{input_names[int(tensor)]}`"
        line = next((q.at for q in reversed(questions) if q.fixed == int(size)), "")
        yield (
            (int(tensor), int(dim)),
            f"`{name}` ({place}) cannot be dynamic: the model's code works for {size} alone{line}",
        )


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes, outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _short(error: Exception) -> str:
    """torch's message, shortened, without its hints on debugging torch."""
    text = re.sub(r"\s+", " ", str(error)).strip()
    text = _HINTS.split(text)[0]
    text = re.sub(r"\b(zu|u|s|zuf)\d+\b", lambda m: "a size" if m[1] == "s" else "a value", text)
    return f"{type(error).__name__}: {text[:400].strip()}" if text else type(error).__name__


def _innermost(traceback: TracebackType | None, model: nn.Module) -> Where:
    """The innermost submodule of `model` in the `traceback`, and the last line of code that is not torch's own.

    Tracing calls forward on copies of the modules, which share their attributes with the originals.
    """
    paths = {id(vars(m)): name for name, m in model.named_modules()}
    where = Where()
    while traceback is not None:
        code, variables = traceback.tb_frame.f_code, traceback.tb_frame.f_locals
        owner = variables.get(code.co_varnames[0]) if code.co_argcount else None
        inside = isinstance(owner, nn.Module) and id(vars(owner)) in paths
        if inside:
            where = replace(where, module=paths[id(vars(owner))])
        if (inside or where.file) and not is_torch_file(code.co_filename):
            line = linecache.getline(code.co_filename, traceback.tb_lineno).strip()
            where = Where(where.module, short_path(code.co_filename), traceback.tb_lineno, line)
        traceback = traceback.tb_next
    return where
