"""`stagecut::paged`: attention over pages as an operator of graphs."""

from __future__ import annotations

import torch

from ir.graph import Call, Node
from ir.paged import attention
from ir.sizes import Dim

torch.library.custom_op(
    "stagecut::paged", attention.paged_attention, mutates_args=(), schema=attention.ATTENTION_SCHEMA
).register_fake(attention.like_attention)
PAGED_ATTENTION = torch.ops.stagecut.paged.default


def is_paged(node: Node) -> bool:
    """Whether a node is attention over pages."""
    return isinstance(node, Call) and node.op == PAGED_ATTENTION


def keys_read(node: Call) -> Dim:
    """The keys of each head in the pages of all rows, of which attention over pages reads those that rows have."""
    rows, pages = node.arguments["table"].type.shape
    return rows * pages * node.arguments["keys"].type.shape[1]
