"""The adapters of a call's rows: from names to the input `adapter` of an artifact that keeps some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from runtime.errors import InputError
from runtime.manifest.manifest import ADAPTER


@dataclass(frozen=True)
class AdapterNames:
    """The names of an artifact's adapters, in their order; the index of the first one is 1."""

    names: tuple[str, ...] = ()

    def index(self, name: str | None) -> int:
        """The index of an adapter; 0 for None.  Raises InputError for one that there is not."""
        if name is None:
            return 0
        if name not in self.names:
            known = f"there are {', '.join(self.names)}" if self.names else "this artifact keeps none"
            raise InputError(f"there is no adapter {name!r}; {known}")
        return self.names.index(name) + 1

    def given(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The keywords of a call with the indices of adapters in place of names, or of nothing, which is none.

        A name is for all rows, those of the first tensor, a list has a name or None for each.  Raises InputError.
        """
        chosen = kwargs.get(ADAPTER)
        if not self.names or isinstance(chosen, torch.Tensor):
            return kwargs
        if isinstance(chosen, (list, tuple)):
            return {**kwargs, ADAPTER: torch.tensor(list(map(self.index, chosen)))}
        others = {name: value for name, value in kwargs.items() if name != ADAPTER}
        rows = next((x.shape[0] for x in tree_leaves((args, others)) if isinstance(x, torch.Tensor) and x.dim()), 1)
        return {**kwargs, ADAPTER: torch.full((rows,), self.index(chosen))}
