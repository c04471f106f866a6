"""Functions under `torch.jit.script`, recorded from the Python that they were made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch

_SOURCE = "_torchdynamo_inline"  # where torch keeps that for TorchDynamo


@contextmanager
def scripted_as_written() -> Iterator[None]:
    """Inside the context, such a function runs as Python: TorchScript knows no size that may change.

    Once it has seen a call, it reads the sizes of tensors without data as those of the example.
    """
    compiled = torch.jit.ScriptFunction.__call__

    def called(function: torch.jit.ScriptFunction, /, *args: Any, **kwargs: Any) -> Any:
        written = getattr(function, _SOURCE, None)
        return compiled(function, *args, **kwargs) if written is None else written(*args, **kwargs)

    with patch.object(torch.jit.ScriptFunction, "__call__", called):
        yield
