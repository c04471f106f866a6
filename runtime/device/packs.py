"""Small tensors of the host that lie in one piece of memory, so that one copy brings all of them to a device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

PACK_ALIGNMENT = 8  # bytes, of each tensor in a pack
LARGEST_PACK = 1 << 16  # bytes of a pack: one that has more is copied tensor by tensor, as few of them may be wanted


def one_pack(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies of dense tensors of the host in one piece of memory, from which accelerators copy on their own."""
    if not tensors:
        return []
    offsets, end = list[int](), 0
    for tensor in tensors:
        offsets.append(end)
        end += -(-tensor.nbytes // PACK_ALIGNMENT) * PACK_ALIGNMENT
    memory = torch.empty(end, dtype=torch.uint8, pin_memory=torch.accelerator.is_available())
    copies = views(memory, tensors, offsets)
    for copy, tensor in zip(copies, tensors, strict=True):
        copy.copy_(tensor)
    return copies


def packs_of(tensors: Sequence[Tensor]) -> list[list[int]]:
    """The indices of those that lie in one small piece of memory, in lists of two and more."""
    found: dict[tuple[torch.device, int], list[int]] = {}
    for i, tensor in enumerate(tensors):
        if tensor.nbytes <= LARGEST_PACK:
            found.setdefault((tensor.device, tensor.untyped_storage().data_ptr()), []).append(i)
    return [pack for pack in found.values() if len(pack) > 1 and _are_apart([tensors[i] for i in pack])]


def offsets_in_memory(tensors: Sequence[Tensor]) -> list[int]:
    """The offsets of tensors in their memory, in bytes."""
    return [int(tensor.storage_offset()) * tensor.itemsize for tensor in tensors]


def is_as_stored(tensor: Tensor) -> bool:
    """Whether the elements of a tensor lie in its memory in their order, and as they are."""
    return tensor.is_contiguous() and not (tensor.is_conj() or tensor.is_neg())


def whole_memory(tensor: Tensor) -> Tensor:
    """uint8[bytes]: all of the memory that a tensor lies in."""
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())


def views(memory: Tensor, like: Sequence[Tensor], offsets: Sequence[int]) -> list[Tensor]:
    """Tensors of the shapes, strides and dtypes of others, at these offsets in a piece of memory."""
    storage = memory.untyped_storage()
    return [
        torch.empty(0, dtype=tensor.dtype, device=memory.device).set_(
            storage, offset // tensor.itemsize, tensor.shape, tensor.stride()
        )
        for tensor, offset in zip(like, offsets, strict=True)
    ]


def _are_apart(tensors: Sequence[Tensor]) -> bool:
    """Whether tensors of one small piece of memory share no byte, and each is what lies at its offset."""
    if tensors[0].untyped_storage().nbytes() > LARGEST_PACK:
        return False
    end = 0
    for start, tensor in sorted(zip(offsets_in_memory(tensors), tensors, strict=True), key=lambda pair: pair[0]):
        if start < end or not is_as_stored(tensor):
            return False
        end = start + tensor.nbytes
    return True
