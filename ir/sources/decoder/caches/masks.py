"""transformers' attention masks for rows of different lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, causal_mask_function, eager_mask


@contextmanager
def masks_of_rows() -> Iterator[None]:
    """Inside the context, transformers makes its masks from the positions of each row."""
    with _replaced(_of_rows):
        yield


@contextmanager
def masks_always_made() -> Iterator[None]:
    """Inside the context, transformers makes causal masks, too, where torch's attention could be told `is_causal`.

    Code that adds a bias to the mask, as UMT5's does, otherwise looks ahead where it has no cache and no padding.
    """
    with _replaced(lambda plain: lambda *given, **named: plain(*given, **{**named, "allow_is_causal_skip": False})):
        yield


@contextmanager
def _replaced(other: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Inside the context, transformers makes its masks by others than its own functions."""
    masks = ALL_MASK_ATTENTION_FUNCTIONS
    for name in ("sdpa", "eager"):
        masks[name] = other(masks[name])
    try:
        yield
    finally:
        for name in ("sdpa", "eager"):
            del masks[name]  # the interface's own is there again


def _of_rows(plain: Callable[..., Any]) -> Callable[..., Any]:
    """A mask function of transformers that takes positions `[batch, seq]` as the offset of the queries.

    Padding has one that some key is before.
    """

    def mask(
        batch_size: int,
        q_length: int,
        kv_length: int,
        q_offset: Any = 0,
        kv_offset: Any = 0,
        mask_function: Callable[..., Any] = causal_mask_function,
        attention_mask: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: Any = "cpu",
        **others: Any,
    ) -> Any:
        if not isinstance(q_offset, Tensor) or q_offset.dim() != 2:
            given = {"q_offset": q_offset, "kv_offset": kv_offset, "mask_function": mask_function, "dtype": dtype}
            return plain(
                batch_size, q_length, kv_length, attention_mask=attention_mask, device=device, **given, **others
            )
        keys = torch.arange(kv_length, device=device)[None]
        if isinstance(kv_offset, Tensor):
            keys = keys + kv_offset[:, None]
        batch = torch.arange(batch_size, device=device)[:, None, None, None]
        head = torch.zeros(1, dtype=torch.int64, device=device)[:, None, None, None]
        allowed = mask_function(batch, head, q_offset[:, None, :, None], keys[:, None, None, :])
        allowed = allowed.expand(batch_size, -1, q_length, kv_length)
        if plain is eager_mask:
            return torch.where(allowed, torch.zeros((), dtype=dtype), torch.finfo(dtype).min)
        return allowed

    return mask
