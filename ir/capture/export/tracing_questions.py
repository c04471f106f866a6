"""Questions of a model's code whether it is compiled, exported or traced."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensor

from ir.capture.paths import is_torch_file

_QUESTIONS = ("is_compiling", "is_exporting")  # of torch.compiler; is_dynamo_compiling is for Dynamo alone to answer


@contextmanager
def tracing_questions(seen: Callable[[torch.Tensor | None], object], as_called: bool) -> Iterator[None]:
    """Inside the context, `seen` is called at each question of code that is not torch's own.

    It is given the tensor that the question is about, if there is one.

    Where `as_called`, the answers are those of a plain call.  transformers also asks whether a tensor has values to
    look at: in an export only those do that are fixed.
    """

    def watching(ask: Callable[[], bool]) -> Callable[[], bool]:
        @torch.compiler.assume_constant_result  # where Dynamo traces, as in the functions of a loop
        @wraps(ask)
        def asked() -> bool:
            if is_torch_file(sys._getframe(1).f_code.co_filename):
                return ask()
            seen(None)
            return not as_called and ask()

        return asked

    def has_no_values(tensor: Any) -> bool:
        if not isinstance(tensor, FakeTensor):
            return False
        seen(tensor)
        return tensor.constant is None

    with ExitStack() as patches:
        for name in _QUESTIONS:
            patches.enter_context(patch.object(torch.compiler, name, watching(getattr(torch.compiler, name))))
        if as_called and hasattr(asking := sys.modules.get("transformers.utils.import_utils"), "is_fake_tensor"):
            patches.enter_context(patch.object(asking, "is_fake_tensor", has_no_values))
        yield
