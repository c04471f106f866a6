"""Graphs that read grids of images by operators, compared with their model on other grids of the same patches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ir.capture.checks.second_input import all_near, results_of, run_model
from ir.capture.export.example import Example
from ir.capture.export.meta_weights import in_memory
from ir.capture.unregistered_state.restoring import as_they_were
from ir.graph import Graph
from ir.sizes import RowProductSum


def same_on_other_grids(graph: Graph, example: Example) -> bool:
    """Whether a graph is its model where images of the example have other sizes, and where there are more of them.

    Code that runs once for all pieces of a tensor could count them, and nothing is recorded of that.  A model whose
    weights are too large to be made up is not asked.
    """
    grids = {c.input: c.multiples for c in graph.counts if isinstance(c, RowProductSum)}
    places = {i: grids[value.name] for i, value in enumerate(graph.inputs) if value.name in grids}
    with in_memory(example.model) as runs:
        return not runs or all(_same(graph, example, other) for other in _others(example, places))


def _same(graph: Graph, example: Example, tensors: Sequence[Tensor]) -> bool:
    """Whether both make the same of these inputs, or the model refuses them."""
    with as_they_were(example.model):
        try:
            wanted = run_model(example, tensors)
        except Exception:  # whatever the model's own code raises
            return True
        try:
            return all_near(wanted, results_of(graph, example, tensors))
        except Exception:
            return False


def _others(example: Example, grids: Mapping[int, Sequence[int]]) -> Iterator[list[Tensor]]:
    """The inputs of the example with each grid turned, and then with each image cut in two of half as many rows.

    `grids`: the multiples of the numbers of each, by its place among the inputs.
    """
    for change in (_turned, _halved) if grids else ():
        tensors = list(example.tensors)
        for i, multiples in grids.items():
            tensors[i] = change(tensors[i], multiples)
        if all(len(tensors[i]) == len(example.tensors[i]) or 0 in example.marks[i] for i in grids):
            yield tensors


def _turned(grid: Tensor, _: Sequence[int]) -> Tensor:
    """The last image first, each with rows for columns."""
    return grid.flip(0)[:, [0, 2, 1]]


def _halved(grid: Tensor, multiples: Sequence[int]) -> Tensor:
    rows = []
    for frames, height, width in grid.tolist():
        half = height // 2
        rows += [[frames, height, width]] if height % 2 or half % multiples[1] else [[frames, half, width]] * 2
    return torch.tensor(rows, dtype=grid.dtype)
