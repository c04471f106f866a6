"""capture(): from an nn.Module and example arguments to its Graph."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import sympy
import torch
from torch import nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from ir.analysis.bind import bind_sizes
from ir.capture.checks.equivalence import same_terms
from ir.capture.checks.first_call import draws_on_example, gap_on_example
from ir.capture.checks.grids import same_on_other_grids
from ir.capture.checks.joins import joined_at_other_sizes
from ir.capture.checks.other_answers import at_larger_sizes, beside_fixed, without_needless
from ir.capture.checks.size_one import (
    at_one,
    may_be_one,
    question_about_one,
    quotient_reshaped_at_one,
    reshaped_at_one,
    same_program,
    without_one,
)
from ir.capture.export.example import Example, slotted
from ir.capture.export.fixed.fixed_inputs import may_be_fixed, notes_on_fixed, with_fixed_values, with_named_fixed
from ir.capture.export.gradient_hooks import notes_on_hooked
from ir.capture.export.recording import ONE_BY_ONE, Gap, Recording
from ir.capture.fallbacks.ways import Way, noted, record_somehow
from ir.capture.holdable import require_carried, require_holdable, require_storable
from ir.capture.repeats.call_recorder import InDoubt
from ir.capture.sizes.allowed import guard_notes
from ir.capture.sizes.dynamic import (
    DynamicShapes,
    FixedSizes,
    Mark,
    mark_dynamic,
    soft_marks,
    widen,
    without_fixed,
    without_marks,
)
from ir.capture.sizes.questions import Question
from ir.capture.stored_weights.stand_ins import plain_weights
from ir.capture.stored_weights.written_out import can_be_written_out, written_out
from ir.capture.unregistered_state.observing import observe
from ir.capture.warn import warn
from ir.capture.with_states import with_states
from ir.errors import CaptureError
from ir.graph import Graph, sizes_of
from ir.objects.containers import keys_on_the_way
from ir.objects.signature import bind, flatten, forward_parameters, names
from ir.sizes import hold


def capture(
    model: nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: DynamicShapes = None,
    soft: bool = False,
    fix: Collection[str] = (),
) -> Graph:
    """Record what `model(*args, **kwargs)` computes.

    `dynamic_shapes` names the sizes that may change: `{"input_ids": {0: "batch", 1: "seq"}}`.  One that the model
    fixes is an error, or stays as it is in the example and is noted in `Graph.notes` where the names are `soft`.
    `fix` names inputs whose values decide shapes: they are fixed at those of the example, as are others that must be.
    Parameters may be on the meta device; buffers must have their values.
    Raises CaptureError that names the innermost module and source line of what cannot be recorded.
    """
    terms: Any = dict(dynamic_shapes=dynamic_shapes, soft=soft, fix=fix)
    with plain_weights(model) as stand_ins:
        graph = _as_it_is(model, args, kwargs or {}, **terms)
    if can_be_written_out(graph, stand_ins):
        return written_out(graph, stand_ins)
    return _as_it_is(model, args, kwargs or {}, **terms)


def _as_it_is(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    dynamic_shapes: DynamicShapes,
    soft: bool,
    fix: Collection[str],
) -> Graph:
    """The graph of a model with the tensors that its modules hold."""
    given = _example(model, args, kwargs, dynamic_shapes)
    example = with_named_fixed(given, fix, soft)
    recording = _observed(example, soft)
    for name in recording.frozen:
        warn(f"forward changes {name}; stages keep to the value that it had at first")
    for name in recording.changed:
        warn(f"the model changes its input {name} in place; stages do not")
    graph = recording.graph
    if not graph.outputs:
        found = ", ".join(dict.fromkeys(type(x).__name__ for x in graph.signature.returns.leaves)) or "nothing"
        raise CaptureError(f"{type(model).__name__} returns no tensor ({found}), so there is nothing to cut")
    require_storable(graph)
    return replace(graph, notes=(*graph.notes, *notes_on_fixed(given, example)))


def _observed(example: Example, soft: bool) -> Recording:
    """A recording of a model that was run before, with warnings of what stages do not do."""
    observed = observe(example)
    recording = with_states(example, observed, soft, _at_all_sizes)
    renamed = observed.keys and observed.keys != keys_on_the_way(recording.graph.signature.returns.spec)
    if differs := recording.gap.result or ("the keys of its results" if renamed else ""):
        warn(
            f"while it is exported, forward computes something else than when it is called with the example inputs "
            f"({differs}); stages return what was exported"
        )
    for name in observed.ordered:
        warn(f"results depend on the order of the entries of {name}; stages take that of the example in every call")
    if observed.seeds:
        warn("forward seeds torch's random numbers; stages do not")
    if observed.rewinds and not observed.seeds and draws_on_example(recording.graph, example):
        warn("forward draws random numbers and sets torch's back to those before; stages do not")
    notes = dict.fromkeys((*observed.hooks, *notes_on_hooked(example.model)))
    return noted(recording, *(note for note in notes if note not in recording.graph.notes))


def _at_all_sizes(example: Example, soft: bool, returned: Sequence[Any] | None) -> Recording:
    """A recording, restricted to the sizes at which it is the model; `returned`: what that returned for the example.

    A model whose code asks if it is exported, and then does something else, is recorded as it is called, if it can be.
    """
    recording = _with_layers(example, soft, returned)
    if recording.asked and recording.gap.rounded and not example.as_called:
        with suppress(CaptureError):
            return min(recording, _as_called(replace(example, as_called=True), soft, returned), key=lambda r: r.gap)
    return recording


def _as_called(example: Example, soft: bool, returned: Sequence[Any] | None) -> Recording:
    """A recording of a model that is not told of the export; inputs that it looks at are fixed where that counts."""
    recording = _with_layers(example, soft, returned)
    inputs = [origin for origin in recording.asked_about if origin.kind == "input"]
    if recording.gap.result and inputs and all(may_be_fixed(example, o, soft, loosely=True) for o in inputs):
        fixed = replace(with_fixed_values(example, inputs), repeats=False)
        with suppress(CaptureError):
            other = noted(_with_layers(fixed, soft, returned), *notes_on_fixed(example, fixed))
            return min(recording, other, key=lambda r: r.gap)
    return recording


def _with_layers(example: Example, soft: bool, returned: Sequence[Any] | None) -> Recording:
    """The same, told that it is exported or not; with layers one by one where alike ones cannot be recorded once."""
    try:
        return _with_repeats(example, soft, returned)
    except InDoubt as e:
        full = _with_repeats(replace(example, repeats=False), soft, returned)
        return noted(full, f"layers are {ONE_BY_ONE}: {e}")


def _with_repeats(example: Example, soft: bool, returned: Sequence[Any] | None) -> Recording:
    """The same; layers that are alike may be recorded once a kind.  Raises InDoubt where that does not do."""
    ones = _sizes_of_one(example)
    try:
        used, (recording, way), notes = _record(example, soft, returned)
    except CaptureError as e:
        with suppress(CaptureError):
            if ones:
                return _with_ones(example, ones, f"for other sizes, {str(e).splitlines()[0]}", soft, returned)
        raise
    asked = _with_own_sizes(used, example)
    hints = {**recording.graph.hints, **sizes_of(zip(recording.graph.inputs, asked.tensors, strict=True))}
    if (elsewhere := at_larger_sizes(recording, used, way)) is not None:
        recording, used = elsewhere.recording, elsewhere.example
    graph, questions = _without_quotients_of_one(recording.graph), recording.questions
    for symbol in may_be_one(graph):
        place = _other_at_one(symbol, graph, questions, _as_recorded(used, recording), way)
        if place and recording.repeats is not None:  # or at 1 layers differ in what they are recorded by
            full = replace(recording, graph=graph).full().graph
            place = _other_at_one(symbol, full, questions, replace(used, repeats=False), way)
        if place:
            if str(symbol) in ones:
                why = f"for other sizes the model computes something else (at {place})"
                return _with_ones(example, [str(symbol)], why, soft, returned)
            graph = without_one(graph, symbol, place)
    if not all(joined_at_other_sizes(name, graph, _as_recorded(used, recording)) for name in recording.joined):
        return _with_repeats(replace(example, joins=False), soft, returned)
    recording = replace(recording, graph=graph).full()
    used, asked = (replace(e, left_out=recording.left_out) for e in (used, asked))
    graph = elsewhere.freed(recording.graph) if elsewhere else without_needless(recording.graph, questions, used, way)
    graph = replace(graph, hints=hints)
    if asked.packs and not same_on_other_grids(graph, asked):
        return _with_repeats(replace(example, packs=False), soft, returned)
    gap = Gap() if returned is None else gap_on_example(graph, asked, returned)
    if gap.result and example.loops.rewritten:  # their turns may differ in what no tensor holds
        example.loops.refuse_all()
        return _with_repeats(example, soft, returned)
    conditions = guard_notes(graph.guards, graph.ranges, graph.hints, questions)
    return replace(recording, graph=replace(graph, notes=(*graph.notes, *conditions, *notes)), gap=gap)


def _with_own_sizes(used: Example, example: Example) -> Example:
    """The recorded example with the tensors of the given one, whose sizes may be smaller, if no tensor is fixed."""
    return replace(used, tensors=example.tensors) if len(used.tensors) == len(example.tensors) else used


def _without_quotients_of_one(graph: Graph) -> Graph:
    """The graph restricted to sizes at which no node makes other shapes as a quotient is 1, such as one of chunks."""
    while (found := quotient_reshaped_at_one(graph)) is not None:
        graph = replace(graph, guards=(*graph.guards, sympy.Gt(found[0], 1)))
    return graph


def _as_recorded(example: Example, recording: Recording) -> Example:
    """The example for a second recording with the same layers in full."""
    repeats = recording.repeats
    return replace(example, repeats=repeats is not None, templates=None if repeats is None else repeats.templates)


def _sizes_of_one(example: Example) -> list[str]:
    """The names of the sizes that may change and are 1 in the example itself."""
    sizes = ((mark.name, t.shape[d]) for t, dims in _marked(example) for d, mark in dims.items())
    return list(dict.fromkeys(name for name, size in sizes if size == 1))


def _with_ones(
    example: Example, names: Sequence[str], why: str, soft: bool, returned: Sequence[Any] | None
) -> Recording:
    """A recording with these sizes, which are 1 in the example, fixed at that."""
    marks = [{d: mark for d, mark in dims.items() if mark.name not in names} for _, dims in _marked(example)]
    recording = _at_all_sizes(replace(example, marks=marks), soft, returned)
    return noted(recording, f"{', '.join(f'`{name}`' for name in names)} stays at 1, as in the example: {why}")


def _marked(example: Example) -> Iterator[tuple[torch.Tensor, Mapping[int, Mark]]]:
    return zip(example.tensors, example.marks, strict=True)


def _other_at_one(symbol: sympy.Symbol, graph: Graph, questions: Sequence[Question], example: Example, way: Way) -> str:
    """The line where the model computes something else than the graph if `symbol` is 1; empty if there is none."""
    if (node := reshaped_at_one(symbol, graph)) is not None:
        return f"{node.where.file}:{node.where.line}" if node.where.file else str(node.where)
    if (question := question_about_one(symbol, graph, questions)) is None:
        return ""
    sizes, small = at_one(graph, symbol, widen(example.tensors, example.marks), example.marks)
    alone = example.at(small)
    same = same_terms(graph, alone) or _records(bind_sizes(graph, sizes), alone, way)
    return "" if same else question.place


def _records(graph: Graph, example: Example, way: Way) -> bool:
    """Whether another export gives the same program."""
    try:
        return same_program(graph, way(example).graph)
    except CaptureError:
        return False


def _example(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], shapes: DynamicShapes) -> Example:
    require_holdable(model)
    if lost := next((name for name, buffer in model.named_buffers() if buffer.is_meta), ""):
        raise CaptureError(
            f"{lost} has no values, as it is on the meta device, where only parameters may be; "
            f"make the model on the CPU, or compile its checkpoint or config.json"
        )
    training = [(name, m) for name, m in model.named_modules() if m.training and _differs_in_training(m)]
    if training:
        warn(f"{_all_of(training)} in training mode; call model.eval() first")
    if _global_forward_hooks or _global_forward_pre_hooks:
        warn("hooks on all modules are registered: what they change is in the stages, whose modules run them once more")
    parameters = forward_parameters(model)
    try:
        arguments = bind(parameters, args, kwargs)
    except TypeError as e:
        takes = ", ".join(p.name for p in parameters)
        raise CaptureError(f"the example inputs do not fit {type(model).__name__}.forward({takes}): {e}") from e
    leaves, spec = flatten(arguments)
    tree = slotted(leaves, spec)
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    marks = mark_dynamic(shapes, tree, tensors)
    if not tensors:
        raise CaptureError("there is no tensor among the example inputs")
    for name, tensor in zip(names(tree), tensors, strict=True):
        require_carried(name, tensor)
    return Example(model, parameters, tree, tensors, marks)


def _all_of(modules: Sequence[tuple[str, nn.Module]]) -> str:
    """The first of some modules by its path and class, and how many others there are."""
    (path, first), others = modules[0], len(modules) - 1
    named = f"the module `{path}`, a {type(first).__name__}," if path else f"the model, a {type(first).__name__},"
    return f"{named} is" if not others else f"{named} and {others} other{'s' * (others > 1)} are"


def _differs_in_training(module: nn.Module) -> bool:
    """Whether a module of torch's computes something else in training mode."""
    if isinstance(module, nn.RNNBase):
        return module.dropout > 0 and module.num_layers > 1
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    if isinstance(module, nn.modules.instancenorm._InstanceNorm):
        return module.track_running_stats
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def _record(
    example: Example, soft: bool, returned: Sequence[Any] | None
) -> tuple[Example, tuple[Recording, Way], tuple[str, ...]]:
    """Record with the marked sizes; where `soft`, those that the model fixes lose their marks and get a note."""
    notes: tuple[str, ...] = ()
    while True:
        try:
            used, recording, way = record_somehow(example, soft)
            _require_own_sizes(recording.graph, used)
            return used, (recording, way), (*notes, *notes_on_fixed(example, used))
        except FixedSizes as e:
            beside = beside_fixed(example, e, lambda other: record_somehow(other, soft), returned)
            if beside is not None:
                return beside[0], beside[1:], (*notes, *notes_on_fixed(example, beside[0]))
            marks, more = without_fixed(example.marks, e, soft)
            example, notes = replace(example, marks=marks), (*notes, *more)
        except CaptureError as e:
            if not (auto := soft_marks(example.marks)):
                raise
            fixed = ", ".join(dict.fromkeys(f"`{example.marks[i][dim].name}`" for i, dim in auto))
            notes += (f"{fixed} cannot be dynamic: {str(e).splitlines()[0]}; it stays as it is in the example",)
            example = replace(example, marks=without_marks(example.marks, auto))


def _require_own_sizes(graph: Graph, example: Example) -> None:
    """Raise FixedSizes for the sizes of a guard that the example does not meet: torch.export may add such a guard."""
    broken = next((guard for guard in graph.guards if not hold([guard], graph.hints)), None)
    if broken is None:
        return
    names, why = {str(symbol) for symbol in broken.free_symbols}, f"torch.export has it meet {broken}"
    raise FixedSizes(
        {
            (i, dim): f"`{mark.name}` cannot be dynamic: {why}, which {tensor.shape[dim]} does not"
            for i, (tensor, dims) in enumerate(zip(example.tensors, example.marks, strict=True))
            for dim, mark in dims.items()
            if mark.name in names
        }
    )
