"""The tensors of a batch in flight, which stages read at a time of their own: until then nobody may change them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from runtime.errors import InputError


@dataclass(frozen=True)
class Untouched:
    """Tensors by their names, not kept alive, each with its version when the batch was sent."""

    tensors: tuple[tuple[str, weakref.ref[torch.Tensor], int], ...]

    @classmethod
    def of(cls, named: Iterable[tuple[str, torch.Tensor]]) -> Untouched:
        """Those of a batch.  Torch counts no changes of tensors that were made in inference mode."""
        return cls(tuple((n, weakref.ref(t), t._version) for n, t in named if not t.is_inference()))

    def check(self) -> None:
        """Raises InputError for a tensor that was changed in place since."""
        for name, found, version in self.tensors:
            if (tensor := found()) is not None and tensor._version != version:
                raise InputError(
                    f"argument `{name}` was changed in place while its batch was in flight, so stages may have read "
                    "either",
                    "give each batch tensors of its own, such as x.clone()",
                )
