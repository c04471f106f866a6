"""Types of an exported program's results, over the sizes that the user named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ir.capture.diagnosis import NotExported
from ir.capture.sizes.symbols import NamedSizes
from ir.capture.source_lines.where import where_of
from ir.location import Where
from ir.sizes import Dim, TensorType


@dataclass(frozen=True)
class Types:
    """Reads types and sizes; raises NotExported for a size that depends on values, and for a sparse tensor."""

    sizes: NamedSizes

    def size(self, value: Any, node: fx.Node | None) -> Dim:
        """A size of torch as ours."""
        expr = self.sizes.read(value)
        if expr is None:
            advice = "torch.where or a mask of fixed size in place of indexing by nonzero, .item()"
            where = where_of(node) if node is not None else Where()
            what = "a size depends on the values of a tensor, not on the shapes of the inputs"
            raise NotExported(what, where, advice, by_values=True, cond=value.node.expr)
        return expr

    def type_of(self, node: fx.Node) -> TensorType:
        """The type of the one tensor that a node makes."""
        return self.of_value(node.meta["val"], node)

    def of_value(self, value: Any, node: fx.Node) -> TensorType:
        """The type of one of the values that a node makes."""
        if not isinstance(value, torch.Tensor):  # a size among the results: nothing reads it as a tensor
            return TensorType((), torch.int64)
        if value.layout is not torch.strided:
            layout = str(value.layout).removeprefix("torch.")
            raise NotExported(f"it makes a sparse tensor ({layout})", where_of(node), "make it dense: .to_dense()")
        return TensorType(tuple(self.size(d, node) for d in value.shape), value.dtype)
