"""capture() for a model that may have been captured before."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ir.capture.kept.fingerprint import fingerprint
from ir.capture.kept.store import Kept, find, keep
from ir.capture.model import capture
from ir.capture.sizes.dynamic import DynamicShapes
from ir.capture.warn import heard, warn
from ir.graph import Graph
from ir.objects.signature import FixedTensor, bind, flatten, forward_parameters


def capture_once(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    dynamic_shapes: DynamicShapes,
    soft: bool,
    fix: Collection[str],
) -> tuple[Graph, bool]:
    """The result of `capture`, and whether it was kept from an earlier run.

    A graph with modules that are kept whole is captured each time, as it refers to the model.
    """
    key = fingerprint(model, (args, kwargs, dynamic_shapes, soft, _named_values(model, args, kwargs, fix)))
    kept = None if key is None else find(key, Kept)
    if kept is not None and _holds(kept.graph, model, args, kwargs):
        for message in kept.warnings:
            warn(message)
        return kept.graph, True
    with heard() as messages:
        graph = capture(model, args, kwargs, dynamic_shapes=dynamic_shapes, soft=soft, fix=fix)
    if key is not None and not graph.whole:
        keep(key, Kept(graph, tuple(messages)))
    return graph, False


def _named_values(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], names: Collection[str]
) -> list[tuple[str, Any]]:
    """The values of the inputs that are fixed by name: variants differ in them alone."""
    try:
        arguments = bind(forward_parameters(model), args, kwargs)
    except TypeError:  # which capture words
        arguments = {}
    tensors = ((name, arguments.get(name)) for name in names)
    return [(name, t.tolist() if isinstance(t, torch.Tensor) else None) for name, t in tensors]


def _holds(graph: Graph, model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether the inputs whose values a graph depends on have these values."""
    leaves, _ = flatten(bind(forward_parameters(model), args, kwargs))
    return all(
        isinstance(leaf, torch.Tensor) and torch.equal(leaf, known.tensor())
        for leaf, known in zip(leaves, graph.signature.arguments.leaves, strict=True)
        if isinstance(known, FixedTensor)
    )
