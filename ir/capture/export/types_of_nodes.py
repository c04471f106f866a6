"""The types of recorded tensors, which torch keeps as copies without data.

torch makes each copy by an operator that it first offers to all that watches the functions of a model; none is of the
model.  It describes each one once more, for code that knows no such copies, and of this an export has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch._C import DisableTorchFunction
from torch.fx.experimental import proxy_tensor


@contextmanager
def types_without_functions() -> Iterator[None]:
    """Inside the context the copies that torch keeps of the types of recorded tensors are made in less time."""
    snapshot = proxy_tensor.snapshot_fake

    def snapshot_fake(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor | None:
        with DisableTorchFunction():
            return snapshot(tensor, *args, **kwargs)

    with (
        patch.object(proxy_tensor, "snapshot_fake", snapshot_fake),
        patch.object(proxy_tensor, "_extract_tensor_metadata", lambda *_: None),
    ):
        yield
