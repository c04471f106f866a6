"""The step of a decoder that is written for pages: it takes rows and tables, and holds its pools itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from ir.decoding import Decoding
from ir.errors import SourceError
from ir.objects.signature import forward_parameters
from ir.sources.decoder.agreement import AGREES_WITHIN, Agreement, random_weights
from ir.sources.decoder.caches.kept import faked
from ir.sources.decoder.step import DecoderStep, MadeStep, as_step, example_call

_TAKES = ["input_ids", "lengths", "counts", "table"]


def own_step(model: nn.Module, max_length: int | None, page: int | None) -> MadeStep:
    """The step of a module whose `forward(input_ids, lengths, counts, table)` returns logits `[batch, vocabulary]`.

    Its pools are the buffers that it changes, `[pages, page, …]`.  Its attributes `max_length`, `stop` and `pad` are
    those of `Decoding`, where it has them.  Raises SourceError for another module.
    """
    name = type(model).__name__
    if [p.name for p in forward_parameters(model)] != _TAKES:
        raise SourceError(
            f"{name} is no decoder of transformers, and its forward does not take {', '.join(_TAKES)}, as "
            "examples/own_decoder.py does; compile it without --generate"
        )
    longest = max_length or getattr(model, "max_length", None)
    if longest is None:
        raise SourceError(f"how long may a text of {name} be? say --max-length, or give it an attribute `max_length`")
    pools, vocabulary = _found(model)
    size = pools[next(iter(pools))].shape[1]
    if page not in (None, size):
        raise SourceError(f"the pools of {name} have pages of {size} tokens, not {page}")
    stop, pad = tuple(getattr(model, "stop", ())), getattr(model, "pad", 0)
    step = as_step(model, DecoderStep)
    terms = Decoding(size, max_length=longest, vocabulary=vocabulary, stop=stop, pad=pad, pools=tuple(pools))
    _check(name, step, terms, pools)
    return MadeStep(step, terms)


def _found(model: nn.Module) -> tuple[dict[str, torch.Tensor], int]:
    """The buffers that a run on tensors without data changes, by name, and the number of logits."""
    call: dict[str, Any] = {n: t for n, t in example_call(2, 6, {"table": 2}).items() if n in _TAKES}
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with torch.no_grad(), mode:
            tensors = faked(model, mode)
            before = {name: tensor._version for name, tensor in tensors.items()}
            logits = functional_call(model, tensors, (), call)
    except Exception as e:
        raise SourceError(f"{type(model).__name__} does not run on {', '.join(_TAKES)}: {e}") from e
    buffers = {n: b for n, b in model.named_buffers() if tensors[n]._version > before[n]}
    if not buffers or len({b.shape[:2] for b in buffers.values()}) > 1 or any(b.dim() < 3 for b in buffers.values()):
        raise SourceError(
            f"{type(model).__name__} changes no buffers [pages, page, …] of one size, which would be pools"
        )
    return buffers, logits.shape[-1]


def _check(name: str, step: nn.Module, terms: Decoding, pools: dict[str, torch.Tensor]) -> None:
    """Raise SourceError unless texts have the same logits in chunks, beside others, as alone and at once."""
    wide = {name: pool.float() if pool.is_floating_point() else pool for name, pool in pools.items()}
    difference = Agreement(step, terms.tables, wide, terms.page, 0, terms.vocabulary).difference(random_weights(step))
    if difference > AGREES_WITHIN:
        raise SourceError(
            f"{name} returns other logits for a text in chunks, beside others, than alone and at once: they differ by "
            f"{difference:.1%}"
        )
