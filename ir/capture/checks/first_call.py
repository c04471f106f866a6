"""A graph on its example, beside what a call of the model returned for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ir.capture.checks.second_input import results_of
from ir.capture.export.example import Example
from ir.capture.unregistered_state.snapshots import is_near
from ir.graph import Call, Graph


def differs_on_example(graph: Graph, example: Example, returned: Sequence[Any]) -> str:
    """The result in which a graph differs from what the model returned, by more than rounding; empty if there is none.

    A graph that draws random numbers, or cannot run where the model did, is not compared.
    """
    if any(isinstance(node, Call) and torch.Tag.nondeterministic_seeded in node.op.tags for node in graph.nodes):
        return ""
    try:
        with torch.no_grad():
            found = results_of(graph, example, example.tensors)
    except Exception:  # operators of anybody's, on devices that a test of values may not have
        return ""
    if len(found) != len(returned):
        return f"{len(found)} results in place of {len(returned)}"
    return next((f"result {i}" for i, pair in enumerate(zip(returned, found, strict=True)) if not is_near(*pair)), "")
