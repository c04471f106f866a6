"""Linear layers whose weights oneDNN has packed: a step of few rows takes half the time on a CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import torch
from torch import Tensor, nn

_LEAST = 1 << 18  # numbers of a weight, below which the 14 µs that a call costs more are not worth it


class PackedLinear(nn.Module):
    """A linear layer with a packed weight.  It returns what `nn.Linear` returns, up to rounding, without gradients."""

    def __init__(self, packed: Tensor, bias: Tensor | None) -> None:
        """`packed`: the weight `[out, in]`, as `packed_weight` returns it; `bias`: `[out]`."""
        super().__init__()
        self._packed, self._bias = packed, None if bias is None else bias.detach()

    @property
    def weight(self) -> Tensor:
        """`[out, in]`, unpacked: a copy."""
        return self._packed.to_dense()

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")


def packed_weight(weight: Tensor) -> Tensor:
    """A weight `[out, in]` in the layout in which oneDNN reads it."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)


def pack_linear(modules: Sequence[nn.Module]) -> None:
    """Pack the large weights of linear layers of the programs of a stage, in place; one that several read, once.

    A weight that layers of other kinds read, as an embedding does, stays as it is.
    """
    if not torch.backends.mkldnn.is_available():
        return
    linears = [found for module in modules for found in _linears(module)]
    readers = Counter(_place(p) for module in modules for _, p in module.named_parameters(remove_duplicate=False))
    here = Counter(_place(linear.weight) for _, _, linear in linears)
    packed: dict[Hashable, Tensor] = {}
    for owner, name, linear in linears:
        place = _place(linear.weight)
        if readers[place] == here[place] and _pays(linear.weight):
            packed[place] = packed[place] if place in packed else packed_weight(linear.weight)
            setattr(owner, name, PackedLinear(packed[place], linear.bias))


def _place(tensor: Tensor) -> Hashable:
    """A key that tensors over the same numbers have in common."""
    return tensor.data_ptr(), tensor.shape


def _linears(module: nn.Module) -> Iterable[tuple[nn.Module, str, nn.Linear]]:
    """The linear layers inside a module, with their owners and their names there."""
    return ((m, n, c) for m in module.modules() for n, c in m.named_children() if type(c) is nn.Linear)


def _pays(weight: Tensor) -> bool:
    supported = weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    return supported and weight.numel() >= _LEAST
