"""torch.export of a model and an example call of it, read as a Graph."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.fx._lazy_graph_module import _use_lazy_graph_module
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.utils._pytree import TreeSpec

from ir.autocast import autocast_as_around, autocast_is_on, without_autocast
from ir.capture.diagnosis import NotExported, explain
from ir.capture.export.ambient import ambient_questions
from ir.capture.export.derivatives import derivatives_seen
from ir.capture.export.example import Example, layout_of, slotted
from ir.capture.export.final_states import states_in_their_shape
from ir.capture.export.fixed.known_values import fixed_buffers, has_fixed_values, known_values
from ir.capture.export.fixed.origins import Origin, Origins, OriginTrace
from ir.capture.export.gradient_hooks import gradient_hooks_seen
from ir.capture.export.meta_weights import without_memory
from ir.capture.export.module_state import converted_for_the_call, data_as_itself, written_in_place
from ir.capture.export.padding import padded_as_in_inference
from ir.capture.export.tracing_questions import look_up_questions, tracing_questions
from ir.capture.export.types_of_nodes import types_without_functions
from ir.capture.program.default_dtype import with_stated_dtypes
from ir.capture.program.folded import fold_known
from ir.capture.program.gradients import GradMode, detach_what_leaves
from ir.capture.program.in_place.functional import functional_form, needs_functional_form
from ir.capture.program.in_place.mutation import (
    inputs_written,
    refuse_exchanged_memory,
    refuse_overlapping_writes,
)
from ir.capture.program.in_place.own_results import with_own_results
from ir.capture.program.in_place.reading_order import notes_on_order
from ir.capture.program.in_place.stores import make_stores_functional
from ir.capture.program.layouts import Layouts, about_copies, layouts_watched
from ir.capture.program.reader import Read, read_program
from ir.capture.program.returned import changed_inputs
from ir.capture.repeats.alike import alike_modules
from ir.capture.repeats.expanded import with_all_layers
from ir.capture.repeats.layers import LayersOnce
from ir.capture.repeats.numbering import LayerRepeats, repeats_of
from ir.capture.repeats.template import InDoubt
from ir.capture.sizes.counts import hold_assertions
from ir.capture.sizes.dynamic import export_spec, widen
from ir.capture.sizes.iterated import computed, iterated_as_one
from ir.capture.sizes.questions import Question, about_squeezes, watched
from ir.capture.sizes.symbols import read_sizes
from ir.capture.source_lines.stack_traces import stack_traces_of_forwards
from ir.capture.source_lines.variables import watched_variables
from ir.capture.unregistered_state.places import changed, newly_held
from ir.capture.unregistered_state.places import leaves as held_by
from ir.capture.unregistered_state.restoring import as_they_were
from ir.errors import CaptureError
from ir.graph import Graph
from ir.location import Where
from ir.objects.signature import Signature, Slot, Tree, call, flatten, names
from ir.objects.zeros import copied
from ir.process.patching import PATCHING


@dataclass(frozen=True, order=True)
class Gap:
    """The distance of a graph from what the model returned for the example; smaller is nearer."""

    result: str = ""  # one that differs by more than rounding
    rounded: bool = False  # whether any bit differs


@dataclass(frozen=True)
class Recording:
    """The graph of a model, and the questions about marked sizes that its code asked during the export."""

    graph: Graph
    questions: Sequence[Question]
    frozen: tuple[str, ...] = ()  # attributes that forward changed, by dotted name
    filled: tuple[str, ...] = ()  # attributes that held nothing before forward, by dotted name
    changed: tuple[str, ...] = ()  # inputs that forward changed in place, and arguments that hold others afterwards
    repeats: LayerRepeats | None = None  # layers for which operators stand in the graph
    read: Read = field(default_factory=Read)
    asked: bool = False  # whether the model's code asked if it is exported
    asked_about: Origins = frozenset()  # sources of tensors whose values it would look at in a call
    joined: tuple[str, ...] = ()  # sizes along which tensors were taken apart and joined again, at once
    gap: Gap = Gap()  # from what a call of the model returned, where there was one

    def full(self) -> Recording:
        """The recording with all layers in its graph.  Raises InDoubt."""
        if self.repeats is None:
            return self
        return replace(self, graph=with_all_layers(self.graph, self.repeats, self.read), repeats=None)


@dataclass(frozen=True)
class _Exported:
    """A program without in-place operators, and what its export showed."""

    program: ExportedProgram
    questions: Sequence[Question]
    notes: Sequence[str]
    written: Sequence[int]  # the inputs that it changes
    repeats: LayerRepeats | None


def record(example: Example) -> Recording:
    """Record by non-strict export.  Raises CaptureError for what torch.export does not support."""
    members = alike_modules(example.model) if example.repeats else {}
    notes: tuple[str, ...] = ()
    if members and has_fixed_values(example):
        members, notes = {}, (f"layers are {ONE_BY_ONE}: values of inputs or buffers are fixed",)
    while True:
        once = LayersOnce(members, example.templates)
        try:
            recording = _record(example, once)
            notes += tuple(f"layers such as {path} are {ONE_BY_ONE}: {why}" for path, why in once.reasons.items())
            return replace(recording, graph=replace(recording.graph, notes=(*recording.graph.notes, *notes)))
        except InDoubt as e:
            doubted = once.doubt and once.doubt[0]
            members = {key: m for key, m in members.items() if doubted is not None and m.group != doubted}
            notes += (f"layers are {ONE_BY_ONE}: {e}",)
        except _UntoldError:
            example = replace(example, told_exported=True)


ONE_BY_ONE = "exported one by one"


class _UntoldError(Exception):
    """A failed export of what a model does in a plain call, which may do something else if it is told of the export."""


def _record(example: Example, once: LayersOnce) -> Recording:
    flat = Flat(example, once)
    try:
        return flat.noted(recorded(flat, example, lambda program: flat.seen.returns[-1], once=once))
    except CaptureError as e:
        if flat.seen.untold:
            raise _UntoldError from e
        if not isinstance(e, NotExported):
            raise
        e.origins = flat.seen.origins.of_error(e)
        raise e.at_derivatives(flat.seen.derivatives) from e


def record_strictly(example: Example) -> Recording:
    """Record by strict export: TorchDynamo reads the model's bytecode, and so follows it through numpy."""
    if autocast_is_on():
        raise NotExported("autocast around the model is not recorded from bytecode")
    return recorded(_Whole(example), example, _returned, strict=True)


def recorded(
    flat: nn.Module,
    example: Example,
    returned: Callable[[ExportedProgram], Tree],
    strict: bool = False,
    detaches: bool = True,
    once: LayersOnce | None = None,
) -> Recording:
    """Export `flat`, the model as a function of a list of tensors; `returned` gives the containers of the results.

    `detaches`: whether each detach() in `flat` is one of the model's; `once` watches its layers.
    """
    exported, inputs = _export(flat, example, strict, once or LayersOnce({})), names(example.arguments)
    program = exported.program
    sizes = read_sizes(program, example.tensors, example.marks, exported.questions, inputs)
    signature = Signature(tuple(example.parameters), example.arguments, returned(program))
    changed = dict.fromkeys((*changed_inputs(program, inputs), *(inputs[i] for i in exported.written)))
    layouts = tuple(map(layout_of, widen(example.tensors, example.marks)))
    graph, read = read_program(program, example.model, signature, sizes, detaches)
    with without_autocast():
        graph = with_own_results(with_stated_dtypes(graph))
    graph = replace(graph, layouts=layouts, notes=(*graph.notes, *exported.notes))
    return Recording(graph, sizes.questions, changed=tuple(changed), repeats=exported.repeats, read=read)


@dataclass
class _Seen:
    """Results of a run, in an object of our own: torch.export undoes what forward assigns to a module or its lists."""

    returns: list[Tree] = field(default_factory=list)  # the containers of the results, of each run
    frozen: list[str] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    gradients: GradMode = field(default_factory=GradMode)
    origins: OriginTrace = field(default_factory=OriginTrace)
    notes: list[str] = field(default_factory=list)
    derivatives: list[Where] = field(default_factory=list)  # lines that take them
    asked: bool = False
    untold: bool = False  # whether a question for the export alone got the answer of a plain call
    asked_about: set[Origin] = field(default_factory=set)
    joined: set[str] = field(default_factory=set)

    def ask(self, tensor: torch.Tensor | None, untold: bool) -> None:
        self.asked = True
        self.untold |= untold
        if tensor is not None:
            self.asked_about |= self.origins.of(tensor)

    def note_joined(self, size: Any) -> None:
        """Note a size along which a tensor was taken apart and joined again."""
        self.joined |= {origin.name for origin in self.origins.of_size(size)}


_RETURNED = (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool)  # results that a program makes


class Flat(nn.Module):
    """The model as a function from a flat list of tensors to a flat list of tensors and sizes."""

    def __init__(self, example: Example, once: LayersOnce | None = None) -> None:
        super().__init__()
        self.m = example.model
        self._example = example
        self._once = once or LayersOnce({})
        self.seen = _Seen()

    def forward(self, tensors: list[torch.Tensor]) -> list[Any]:
        self._once.begin()
        before = held_by(self.m)
        arguments = self._example.arguments.fill(tensors)
        given = {name: flatten(value) for name, value in arguments.items()}
        padded = padded_as_in_inference(self.seen.notes.append)
        with ExitStack() as contexts:
            for context in (data_as_itself(), padded, converted_for_the_call(self.m), self._origins(tensors)):
                contexts.enter_context(context)
            for context in (gradient_hooks_seen(self.seen.notes.append), ambient_questions(self.seen.notes.append)):
                contexts.enter_context(context)
            leaves = contexts.enter_context(written_in_place(self.m))
            contexts.enter_context(fixed_buffers(self.m, self._example.buffers))
            contexts.enter_context(self.seen.gradients.watched())
            contexts.enter_context(derivatives_seen(self.seen.derivatives.append))
            contexts.enter_context(tracing_questions(self.seen.ask, self._example))
            contexts.enter_context(autocast_as_around())
            if self._example.joins:
                contexts.enter_context(iterated_as_one(self.seen.note_joined))
            result = call(self.m, self._example.parameters, arguments)
            results, spec = flatten(result)
            leaves.extend(map(computed, results))
        self.seen.changed += [n for n, v in arguments.items() if _refilled(given[n], v) and not _is_in(v, result)]
        after = held_by(self.m)
        self.seen.frozen += changed(before, after, self.m.parameters())
        self.seen.filled += newly_held(before, after)
        kept = [leaf for leaf in leaves if isinstance(leaf, _RETURNED)]
        if any(not isinstance(number, torch.Tensor) and free_unbacked_symbols(number) for number in kept):
            raise NotExported("the model returns a number that values decide", advice="return it as a tensor")
        self.seen.returns.append(slotted(leaves, spec, _RETURNED))
        return kept

    def _origins(self, tensors: Sequence[torch.Tensor]) -> AbstractContextManager[None]:
        """Follow what is made of the inputs, their sizes, the buffers and the parameters."""
        given = zip(names(self._example.arguments), tensors, self._example.marks, strict=True)
        for name, tensor, dims in given:
            self.seen.origins.start(tensor, Origin("input", name))
            for dim, mark in dims.items():
                self.seen.origins.start_size(tensor.shape[dim], mark.name)
        for name, buffer in self.m.named_buffers():
            self.seen.origins.start(buffer, Origin("buffer", name))
        for parameter in self.m.parameters():
            self.seen.origins.start(parameter, Origin("parameter"))
        return self.seen.origins.watched()

    def noted(self, recording: Recording) -> Recording:
        """A recording of this module, with what forward changed while it was recorded, and notes on it."""
        changed = tuple(dict.fromkeys((*recording.changed, *self.seen.changed)))
        frozen, filled = (tuple(dict.fromkeys(names)) for names in (self.seen.frozen, self.seen.filled))
        notes = dict.fromkeys((*self.seen.notes, *self.seen.gradients.notes))
        graph = replace(recording.graph, notes=(*recording.graph.notes, *notes))
        return replace(
            recording,
            graph=graph,
            frozen=frozen,
            filled=filled,
            changed=changed,
            asked=self.seen.asked,
            asked_about=frozenset(self.seen.asked_about),
            joined=tuple(sorted(self.seen.joined)),
        )


def _refilled(before: tuple[list[Any], TreeSpec], argument: Any) -> bool:
    """Whether the containers of an argument hold something else than before."""
    leaves, spec = flatten(argument)
    return spec != before[1] or any(a is not b for a, b in zip(before[0], leaves, strict=True))


def _is_in(argument: Any, result: Any) -> bool:
    """Whether the model returns an argument, alone or in a container."""
    inside = result.values() if isinstance(result, Mapping) else result if isinstance(result, (list, tuple)) else ()
    return argument is result or any(argument is value for value in inside)


class _Whole(nn.Module):
    """The model as a function of a flat list of tensors that returns the model's own containers."""

    def __init__(self, example: Example) -> None:
        super().__init__()
        self.m = example.model
        self._example = example

    def forward(self, tensors: list[torch.Tensor]) -> Any:
        return call(self.m, self._example.parameters, self._example.arguments.fill(tensors))


def _keep_values(program: ExportedProgram) -> None:
    """Copy constants that lie in memory of others, as in arrays of NumPy's: it is put back to what it held before.

    Raises RuntimeError, in torch's words for other exports, where one has no values.
    """
    for name, value in program.constants.items():
        if isinstance(value, FakeTensor):
            raise RuntimeError(f"a fake tensor in the exported program: {name}")
        if isinstance(value, torch.Tensor) and not value.is_meta and not value.untyped_storage().resizable():
            program.constants[name] = copied(value)


def _returned(program: ExportedProgram) -> Tree:
    """The containers of the results, with a slot for every leaf: the program holds those that are no tensors."""
    spec = program.call_spec.out_spec
    assert spec is not None
    return Tree(spec, tuple(map(Slot, range(spec.num_leaves))))


def _nothing(*_: Any, **__: Any) -> None:
    pass


@contextmanager
def quiet() -> Iterator[None]:
    """Silence torch.export's warnings, logs and prints: what matters in them it raises as well.

    Other threads wait with theirs.
    """
    with PATCHING:
        level = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            silent = patch.object(logging.Logger, "debug", _nothing)  # torch asks hundreds of thousands of times
            with warnings.catch_warnings(), patch("torch.export._trace.print", create=True), silent:
                warnings.simplefilter("ignore")
                yield
        finally:
            logging.disable(level)


def _export(flat: nn.Module, example: Example, strict: bool, once: LayersOnce) -> _Exported:
    look_up_questions()
    tensors, marks = widen(example.tensors, example.marks), example.marks
    with watched() as questions:
        try:
            with torch.no_grad(), quiet(), without_memory(example.model), as_they_were(example.model):
                args = ([t.detach().clone() for t in tensors],)
                watch = nullcontext(Layouts()) if strict else layouts_watched()  # TorchDynamo would trace the patches
                traced = stack_traces_of_forwards(), watched_variables()
                contexts = *traced, states_in_their_shape(), known_values(example), types_without_functions()
                with ExitStack() as watching:
                    for context in (*contexts, once.watched(example.model)):
                        watching.enter_context(context)
                    layouts = watching.enter_context(watch)
                    watching.enter_context(_use_lazy_graph_module(not strict))
                    program = torch.export.export(flat, args, dynamic_shapes=(export_spec(marks),), strict=strict)
                refuse_overlapping_writes(program.graph.nodes)
                refuse_exchanged_memory(program.graph.nodes)
                notes = tuple(dict.fromkeys((*layouts.notes(program), *notes_on_order(program.graph.nodes))))
                copies = list(about_copies(program))
                written = inputs_written(program)
                detach_what_leaves(program)
                _keep_values(program)
                hold_assertions(program.graph)
                if has_fixed_values(example):
                    fold_known(program)
                make_stores_functional(program)
                asked = (*questions, *about_squeezes(program), *copies)
                repeats = repeats_of(once, program)
                renamed = needs_functional_form(program)
                if repeats is not None and (renamed or notes):
                    raise InDoubt("the model changes what it holds" if renamed else notes[0])
                return _Exported(functional_form(program) if renamed else program, asked, notes, written, repeats)
        except InDoubt:
            raise
        except Exception as e:
            if once.doubt is not None:
                raise InDoubt(once.doubt[1]) from e
            raise explain(e, example.model, marks, names(example.arguments), questions) from e
