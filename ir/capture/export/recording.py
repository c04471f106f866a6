"""torch.export of a model and an example call of it, read as a Graph."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, cast
from unittest.mock import patch

import sympy
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.fx._lazy_graph_module import _use_lazy_graph_module

from ir.autocast import autocast_is_on, without_autocast
from ir.capture.diagnosis import NotExported, explain
from ir.capture.export.example import Example, layout_of
from ir.capture.export.fixed.known_values import has_fixed_values, known_values
from ir.capture.export.fixed.origins import Origins
from ir.capture.export.flat_model import Flat, ModelAsItIs, Seen
from ir.capture.export.meta_weights import without_memory
from ir.capture.export.replaced.positions import WritesByPosition
from ir.capture.export.replaced.recurrent_layers import whole_recurrent_layers
from ir.capture.export.replaced.scripted import scripted_as_written
from ir.capture.export.tracing_questions import look_up_questions
from ir.capture.export.types_of_nodes import types_without_functions
from ir.capture.loops.found import LoopOfAnySize
from ir.capture.loops.turns import NoScan
from ir.capture.program.default_dtype import with_stated_dtypes
from ir.capture.program.folded import fold_known
from ir.capture.program.gradients import detach_what_leaves
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
from ir.capture.repeats.call_recorder import InDoubt
from ir.capture.repeats.expanded import with_all_layers
from ir.capture.repeats.layers import LayersOnce
from ir.capture.repeats.numbering import LayerRepeats, repeats_of
from ir.capture.sizes.counts import hold_assertions
from ir.capture.sizes.dynamic import export_spec, widen
from ir.capture.sizes.in_tensors import sizes_read_from_tensors
from ir.capture.sizes.last_items import any_number_of_last_items
from ir.capture.sizes.questions import Question, about_squeezes, watched
from ir.capture.sizes.rounded_up import rounded_up_alike
from ir.capture.sizes.symbols import read_sizes
from ir.capture.source_lines.stack_traces import stack_traces_of_forwards
from ir.capture.source_lines.variables import watched_variables
from ir.capture.unregistered_state.restoring import as_they_were
from ir.errors import CaptureError
from ir.graph import Graph
from ir.objects.signature import Signature, Slot, Tree, names
from ir.objects.zeros import copied
from ir.operators.int_sizes import IntSizes
from ir.process.patching import PATCHING
from ir.sizes import DescribedValues, Dim, RowProductSum, ValueCount


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
    left_out: tuple[int, ...] = ()  # results of the model that the graph has not
    gap: Gap = Gap()  # from what a call of the model returned, where there was one

    def full(self) -> Recording:
        """The recording with all layers in its graph.  Raises InDoubt."""
        if self.repeats is None:
            return self
        return replace(self, graph=with_all_layers(self.graph, self.repeats, self.read), repeats=None)

    def noted(self, seen: Seen) -> Recording:
        """The recording with what forward changed while it was recorded, and notes on it."""
        changed = tuple(dict.fromkeys((*self.changed, *seen.changed)))
        frozen, filled = (tuple(dict.fromkeys(names)) for names in (seen.frozen, seen.filled))
        notes = dict.fromkeys((*seen.notes, *seen.gradients.notes))
        return replace(
            self,
            graph=replace(self.graph, notes=(*self.graph.notes, *notes)),
            frozen=frozen,
            filled=filled,
            changed=changed,
            asked=seen.asked,
            asked_about=frozenset(seen.asked_about),
            joined=tuple(sorted(seen.joined)),
            left_out=seen.left_out,
        )


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
        except NoScan as e:
            example.loops.refuse(e.code)
        except LoopOfAnySize:
            pass  # which is known now
        except NotExported as e:
            if _OF_SCANS not in str(e) or not example.loops.rewritten:
                raise
            for code in [*example.loops.rewritten]:
                example.loops.refuse(code)


ONE_BY_ONE = "exported one by one"
_OF_SCANS = "RuntimeError: scan might be "  # changing its operands in place, or returning one


class _UntoldError(Exception):
    """A failed export of what a model does in a plain call, which may do something else if it is told of the export."""


def _record(example: Example, once: LayersOnce) -> Recording:
    flat = Flat(example, once)
    try:
        recording = recorded(flat, example, lambda program: flat.seen.returns[-1], once=once).noted(flat.seen)
        return _with_conditions(recording, example, flat.seen)
    except CaptureError as e:
        if flat.seen.untold:
            raise _UntoldError from e
        if not isinstance(e, NotExported):
            raise
        e.origins = flat.seen.origins.of_error(e)
        raise e.at_derivatives(flat.seen.derivatives) from e


def _with_conditions(recording: Recording, example: Example, seen: Seen) -> Recording:
    """The recording with the conditions on inputs that are grids.

    Raises NotExported where masks choose other rows than the model's own code asserts.
    """
    graph = recording.graph
    marked = zip(graph.inputs, example.marks, strict=True)
    sizes = {sympy.Symbol(mark.name): value.type.shape[dim] for value, dims in marked for dim, mark in dims.items()}

    def read(size: Dim) -> Dim:
        return size if isinstance(size, int) else cast("Dim", size.xreplace(sizes))

    counts = [count for count in graph.counts if isinstance(count, ValueCount)]
    if not all(read(size) in {count.count for count in counts} for size in seen.chosen):
        raise NotExported("rows are chosen by values, and nothing says how many", by_values=True)
    inputs = dict(zip(names(example.arguments), graph.inputs, strict=True))
    found = (
        RowProductSum(inputs[name].name, (1, merge, merge), read(count)) for name, (merge, count) in seen.grids.items()
    )
    named = {"": "", **{name: value.name for name, value in inputs.items()}}
    runs = (
        DescribedValues(named[r.kinds], r.value, named[r.mask], named[r.grid], (1, r.merge, r.merge)) for r in seen.runs
    )
    sized = {count: _described(count, seen, read, named) for count in counts} if seen.sized else {}
    if seen.sized and not any(sized.values()):
        raise NotExported("rows of images are as many as their sizes say, and nothing says where", by_values=True)
    if seen.padded and len(set(seen.real)) != 1:
        raise NotExported(
            "images are padding where they are zeros, and nothing says where the others go", by_values=True
        )
    real = (ValueCount(named[r.ids], r.value, r.each, named[r.images]) for r in dict.fromkeys(seen.real))
    kept = tuple((isinstance(count, ValueCount) and sized.get(count)) or count for count in graph.counts)
    return replace(recording, graph=replace(graph, counts=(*kept, *found, *dict.fromkeys(runs), *real)))


def _described(
    count: ValueCount, seen: Seen, read: Callable[[Dim], Dim], named: Mapping[str, str]
) -> DescribedValues | None:
    """The condition in place of a count of as many as all rows of images at most: as many as their sizes say."""
    for rows in seen.sized:
        columns = range(len(rows.divisors))
        if rows.total is None or rows.divisors.keys() != set(columns) or read(rows.total) != count.count:
            continue
        limits = [seen.limits.get((rows.sizes, column), (1, None)) for column in columns]
        most = tuple(read(size * by + by - 1) for by, size in limits if size is not None)
        divisors = tuple(rows.divisors[column] for column in columns)
        if len(most) == len(divisors):
            return DescribedValues(count.input, count.value, "", named[rows.sizes], divisors, runs=False, most=most)
    return None


def record_strictly(example: Example) -> Recording:
    """Record by strict export: TorchDynamo reads the model's bytecode, and so follows it through numpy."""
    if autocast_is_on():
        raise NotExported("autocast around the model is not recorded from bytecode")
    return recorded(ModelAsItIs(example), example, _returned, strict=True)


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
    tensors = widen(example.tensors, example.marks)
    with watched() as questions:
        try:
            with (
                torch.no_grad(),
                quiet(),
                rounded_up_alike(),
                any_number_of_last_items(),
                nullcontext() if strict else sizes_read_from_tensors(),  # TorchDynamo reads numbers by its own rules
                without_memory(example.model),
                as_they_were(example.model),
            ):
                program, layouts = _program(flat, tensors, example, strict, once)
                return _without_in_place(program, layouts, questions, has_fixed_values(example), once)
        except InDoubt:
            raise
        except Exception as e:
            if once.doubt is not None:
                raise InDoubt(once.doubt[1]) from e
            raise explain(e, example.model, example.marks, names(example.arguments), questions) from e


def _program(
    flat: nn.Module, tensors: Sequence[torch.Tensor], example: Example, strict: bool, once: LayersOnce
) -> tuple[ExportedProgram, Layouts]:
    """The program of a call with copies of `tensors`, as torch exports it, and the layouts that were seen meanwhile."""
    args = ([t.detach().clone() for t in tensors],)
    watch = nullcontext(Layouts()) if strict else layouts_watched()  # TorchDynamo would trace the patches
    loops = nullcontext() if strict else example.loops.as_scans()
    traced = stack_traces_of_forwards(), watched_variables()
    contexts = (
        *traced,
        IntSizes(),
        WritesByPosition(),
        whole_recurrent_layers(),
        scripted_as_written(),
        known_values(example),
        types_without_functions(),
    )
    with ExitStack() as watching:
        for context in (*contexts, loops, once.watched(example.model)):
            watching.enter_context(context)
        layouts = watching.enter_context(watch)
        watching.enter_context(_use_lazy_graph_module(not strict))
        spec = (export_spec(example.marks),)
        return torch.export.export(flat, args, dynamic_shapes=spec, strict=strict), layouts


def _without_in_place(
    program: ExportedProgram, layouts: Layouts, questions: Sequence[Question], fixed: bool, once: LayersOnce
) -> _Exported:
    """The program without operators that change tensors in place; with values `fixed`, what is known is folded.

    Raises InDoubt where layers of which one was recorded are not all like it.
    """
    refuse_overlapping_writes(program.graph.nodes)
    refuse_exchanged_memory(program.graph.nodes)
    notes = tuple(dict.fromkeys((*layouts.notes(program), *notes_on_order(program.graph.nodes))))
    copies = list(about_copies(program))
    written = inputs_written(program)
    detach_what_leaves(program)
    _keep_values(program)
    hold_assertions(program.graph)
    if fixed:
        fold_known(program)
    make_stores_functional(program)
    asked = (*questions, *about_squeezes(program), *copies)
    repeats = repeats_of(once, program)
    renamed = needs_functional_form(program)
    if repeats is not None and (renamed or notes):
        raise InDoubt("the model changes what it holds" if renamed else notes[0])
    return _Exported(functional_form(program) if renamed else program, asked, notes, written, repeats)
