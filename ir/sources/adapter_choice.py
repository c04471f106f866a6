"""The example of a model that keeps adapters: an index of one for each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from ir.checkpoint.adapters.kept import CHOICE, adapter_names
from ir.errors import SourceError
from ir.objects.signature import forward_parameters
from ir.sources.source import Source


def with_adapter_choice(source: Source) -> Source:
    """The source, whose call names an adapter for each row, those of its first tensor, where its model keeps some.

    Raises SourceError where calls have several forms.
    """
    names = adapter_names(source.model)
    if not names:
        return source
    if source.variants:
        raise SourceError("variants go without --adapter keep: leave it out to merge the adapter")
    tensors = [x for x in tree_leaves((source.args, dict(source.kwargs))) if isinstance(x, torch.Tensor) and x.dim()]
    rows = tensors[0].shape[0] if tensors else 1
    kwargs = {**source.kwargs, CHOICE: torch.arange(rows) % (len(names) + 1)}
    return replace(source, kwargs=kwargs, dynamic_shapes=_shapes(source), adapters=names)


def require_choice(source: Source) -> Source:
    """The source; raises SourceError where its model keeps adapters, and a variant names none: no call would fit it."""
    without = next((call.name for call in source.variants if source.adapters and CHOICE not in call.kwargs), "")
    if without:
        raise SourceError(
            f"variant {without} chooses no adapter: give its call `{CHOICE}`, the index of one for each row, or leave "
            "out --adapter keep to merge the adapter"
        )
    return source


def _shapes(source: Source) -> Any:
    """The sizes that may change, with that of the rows among them if it does."""
    shapes = source.dynamic_shapes
    if isinstance(shapes, Sequence) and not isinstance(shapes, str):
        shapes = dict(zip((p.name for p in forward_parameters(source.model)), shapes, strict=False))
    if not isinstance(shapes, Mapping):
        return shapes
    first = next((of for of in shapes.values() if isinstance(of, Mapping) and 0 in of), None)
    return shapes if first is None else {**shapes, CHOICE: {0: first[0]}}
