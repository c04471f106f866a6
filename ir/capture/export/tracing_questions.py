"""Questions of a model's code whether it is compiled, exported or traced."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from unittest.mock import patch

import torch

from ir.capture.paths import is_torch_file

_QUESTIONS = ("is_compiling", "is_exporting", "is_dynamo_compiling")  # of torch.compiler


@contextmanager
def tracing_questions(seen: Callable[[], object], as_called: bool) -> Iterator[None]:
    """Inside the context, `seen` is called at each question of code that is not torch's own.

    Where `as_called`, the answers are those of a plain call.  transformers also asks whether a tensor has values to
    look at: those of an export have none, so that answer stays.
    """

    def watching(ask: Callable[[], bool]) -> Callable[[], bool]:
        @wraps(ask)
        def asked() -> bool:
            if is_torch_file(sys._getframe(1).f_code.co_filename):
                return ask()
            seen()
            return not as_called and ask()

        return asked

    with ExitStack() as patches:
        for name in _QUESTIONS:
            patches.enter_context(patch.object(torch.compiler, name, watching(getattr(torch.compiler, name))))
        yield
