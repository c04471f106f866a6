"""Questions of forward about torch's ambient state, whose answers a recording holds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch

from ir.capture.paths import in_library, is_torch_file, short_path

_ASKED = {
    "is_grad_enabled": "without gradients",
    "is_inference_mode_enabled": "outside of inference mode",
    "get_num_threads": "with as many threads as torch has here",
}


@contextmanager
def ambient_questions(seen: Callable[[str], object]) -> Iterator[None]:
    """Inside the context, `seen` gets a note on each question that code of the user's own asks."""

    def watching(name: str, ask: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(ask)
        def asked(*args: Any, **kwargs: Any) -> Any:
            file, line = sys._getframe(1).f_code.co_filename, sys._getframe(1).f_lineno
            if not (is_torch_file(file) or in_library(file)):
                stages = f"stages compute what the model does {_ASKED[name]}"
                seen(f"forward asks for torch.{name}() at {short_path(file)}:{line}: {stages}")
            return ask(*args, **kwargs)

        return asked

    with ExitStack() as patches:
        for name in _ASKED:
            patches.enter_context(patch.object(torch, name, watching(name, getattr(torch, name))))
        yield
