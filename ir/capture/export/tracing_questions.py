"""Questions of a model's code whether it is compiled, exported or traced."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, wraps
from types import CodeType, FrameType
from typing import Any
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensor

from ir.capture.export.example import Example
from ir.capture.paths import is_torch_file

_ASKING = "transformers.utils.import_utils"  # passes questions on
_EXPORTING = "is_exporting"
_QUESTIONS = ("is_compiling", _EXPORTING)  # of torch.compiler; is_dynamo_compiling is for Dynamo alone to answer


@contextmanager
def tracing_questions(seen: Callable[[torch.Tensor | None, bool], object], example: Example) -> Iterator[None]:
    """Inside the context, `seen` is called at each question of code that is not torch's own.

    It is given the tensor that the question is about, if there is one, and whether it got the answer of a plain call
    although code that asks if it is compiled does not: code asks for the export alone where it has a slower form that
    other formats can hold.  A function that asks both gets answers that agree.

    Where `example.as_called`, all answers are those of a plain call.  transformers also asks whether a tensor has
    values to look at: in an export only those do that are fixed.
    """
    both: list[tuple[CodeType, int]] = []  # the function that asked last if it is compiled, and its frame

    def watching(name: str, ask: Callable[[], bool]) -> Callable[[], bool]:
        @torch.compiler.assume_constant_result  # where Dynamo traces, as in the functions of a loop
        @wraps(ask)
        def asked() -> bool:
            if is_torch_file(sys._getframe(1).f_code.co_filename):
                return ask()
            asker = _asker(sys._getframe(1))
            alone = name == _EXPORTING and not (example.as_called or example.told_exported or asker in both)
            if name != _EXPORTING:
                both[:] = [asker]
            seen(None, alone)
            return not example.as_called and not alone and ask()

        return asked

    def has_no_values(tensor: Any) -> bool:
        if not isinstance(tensor, FakeTensor):
            return False
        seen(tensor, False)
        return tensor.constant is None

    with ExitStack() as patches:
        for name in _QUESTIONS:
            patches.enter_context(patch.object(torch.compiler, name, watching(name, getattr(torch.compiler, name))))
        if example.as_called and hasattr(asking := sys.modules.get(_ASKING), "is_fake_tensor"):
            patches.enter_context(patch.object(asking, "is_fake_tensor", has_no_values))
        yield


@cache
def look_up_questions() -> None:
    """Have Dynamo look up the functions of torch that it knows, which it does once.

    It is called before any is replaced: Dynamo would know what stands in for it, and no longer the function itself.
    """
    from torch._dynamo import trace_rules  # takes a second to import, which an export does anyway
    from torch._dynamo.variables.torch import TorchInGraphFunctionVariable, tracing_state_functions

    tracing_state_functions()
    trace_rules.get_torch_obj_rule_map()
    TorchInGraphFunctionVariable._get_handlers()


def _asker(frame: FrameType) -> tuple[CodeType, int]:
    """The function that asks, and its frame."""
    while frame.f_globals.get("__name__") == _ASKING and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code, id(frame)
