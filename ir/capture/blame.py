"""Why a model could not be exported: the innermost module, the source line, and what usually helps."""

from __future__ import annotations

import re
from types import TracebackType
from typing import Any

from torch import nn

from ir.capture.dynamic import Marks
from ir.capture.where import is_torch_file, short_path
from ir.errors import CaptureError

_ADVICE = {
    "GuardOnDataDependentSymNode": "the code branches on the values of a tensor; use torch.where, or compute the "
    "condition from shapes alone",
    "UserError": "a size that was declared dynamic is fixed by the code; leave it out of the dynamic shapes, or "
    "write the code for any size",
    "ConstraintViolationError": "a size that was declared dynamic is fixed by the code; leave it out of the dynamic "
    "shapes, or write the code for any size",
    "DynamicOutputShapeException": "an operator's output size depends on values (nonzero, unique, masks); use "
    "torch.where or a fixed size",
    "DataDependentOutputException": "the code reads a value out of a tensor (.item(), int(), bool()); keep it a tensor",
}


def explain(error: Exception, model: nn.Module, marks: Marks) -> CaptureError:
    """The one message that a user needs, from whatever torch.export raised."""
    module, place = _innermost(error.__traceback__, model)
    message = f"{type(model).__name__} cannot be exported: {_first_lines(error)}"
    if place:
        message += f"\n  in {module or 'the model'} ({place})"
    advice = next((text for name, text in _ADVICE.items() if name in _names(error)), "")
    if not advice and not place:
        advice = "check that the model runs on its example inputs"
    if any(marks) and "dynamic" in advice:
        named = sorted({mark.name for dims in marks for mark in dims.values()})
        advice += f" (declared: {', '.join(named)})"
    return CaptureError(f"{message}\n  what usually helps: {advice}" if advice else message)


def _names(error: BaseException | None) -> set[str]:
    """Class names along the chain of causes, torch's kind of user error included."""
    names: set[str] = set()
    while error is not None and len(names) < 50:
        names |= {cls.__name__ for cls in type(error).__mro__}
        error = error.__cause__ or error.__context__
    return names


def _first_lines(error: Exception) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip()
    text = re.sub(r"L\['tensors'\]\[(\d+)\]", r"input \1", text)
    short = text if len(text) <= 400 else text[:400] + " …"
    return f"{type(error).__name__}: {short}" if short else type(error).__name__


def _innermost(traceback: TracebackType | None, model: nn.Module) -> tuple[str, str]:
    """Path of the innermost submodule in the traceback, and the last line of code that is not torch's own."""
    paths: dict[int, str] = {id(m): name for name, m in model.named_modules()}
    module, place = "", ""
    while traceback is not None:
        frame: Any = traceback.tb_frame
        owner = frame.f_locals.get("self")
        inside = isinstance(owner, nn.Module) and id(owner) in paths
        if inside:
            module = paths[id(owner)]
        if (inside or place) and not is_torch_file(frame.f_code.co_filename):
            place = f"{short_path(frame.f_code.co_filename)}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return module, place
