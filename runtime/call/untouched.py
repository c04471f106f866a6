"""The tensors of a batch in flight, which stages read at a time of their own: until then nobody may change them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from runtime.errors import InputError

_SAMPLE = 1024  # elements, or up to twice as many


@dataclass(frozen=True)
class _Sent:
    """A tensor when its batch was sent.

    A slice of a buffer may be sent while the next one is filled: both have one version, so some elements are compared,
    too.
    """

    name: str
    witness: torch.Tensor  # has the version of the tensor, and its memory only if that is a slice
    version: int
    sample: torch.Tensor | None  # of a slice

    @classmethod
    def of(cls, name: str, tensor: torch.Tensor) -> _Sent:
        witness = tensor.detach()
        if _is_slice(tensor):
            return cls(name, witness, tensor._version, _sample(witness))
        witness.data = tensor.new_empty(0)
        return cls(name, witness, tensor._version, None)

    @property
    def is_changed(self) -> bool:
        if self.witness._version == self.version:
            return False
        return self.sample is None or not torch.equal(self.sample, _sample(self.witness))


@dataclass(frozen=True)
class Untouched:
    """The tensors of a batch by their names."""

    tensors: tuple[_Sent, ...]

    @classmethod
    def of(cls, named: Iterable[tuple[str, torch.Tensor]]) -> Untouched:
        """Those of a batch that can be checked.

        Torch counts no changes of tensors that were made in inference mode.  An accelerator would be waited for to read
        what a slice holds.
        """
        return cls(tuple(_Sent.of(name, tensor) for name, tensor in named if _can_be_checked(tensor)))

    def check(self) -> None:
        """Raises InputError for a tensor that was changed in place since."""
        for sent in self.tensors:
            if sent.is_changed:
                raise InputError(
                    f"argument `{sent.name}` was changed in place while its batch was in flight, so stages may have "
                    "read either",
                    "give each batch tensors of its own, such as x.clone()",
                )


def _can_be_checked(tensor: torch.Tensor) -> bool:
    return not tensor.is_inference() and (tensor.device.type == "cpu" or not _is_slice(tensor))


def _is_slice(tensor: torch.Tensor) -> bool:
    return tensor.nbytes < tensor.untyped_storage().nbytes()


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of some elements, at even distances in memory."""
    flat = tensor.permute(sorted(range(tensor.dim()), key=tensor.stride, reverse=True)).flatten()
    some = flat[:: max(len(flat) // _SAMPLE, 1)]  # where it is one element, a plain clone keeps any stride
    return some.clone(memory_format=torch.contiguous_format).view(torch.uint8)
