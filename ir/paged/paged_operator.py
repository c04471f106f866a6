"""`stagecut::paged_attention`: attention over pages as an operator of graphs."""

from __future__ import annotations

from typing import Any

import torch

from ir.graph import Call, Node
from ir.paged.attention import paged_attention
from ir.sizes import Dim

_LIBRARY = torch.library.Library("stagecut", "FRAGMENT")
_LIBRARY.define(
    "paged_attention(Tensor query, Tensor keys, Tensor values, Tensor table, Tensor last, *, float scale, "
    "int window=0, float cap=0.0, Tensor? slopes=None, Tensor? sinks=None) -> Tensor"
)
PAGED_ATTENTION = torch.ops.stagecut.paged_attention.default


@torch.library.impl(_LIBRARY, "paged_attention", "CompositeExplicitAutograd")
def _run(*args: Any, **options: Any) -> torch.Tensor:
    return paged_attention(*args, **options)


@torch.library.register_fake("stagecut::paged_attention", lib=_LIBRARY)
def _type(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    batch, heads, seq, _dim = query.shape
    return values.new_empty(batch, seq, heads, values.shape[-1]).transpose(1, 2)


def is_paged(node: Node) -> bool:
    """Whether a node is attention over pages."""
    return isinstance(node, Call) and node.op == PAGED_ATTENTION


def keys_read(node: Call) -> Dim:
    """The keys of each head in the pages of all rows, of which attention over pages reads those that rows have."""
    rows, pages = node.arguments["table"].type.shape
    return rows * pages * node.arguments["keys"].type.shape[1]
