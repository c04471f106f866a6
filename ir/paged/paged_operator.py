"""`stagecut::paged_attention`: attention over pages as an operator of graphs."""

from __future__ import annotations

import torch

from ir.graph import Call, Node
from ir.paged import attention
from ir.sizes import Dim

assert attention.paged_attention  # whose module registers the operator
PAGED_ATTENTION = torch.ops.stagecut.paged_attention.default


def is_paged(node: Node) -> bool:
    """Whether a node is attention over pages."""
    return isinstance(node, Call) and node.op == PAGED_ATTENTION


def keys_read(node: Call) -> Dim:
    """The keys of each head in the pages of all rows, of which attention over pages reads those that rows have."""
    rows, pages = node.arguments["table"].type.shape
    return rows * pages * node.arguments["keys"].type.shape[1]
