"""A graph on its example, beside what a call of the model returned for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ir.analysis.random_numbers import draws_numbers
from ir.capture.checks.second_input import LEFT_OUT, results_of
from ir.capture.export.example import Example
from ir.capture.export.recording import Gap
from ir.capture.unregistered_state.snapshots import is_near, is_same
from ir.graph import Graph


def gap_on_example(graph: Graph, example: Example, returned: Sequence[Any]) -> Gap:
    """The gap between a graph and a call of the model on the example.

    There is none for a graph that draws random numbers, or cannot run where the model did: it is not compared.
    """
    found: list[Any] = []
    if draws_numbers(lambda: found.extend(_results(graph, example))) or not found:
        return Gap()
    if len(found) != len(returned):
        return Gap(f"{len(found)} results in place of {len(returned)}", rounded=True)
    pairs = [pair for pair in zip(returned, found, strict=True) if pair[1] is not LEFT_OUT]
    differs = next((f"result {i}" for i, pair in enumerate(pairs) if not is_near(*pair)), "")
    return Gap(differs, rounded=not all(is_same(*pair) for pair in pairs))


def is_same_on_example(graph: Graph, example: Example, returned: Sequence[Any]) -> bool:
    """Whether a graph runs on the example, and returns each bit that a call of the model did."""
    found = _results(graph, example)
    return bool(found) and len(found) == len(returned) and all(map(is_same, returned, found))


def draws_on_example(graph: Graph, example: Example) -> bool:
    """Whether a graph draws torch's random numbers when it runs on its example; False where it cannot run."""
    return draws_numbers(lambda: _results(graph, example))


def _results(graph: Graph, example: Example) -> list[Any]:
    """The results for the example; none where the graph cannot run."""
    try:
        with torch.no_grad():
            return results_of(graph, example, example.tensors)
    except Exception:  # operators of anybody's, on devices that a test of values may not have
        return []
