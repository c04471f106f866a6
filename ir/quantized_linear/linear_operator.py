"""`stagecut::quantized_linear`: a linear layer over a quantized weight as an operator of graphs."""

from __future__ import annotations

import torch

from ir.graph import Call, Node
from ir.quantized_linear import linear

assert linear.quantized_linear  # whose module registers the operator
QUANTIZED_LINEAR = torch.ops.stagecut.quantized_linear.default


def is_quantized_linear(node: Node) -> bool:
    """Whether a node is a linear layer over a quantized weight."""
    return isinstance(node, Call) and node.op == QUANTIZED_LINEAR
