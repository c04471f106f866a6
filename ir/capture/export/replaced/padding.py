"""nn.TransformerEncoder under a padding mask, as it computes in inference: exports take another path through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

NOTE = (
    "nn.TransformerEncoder returns 0 at padded positions in inference, and so do the stages; with gradients on, the "
    "model leaves values there"
)


@contextmanager
def padded_as_in_inference(seen: Callable[[str], object] = str) -> Iterator[None]:
    """Have nn.TransformerEncoder put 0 at padded positions inside the context, as its nested tensors do in inference.

    `seen` is given a note where one does.
    """
    plain, fused = nn.TransformerEncoder.forward, torch.backends.mha.get_fastpath_enabled()

    @wraps(plain)
    def encoded(
        encoder: nn.TransformerEncoder,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Any:
        nests = fused and encoder.use_nested_tensor and not encoder.layers[0].training
        plainly = torch.is_autocast_enabled() or src.dim() != 3 or mask is not None
        if not nests or plainly or src_key_padding_mask is None:
            return plain(encoder, src, mask, src_key_padding_mask, is_causal)
        seen(NOTE)
        valid = src_key_padding_mask == 0
        norm, encoder.norm = encoder.norm, None  # it comes after the zeros
        try:
            with without_fused_layers():
                output = plain(encoder, src, None, src_key_padding_mask, is_causal)
        finally:
            encoder.norm = norm
        output = output.masked_fill(_zeroed(valid, encoder.mask_check)[..., None], 0.0)
        return output if norm is None else norm(output)

    with patch.object(nn.TransformerEncoder, "forward", encoded):
        yield


def _zeroed(valid: Tensor, checks: bool) -> Tensor:
    """The positions that become 0: the padded ones, if in all rows they come last or nothing `checks` that."""
    if not checks:
        return ~valid
    return ~valid & (valid[:, 1:] <= valid[:, :-1]).all()


@contextmanager
def without_fused_layers() -> Iterator[None]:
    """Turn torch's fused layers off inside the context: neither exports nor fake tensors can run them."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
