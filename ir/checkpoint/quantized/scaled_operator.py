"""`stagecut::dequantized`: a weight of codes and scales as one operator of graphs, and as a function in stage files."""

from __future__ import annotations

import inspect

import torch

from ir.graph import Call, Node


def dequantize(codes: torch.Tensor, scale: torch.Tensor, step: list[int], dtype: torch.dtype) -> torch.Tensor:
    """The weight: codes [rows, columns], each times the scale of its block of `step` rows and columns."""
    (rows, columns), (height, width) = codes.shape, step
    down, across = -(-rows // height), -(-columns // width)
    values, scale = codes.to(scale.dtype), scale.reshape(down, 1, across, 1)
    if rows % height or columns % width:  # the last blocks are smaller
        scale = scale.expand(down, height, across, width).reshape(down * height, across * width)
        return values.mul_(scale[:rows, :columns]).to(dtype)
    return values.reshape(down, height, across, width).mul_(scale).reshape(rows, columns).to(dtype)


DEQUANTIZED_SOURCE = inspect.getsource(dequantize).rstrip()

_LIBRARY = torch.library.Library("stagecut", "FRAGMENT")
_LIBRARY.define("dequantized(Tensor codes, Tensor scale, int[] step, ScalarType dtype) -> Tensor")
_LIBRARY.impl("dequantized", dequantize, "CompositeExplicitAutograd")
DEQUANTIZED = torch.ops.stagecut.dequantized.default


@torch.library.register_fake("stagecut::dequantized", lib=_LIBRARY)
def _like_weight(codes: torch.Tensor, scale: torch.Tensor, step: list[int], dtype: torch.dtype) -> torch.Tensor:
    return codes.new_empty(codes.shape, dtype=dtype)


def is_dequantized(node: Node) -> bool:
    """Whether a node computes a weight from codes and scales."""
    return isinstance(node, Call) and node.op == DEQUANTIZED
