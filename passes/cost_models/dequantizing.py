"""Cost of a weight that is computed from codes and scales: that of the kernels that its function starts."""

from __future__ import annotations

from functools import reduce
from operator import add

from ir.cost import FREE, Cost
from ir.graph import Call
from ir.sizes import Dim, TensorType


def dequantizing_cost(node: Call) -> Cost:
    """The codes in the dtype of the scale, their product with it, and the product in the dtype of the weight."""
    codes, scale, weight = (v.type for v in (*node.operands, *node.results))
    values = TensorType(codes.shape, scale.dtype)
    kernels = [Cost(0, codes.nbytes + values.nbytes, elements=codes.numel)]
    if any(n % step for n, step in zip(codes.shape, node.arguments["step"], strict=True)):  # a scale for each code
        kernels.append(Cost(0, scale.nbytes + values.nbytes, elements=codes.numel))
        scale = values
    broadcast: Dim = 0 if scale.numel in (1, codes.numel) else codes.numel
    kernels.append(Cost(0, 2 * values.nbytes + scale.nbytes, elements=broadcast))
    if weight.dtype != scale.dtype:
        kernels.append(Cost(0, values.nbytes + weight.nbytes, elements=codes.numel))
    return reduce(add, kernels, FREE)
