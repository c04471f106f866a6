"""Small tensors of the host that lie in one piece of memory, so that one copy brings all of them to a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

PACK_ALIGNMENT = 8  # bytes, of each tensor in a pack
LARGEST_PACK = 1 << 16  # bytes of a pack: one that has more is copied tensor by tensor, as few of them may be wanted
LARGEST_PACKED = LARGEST_PACK >> 2  # bytes of a tensor that is packed to be copied again with others that change

PlaceInMemory = tuple[torch.dtype, Sequence[int], tuple[int, ...], int]
"""The dtype, shape and strides of a tensor in a piece of memory, and the number of its elements that fit before it."""

_copy_all: Any = getattr(torch, "_foreach_copy_")  # noqa: B009 - torch's stubs lack it


@dataclass(frozen=True, eq=False)
class Pack:
    """Tensors of the host, by their names, in one piece of memory.  None of them changes once others have the pack."""

    tensors: Mapping[str, Tensor]
    memory: Tensor  # uint8[bytes]: all of it
    places: Sequence[PlaceInMemory]  # of the tensors
    layout: str  # equal for packs whose tensors have the same names and offsets; text is hashed once

    @classmethod
    def of(cls, named: Mapping[str, Tensor]) -> Pack:
        """Copies of dense tensors of the host, of which there is one at least."""
        memory, copies, offsets = _together([*named.values()])
        places = _places(copies, offsets)
        return cls(dict(zip(named, copies, strict=True)), memory, places, f"{[*named, *offsets, memory.nbytes]}")

    @classmethod
    def of_small(cls, named: Mapping[str, Tensor]) -> Pack | None:
        """Those that are small, as many of the first as make a pack; None where these are less than two."""
        small, room = dict[str, Tensor](), LARGEST_PACK
        for name, tensor in named.items():
            if (nbytes := _room(tensor)) <= min(room, LARGEST_PACKED):
                small[name] = tensor
                room -= nbytes
        return cls.of(small) if len(small) > 1 else None

    def changed(self, named: Mapping[str, Tensor]) -> Pack:
        """The same in another piece of memory, with those of other tensors that are in the pack by their names."""
        memory = host_memory(self.memory.nbytes).copy_(self.memory)
        copies = dict(zip(self.tensors, views_at(self.places, memory), strict=True))
        for name, tensor in named.items():
            if name in copies:
                copies[name].copy_(tensor)
        return Pack(copies, memory, self.places, self.layout)


def one_pack(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies of dense tensors of the host in one piece of memory, from which accelerators copy on their own."""
    return _together(tensors)[1] if tensors else []


def _together(tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor], list[int]]:
    """A piece of memory, the copies of tensors in it, and their offsets in bytes."""
    *offsets, end = accumulate(map(_room, tensors), initial=0)
    memory = host_memory(end)
    copies = views(memory, tensors, offsets)
    _copy_all(copies, tensors)
    return memory, copies, offsets


def _room(tensor: Tensor) -> int:
    """The bytes that a tensor takes in a pack."""
    return -(-tensor.nbytes // PACK_ALIGNMENT) * PACK_ALIGNMENT


def host_memory(nbytes: int) -> Tensor:
    """uint8[bytes]: memory of the host from which accelerators copy on their own."""
    return torch.empty(nbytes, dtype=torch.uint8, pin_memory=torch.accelerator.is_available())


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


def as_stored(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of one whose memory holds conjugate or negative numbers in place of its own."""
    return tensor.resolve_conj().resolve_neg()


def whole_memory(tensor: Tensor) -> Tensor:
    """uint8[bytes]: all of the memory that a tensor lies in."""
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())


def views(memory: Tensor, like: Sequence[Tensor], offsets: Sequence[int]) -> list[Tensor]:
    """Tensors of the shapes, strides and dtypes of others, at these offsets in a piece of memory."""
    return views_at(_places(like, offsets), memory)


def _places(tensors: Sequence[Tensor], offsets: Sequence[int]) -> list[PlaceInMemory]:
    """The places of tensors that lie at these offsets, in bytes."""
    return [(t.dtype, t.shape, t.stride(), at // t.itemsize) for t, at in zip(tensors, offsets, strict=True)]


def views_at(places: Sequence[PlaceInMemory], memory: Tensor) -> list[Tensor]:
    """Tensors at places in a piece of memory."""
    made, typed = list[Tensor](), dict[torch.dtype, Tensor]()
    for dtype, shape, stride, start in places:
        if (whole := typed.get(dtype)) is None:
            empty, count = torch.empty(0, dtype=dtype, device=memory.device), memory.nbytes // dtype.itemsize
            whole = typed[dtype] = empty.set_(memory.untyped_storage(), 0, (count,), (1,))
        made.append(whole.as_strided(shape, stride, start))
    return made


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
