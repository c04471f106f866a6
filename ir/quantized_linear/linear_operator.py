"""`stagecut::stored_linear`: a linear layer over a quantized weight as an operator of graphs."""

from __future__ import annotations

import torch

from ir.graph import Call, Node
from ir.quantized_linear import linear

torch.library.custom_op(
    "stagecut::stored_linear", linear.quantized_linear, mutates_args=(), schema=linear.PRODUCT_SCHEMA
).register_fake(linear.like_product)
QUANTIZED_LINEAR = torch.ops.stagecut.stored_linear.default


def is_quantized_linear(node: Node) -> bool:
    """Whether a node is a linear layer over a quantized weight."""
    return isinstance(node, Call) and node.op == QUANTIZED_LINEAR
