"""nn.Module -> Graph; the only package that knows torch.export and torch.fx."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils._pytree import TreeSpec

from ir.bind import bind_sizes
from ir.capture.blame import explain
from ir.capture.dynamic import DynamicShapes, Marks, export_spec, mark_dynamic, widen
from ir.capture.fake import without_memory
from ir.capture.ones import asked_about_one, at_one, same_program, without_one
from ir.capture.questions import Question, watched
from ir.capture.reader import needs_functional_form, read_program
from ir.capture.sizes import read_sizes
from ir.errors import CaptureError
from ir.graph import Graph
from ir.signature import Signature, Slot, Tree, bind, call, flatten, forward_parameters, names


def capture(
    model: nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: DynamicShapes = None,
) -> Graph:
    """Record what `model(*args, **kwargs)` computes.

    `dynamic_shapes` names the sizes that may change: `{"input_ids": {0: "batch", 1: "seq"}}`.
    Parameters may be on the meta device; buffers must have their values.
    Raises CaptureError that names the innermost module and source line of what cannot be recorded.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise CaptureError(f"{name or 'the model'} is a ScriptModule; use the nn.Module that it was made from")
    if any(m.training for m in model.modules() if isinstance(m, _DIFFERS_IN_TRAINING)):
        warnings.warn("the model is in training mode (dropout is active); call model.eval() first", stacklevel=2)
    parameters = forward_parameters(model)
    try:
        arguments = bind(parameters, args, kwargs or {})
    except TypeError as e:
        takes = ", ".join(p.name for p in parameters)
        raise CaptureError(f"the example inputs do not fit {type(model).__name__}.forward({takes}): {e}") from e
    leaves, spec = flatten(arguments)
    tree = _tree(leaves, spec)
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    marks = mark_dynamic(dynamic_shapes, tree, tensors)
    if not tensors:
        raise CaptureError("there is no tensor among the example inputs")
    graph, questions = _record(model, parameters, tree, tensors, marks)
    if not graph.outputs:
        raise CaptureError(f"{type(model).__name__} returns no tensor, so there is nothing to cut")
    for symbol in asked_about_one(graph, questions):
        sizes, small = at_one(graph, symbol, widen(tensors, marks), marks)
        try:
            alone, _ = _record(model, parameters, tree, small, [{}] * len(small))
        except CaptureError:
            alone = None
        if alone is None or not same_program(bind_sizes(graph, sizes), alone):
            graph = without_one(graph, symbol)
    return graph


def _record(
    model: nn.Module,
    parameters: Sequence[inspect.Parameter],
    arguments: Tree,
    tensors: Sequence[torch.Tensor],
    marks: Marks,
) -> tuple[Graph, Sequence[Question]]:
    """The graph for example tensors, and what the model's code asked of the marked sizes."""
    returns: list[Tree] = []
    flat = _Flat(model, parameters, arguments, returns.append)
    program, questions = _export(flat, widen(tensors, marks), marks, names(arguments))
    sizes = read_sizes(program, tensors, marks, questions)
    signature = Signature(tuple(parameters), arguments, returns[-1])
    return read_program(program, model, signature, sizes), sizes.questions


_DIFFERS_IN_TRAINING = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm, nn.RNNBase)


class _Flat(nn.Module):
    """The model as a function of a flat list of tensors, whatever containers it takes and returns."""

    def __init__(
        self,
        model: nn.Module,
        parameters: Sequence[inspect.Parameter],
        arguments: Tree,
        report: Callable[[Tree], None],
    ) -> None:
        super().__init__()
        self.m = model
        self._call = lambda tensors: call(model, parameters, arguments.fill(tensors))
        self._report = report  # torch.export undoes what forward assigns to the module

    def forward(self, tensors: list[torch.Tensor]) -> list[Any]:
        leaves, spec = flatten(self._call(tensors))
        kept = [leaf for leaf in leaves if isinstance(leaf, (torch.Tensor, torch.SymInt))]
        self._report(_tree(leaves, spec, (torch.Tensor, torch.SymInt)))
        return kept


def _tree(leaves: Sequence[Any], spec: TreeSpec, slotted: type | tuple[type, ...] = torch.Tensor) -> Tree:
    slots = count()
    return Tree(spec, tuple(Slot(next(slots)) if isinstance(x, slotted) else x for x in leaves))


@contextmanager
def _quiet() -> Iterator[None]:
    """torch.export warns, logs and prints half a graph about matters that are settled here; it also raises them."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), patch("torch.export._trace.print", create=True):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _export(
    flat: _Flat, tensors: Sequence[torch.Tensor], marks: Marks, input_names: Sequence[str]
) -> tuple[ExportedProgram, Sequence[Question]]:
    with watched() as questions:
        try:
            with torch.no_grad(), _quiet(), without_memory(flat.m):
                program = torch.export.export(
                    flat, ([t.detach().clone() for t in tensors],), dynamic_shapes=(export_spec(marks),), strict=False
                )
                asked = tuple(questions)
                return (program.run_decompositions({}) if needs_functional_form(program) else program), asked
        except Exception as e:
            raise explain(e, flat.m, marks, input_names, questions) from e
