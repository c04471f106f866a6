"""Graphs that read grids or sizes of images by operators, compared with their model on others of as many places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import sympy
import torch
from torch import Tensor

from ir.capture.checks.second_input import all_near, results_of, run_model
from ir.capture.export.example import Example
from ir.capture.export.meta_weights import in_memory
from ir.capture.unregistered_state.restoring import as_they_were
from ir.graph import Graph
from ir.sizes import DescribedValues, RowProductSum, ValueCount


def same_on_other_grids(graph: Graph, example: Example) -> bool:
    """Whether a graph is its model where images of the example have other sizes, and where there are more of them.

    Code that runs once for all pieces of a tensor could count them, and nothing is recorded of that.  A model whose
    weights are too large to be made up is not asked.
    """
    grids = {c.input: c for c in graph.counts if isinstance(c, RowProductSum)}
    places = {i: grids[value.name].multiples for i, value in enumerate(graph.inputs) if value.name in grids}
    others = _others(example, places)
    for described in (c for c in graph.counts if isinstance(c, DescribedValues)):
        if described.rows in grids:
            runs = _first_text(graph, example, described, grids[described.rows])
            others = chain(_turned_alone(example, places), runs)
        else:
            others = _other_sizes(graph, example, described)
    for count in graph.counts:
        if isinstance(count, ValueCount) and count.images:
            others = chain(others, _with_padding(graph, example, count))
    with in_memory(example.model) as runs:
        return not runs or all(_same(graph, example, other) for other in others)


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


def _turned_alone(example: Example, grids: Mapping[int, Sequence[int]]) -> Iterator[list[Tensor]]:
    """The inputs with rows for columns of each grid: each image has the same number of places in its text."""
    yield [t[:, [0, 2, 1]] if i in grids else t for i, t in enumerate(example.tensors)]


def _first_text(graph: Graph, example: Example, runs: DescribedValues, sums: RowProductSum) -> Iterator[list[Tensor]]:
    """The inputs of the first text of the example alone, of several, and of its images."""
    of = {value.name: i for i, value in enumerate(graph.inputs)}
    texts, grid = graph.inputs[of[runs.input]].type.shape[0], example.tensors[of[runs.rows]]
    values = example.tensors[of[runs.input]][0] == runs.value
    images = int((values.long().diff(prepend=values.new_zeros(1).long()) == 1).sum())
    sizes = {texts: 1, graph.inputs[of[runs.rows]].type.shape[0]: images, sums.count: int(grid[:images].prod(1).sum())}
    if not images or not all(isinstance(size, sympy.Symbol) for size in sizes):
        return
    tensors = list(example.tensors)
    for i, value in enumerate(graph.inputs):
        for dim, size in enumerate(value.type.shape):
            tensors[i] = tensors[i].narrow(dim, 0, sizes[size]) if size in sizes else tensors[i]
    yield tensors


def _other_sizes(graph: Graph, example: Example, said: DescribedValues) -> Iterator[list[Tensor]]:
    """The inputs with the sizes of the last image first, and with the first image as two of half as many rows."""
    place = next(i for i, value in enumerate(graph.inputs) if value.name == said.rows)
    sizes, images = example.tensors[place], graph.inputs[place].type.shape[0]
    yield [sizes.flip(0) if i == place else t for i, t in enumerate(example.tensors)]
    half, rest = divmod(int(sizes[0, 0]), 2)
    if rest or half % said.divisors[0] or not isinstance(images, sympy.Symbol):
        return
    halved = torch.cat([sizes, sizes[:1]])
    halved[[0, -1], 0] = half
    tensors = [
        torch.cat([t, t[:1]]) if value.type.shape[:1] == (images,) else t
        for value, t in zip(graph.inputs, example.tensors, strict=True)
    ]
    yield [halved if i == place else t for i, t in enumerate(tensors)]


def _with_padding(graph: Graph, example: Example, said: ValueCount) -> Iterator[list[Tensor]]:
    """The inputs with zeros for the first image, and for the last one, and with other values in their places."""
    place, of = ({value.name: i for i, value in enumerate(graph.inputs)}[name] for name in (said.input, said.images))
    real = (example.tensors[of] != 0).flatten(2).any(-1).nonzero()
    among, each = (example.tensors[place] == said.value).nonzero(), int(said.count)
    for chosen in {0, len(real) - 1} if len(among) == each * len(real) else ():
        tensors = [t.clone() for t in example.tensors]
        tensors[of][tuple(real[chosen])] = 0
        tensors[place][tuple(among[chosen * each : (chosen + 1) * each].T)] = 1 if said.value == 0 else said.value - 1
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
