"""Modules on the meta device without the first values that they draw, which their weights replace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class Uninitialized(TorchFunctionMode):
    """A block in which functions of `torch.nn.init` leave tensors without data alone.

    Such tensors have no values, but `normal_`, which embeddings call, imports torch's compiler for them: a second and
    a half of most first stages' time to load.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        filled = given.get("tensor")  # as `torch.nn.init` names it
        if getattr(func, "__module__", "") == nn.init.__name__ and isinstance(filled, Tensor) and filled.is_meta:
            return filled
        return func(*args, **given)
