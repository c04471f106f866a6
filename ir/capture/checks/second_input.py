"""A graph compared with its model on inputs other than the example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from enum import Enum
from typing import Any

import sympy
import torch
from torch import nn

from ir.analysis.arguments import as_number
from ir.analysis.interpret import interpret
from ir.capture.checks.values import of_size
from ir.capture.export.example import Example
from ir.capture.export.gradient_hooks import gradient_hooks_seen
from ir.capture.export.module_state import converted_for_the_call
from ir.capture.export.replaced.distributions import unchecked_distributions
from ir.capture.export.replaced.padding import padded_as_in_inference, without_fused_layers
from ir.capture.unregistered_state.held import is_array
from ir.capture.unregistered_state.restoring import as_they_were
from ir.capture.unregistered_state.snapshots import is_same
from ir.graph import Graph, sizes_of
from ir.objects.pieces import all_close
from ir.objects.signature import call, flatten
from ir.sizes import hold, in_layout

LEFT_OUT = object()
"""A result of a model that its graph has not, as a note says."""


class Verdict(Enum):
    """The outcome of running a model and its graph on the same inputs."""

    SAME = "same"
    DIFFERENT = "different"
    UNKNOWN = "the model takes no other input"


def compare_with_model(graph: Graph, example: Example) -> Verdict:
    """Run `graph` and the model of `example` on other sizes and values, except inputs that the model rejects."""
    verdict = Verdict.UNKNOWN
    for inputs in _other_inputs(graph, example):
        try:
            wanted, again = _run_twice(example, inputs)
        except Exception:
            continue
        try:
            with as_they_were(example.model):
                found = results_of(graph, example, inputs)
        except Exception:
            return Verdict.DIFFERENT
        keeps = verdict is Verdict.UNKNOWN and not all_near(wanted, again)
        if keeps or not all_near(wanted, found):
            return Verdict.DIFFERENT
        verdict = Verdict.SAME
    return verdict


def raised_by(example: Example) -> Exception | None:
    """The error of a call of the model with the example inputs; None where it returns, or they have no values."""
    if any(tensor.is_meta for tensor in example.tensors):
        return None
    try:
        with as_they_were(example.model):
            run_model(example, example.tensors)
    except Exception as e:  # the code of a model may raise anything
        return e
    return None


def _run_twice(example: Example, inputs: Sequence[torch.Tensor]) -> tuple[list[Any], list[Any]]:
    """Results of the model, and those of a second call with the same inputs, its buffers as before.

    They differ where it keeps something else from call to call, which may be lost in a module that is kept whole.
    """
    with as_they_were(example.model):
        return run_model(example, inputs), run_model(example, inputs)


def all_near(some: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(some) == len(others) and all(map(_close, some, others))


def _other_inputs(graph: Graph, example: Example) -> Iterator[list[torch.Tensor]]:
    """Inputs with newly drawn values, at the example's sizes and at larger ones; then with random masks."""
    larger = {s: size for s, hint in graph.hints.items() for size in (2 * hint, 3 * hint) if _fits(graph, s, size)}
    for sizes, holes in ((graph.hints, False), (larger, False), (larger, True), (graph.hints, True)):
        if hold(graph.guards, {**graph.hints, **sizes}):
            marked = zip(example.tensors, example.marks, graph.layouts, strict=True)
            yield [in_layout(_drawn(_resized(t, dims, sizes), holes), layout) for t, dims, layout in marked]


def _fits(graph: Graph, symbol: sympy.Symbol, size: int) -> bool:
    low, high = graph.ranges[symbol]
    return low <= size <= (size if high is None else high)


def _resized(tensor: torch.Tensor, dims: Any, sizes: Any) -> torch.Tensor:
    named = {str(s): size for s, size in sizes.items()}
    for dim, mark in dims.items():
        if mark.name in named:
            tensor = of_size(tensor, dim, named[mark.name])
    return tensor


def _drawn(tensor: torch.Tensor, holes: bool) -> torch.Tensor:
    """Random values of the same kind: normal numbers, integers from the example, masks of 0 and 1 where `holes`."""
    if tensor.is_floating_point() or tensor.is_complex():
        exact = torch.complex128 if tensor.is_complex() else torch.float64
        return torch.randn(tensor.shape, dtype=exact).to(tensor.dtype)
    values = tensor.flatten().long()  # few operators take uint16, uint32 and uint64
    if holes and values.numel() and values.min() >= 0 and values.max() <= 1:
        return torch.randint(2, tensor.shape).to(tensor.dtype)
    return values[torch.randint(max(values.numel(), 1), values.shape)].view(tensor.shape).to(tensor.dtype)


def run_model(example: Example, inputs: Sequence[torch.Tensor]) -> list[Any]:
    converted, unchecked = converted_for_the_call(example.model), unchecked_distributions()
    with (
        torch.no_grad(),
        padded_as_in_inference(),
        unchecked,
        gradient_hooks_seen(),
        converted,
        _put_back(example.model),
    ):
        given = example.arguments.fill([t.clone() for t in inputs])
        return flatten(call(example.model, example.parameters, deepcopy(given)))[0]


def results_of(graph: Graph, example: Example, inputs: Sequence[torch.Tensor]) -> list[Any]:
    """The results of a graph for these inputs with the weights of the example's model, without containers.

    `LEFT_OUT` stands for those that the graph has not.
    """
    weights = {name: t.detach().clone() for name, t in example.model.named_buffers()}
    weights |= {name: t.detach() for name, t in example.model.named_parameters(remove_duplicate=False)}
    outputs = interpret(graph, [t.clone() for t in inputs], weights).outputs
    sizes = sizes_of(zip(graph.inputs, inputs, strict=True))
    tree = graph.signature.returns
    leaves = tuple(as_number(x, sizes) if isinstance(x, sympy.Basic) else x for x in tree.leaves)
    leaves = tuple(LEFT_OUT if i in example.left_out else leaf for i, leaf in enumerate(leaves))
    return flatten(replace(tree, leaves=leaves).fill(outputs))[0]


@contextmanager
def _put_back(model: nn.Module) -> Iterator[None]:
    """Restore the buffers afterwards; fused layers are off meanwhile, since an export does not record them."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        with without_fused_layers():
            yield
    finally:
        for name, buffer in model.named_buffers():
            buffer.data.copy_(before[name])


def _close(a: Any, b: Any) -> bool:
    if b is LEFT_OUT:
        return True
    if not isinstance(a, torch.Tensor):
        return type(a) is type(b) and (is_same(a, b) if is_array(a) else bool(a == b))
    same = isinstance(b, torch.Tensor) and a.shape == b.shape and a.dtype == b.dtype
    return same and all_close(a, b, *_TOLERANCE.get(a.dtype, (0, 0)))


_TOLERANCE = {torch.float32: (1e-4, 1e-5), torch.float64: (1e-7, 1e-9)}
_TOLERANCE |= dict.fromkeys((torch.bfloat16, torch.float16), (2e-2, 1e-2))
