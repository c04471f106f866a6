"""Ways to record a model that torch.export does not take as it is; each is checked against the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from torch import nn

from ir.capture.checks.second_input import Verdict, compare_with_model, raised_by
from ir.capture.diagnosis import NotExported, raised_itself
from ir.capture.export.example import Example
from ir.capture.export.fixed.fixed_inputs import data_inputs, looks_up, may_be_fixed, may_be_named, with_fixed_values
from ir.capture.export.fixed.origins import Origins
from ir.capture.export.meta_weights import LIMIT, in_memory
from ir.capture.export.recording import ONE_BY_ONE, Recording, record, record_strictly
from ir.capture.fallbacks.opaque_modules import NotWhole, kept_whole
from ir.capture.fallbacks.traced import record_traced
from ir.capture.repeats.alike import alike_modules
from ir.capture.sizes.dynamic import FixedSizes, without_fixed
from ir.errors import CaptureError
from ir.graph import Call, Graph, is_whole, opaque_of
from ir.objects.opaque import Opaque
from ir.text.units import format_bytes

Way: TypeAlias = Callable[[Example], Recording]


def record_somehow(example: Example, soft: bool = False) -> tuple[Example, Recording, Way]:
    """A recording of the model, and the way that made it.  Raises CaptureError where no way succeeds.

    The example that is returned has inputs and buffers fixed whose values decide shapes.
    """
    try:
        return example, record(example), record
    except NotExported as e:
        error = e.with_traceback(None)  # and no longer handled: it would be taken for a cause of those that follow
    used, recording, way = _otherwise_recorded(replace(example, repeats=False, packs=False), error, soft)
    alike = example.repeats and alike_modules(example.model)
    return used, noted(recording, f"layers are {ONE_BY_ONE}: {error.reason}") if alike else recording, way


def _otherwise_recorded(example: Example, error: NotExported, soft: bool) -> tuple[Example, Recording, Way]:
    """The same for a model that does not export as it is, for the reason that the error says."""
    fixing = FixValues(example, error, soft, data_inputs(example))
    if found := fixing(loosely=False):
        return *found, record
    other: tuple[Recording, Way] | None = None
    refused: CaptureError = fixing.error
    try:
        other = _otherwise(example, _advised(example, (error, fixing.error)))
        if not _keeps_most(other[0].graph, example.model):
            return example, *other
    except CaptureError as e:
        refused = e
    if found := fixing(loosely=True):
        return *found, record
    if other is None:
        raise refused
    return example, *other


def _keeps_most(graph: Graph, model: nn.Module) -> bool:
    """Whether a module with more than half of the model's weights is kept whole."""
    return any(2 * _weights(model.get_submodule(kept.path)) > _weights(model) for kept in graph.whole)


def _weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _advised(example: Example, errors: Sequence[NotExported]) -> NotExported:
    """The first error, with the inputs or sizes that might be fixed against all of them."""
    first, origins = errors[0], frozenset().union(*(_decisive(e.origins) for e in errors))
    named = sorted(o.name for o in origins if may_be_named(example, o))
    sizes = sorted(o.name for o in origins if o.kind == "size")
    others = [o for o in origins if o.kind not in ("buffer", "size") and o.name not in named]
    if not all(e.by_values for e in errors) or others:
        return first
    listed = " and ".join(f"`{name}`" for name in named or sizes)
    if named:
        flags = " ".join(f"--fix {name}" for name in named)
        return first.advising(f"fix the values of {listed} at those of the example: {flags}")
    return first.advising(f"leave {listed} out of the dynamic sizes") if sizes else first


def _decisive(origins: Origins) -> Origins:
    """Those without sizes, if there are others: these may do."""
    return frozenset(origin for origin in origins if origin.kind != "size") or origins


@dataclass
class FixValues:
    """Fixes the inputs and buffers whose values decide, as far as they may be fixed.

    Where none does, what is made of numbers alone decides, which can be known.
    """

    example: Example
    error: NotExported
    soft: bool
    data: Origins  # inputs that are fixed at last
    notes: tuple[str, ...] = ()

    def __call__(self, loosely: bool) -> tuple[Example, Recording] | None:
        """The example with values fixed, and its recording; None where others decide, too."""
        while self.error.by_values and ((origins := _decisive(self.error.origins)) or not self.example.computed):
            if not loosely and not self.data.isdisjoint(origins):
                return None
            if not all(may_be_fixed(self.example, origin, self.soft, loosely) for origin in origins):
                return None
            self._fix(origins)
            try:
                recording = self._recorded()
            except NotExported as e:
                self.error = e
                continue
            right = not looks_up(recording.graph, self.example) and _is_right(recording, self.example)
            return (self.example, noted(recording, *self.notes)) if right else None
        return None

    def _fix(self, origins: Origins) -> None:
        self.example = with_fixed_values(self.example, origins)
        sizes = sorted(origin.name for origin in origins if origin.kind == "size")
        why = f"{self.error.reason}, in {self.error.where}"
        self.notes += tuple(f"`{name}` cannot be dynamic: {why}; it stays as it is in the example" for name in sizes)

    def _recorded(self) -> Recording:
        """A recording; sizes that the model fixes for these values lose their marks."""
        while True:
            try:
                return record(self.example)
            except FixedSizes as e:
                marks, notes = without_fixed(self.example.marks, e, self.soft)
                self.example, self.notes = replace(self.example, marks=marks), (*self.notes, *notes)


def _is_right(recording: Recording, example: Example) -> bool:
    with in_memory(example.model) as runs:
        return not runs or compare_with_model(recording.graph, example) is not Verdict.DIFFERENT


def _otherwise(example: Example, error: NotExported) -> tuple[Recording, Way]:
    """A recording by one of the other ways, each of which is compared with the model."""
    with in_memory(example.model) as runs:
        if runs and error.may_be_its_own and (raised := raised_by(example)) is not None:
            raise raised_itself(raised, example.model)
        for way in (record_strictly, record_traced) if runs else ():
            with suppress(CaptureError):
                recording = way(example)
                if compare_with_model(recording.graph, example) is Verdict.SAME:
                    return noted(recording, f"recorded {_HOW[way]}: {error.reason}, in {error.where}"), way
        whole = KeepWhole(example.model, error)
        recording = whole(example)
        verdict = compare_with_model(recording.graph, example) if runs else Verdict.UNKNOWN
    if verdict is Verdict.DIFFERENT:
        refused = NotWhole(" and ".join(whole.reasons), "on a second input the stages would compute something else")
        raise CaptureError(f"{error}\n  {refused}")
    unchecked = (
        f"what is kept whole was not compared with the model, whose weights take more than {format_bytes(LIMIT)}"
    )
    return (recording if runs else noted(recording, unchecked)), whole


_HOW = {
    record_strictly: "by reading the model's bytecode, without the places where gradients end",
    record_traced: "operator by operator, after autograd, without the places where gradients end",
}


_MOVE_IT = "or move it into a module of its own, below the model: that one is then kept whole in one stage"


def noted(recording: Recording, *notes: str) -> Recording:
    return replace(recording, graph=replace(recording.graph, notes=(*recording.graph.notes, *notes)))


@dataclass
class KeepWhole:
    """A way that keeps the innermost modules that do not export whole, or else the modules around them."""

    model: nn.Module
    error: NotExported
    reasons: dict[str, NotExported] = field(default_factory=dict)  # by path of a module that is kept whole
    refused: dict[str, NotWhole] = field(default_factory=dict)
    known: list[Opaque] = field(default_factory=list)

    def __call__(self, example: Example) -> Recording:
        if not self.reasons:
            self._keep(self.error.where.module, self.error)
        while True:
            try:
                with kept_whole(example, self.reasons, self.known):
                    recording = record(example)
                break
            except NotWhole as e:
                reason = self.reasons[e.path]
                self._refuse(e)
                self._keep("" if e.around else e.path.rpartition(".")[0], reason)
            except NotExported as e:
                self._keep(e.where.module, e)
        return self._noted(recording)

    def _keep(self, path: str, reason: NotExported) -> None:
        """Keep a module whole, and with it all modules of its class: they have the same code.  Raises CaptureError."""
        while path and not self._may_be_kept(path):
            path = path.rpartition(".")[0]
        if not path:
            refused = [str(why) for why in self.refused.values()]
            raise CaptureError("\n  ".join([str(reason), *(refused or [_MOVE_IT])]))
        paths = dict.fromkeys((p for p, _ in self.model.named_modules() if _alike(self.model, p, path)), reason)
        self.reasons = _outermost(self.reasons | paths)

    def _may_be_kept(self, path: str) -> bool:
        if path in self.reasons:  # and it was reached all the same
            self._refuse(NotWhole(path, "the model calls something else than its forward"))
        containers = (nn.ModuleList, nn.ModuleDict)
        refused = any(_alike(self.model, path, other) for other in self.refused)
        return not refused and not isinstance(self.model.get_submodule(path), containers)

    def _refuse(self, why: NotWhole) -> None:
        self.refused[why.path] = why
        self.reasons = {p: r for p, r in self.reasons.items() if not _alike(self.model, p, why.path)}

    def _noted(self, recording: Recording) -> Recording:
        nodes = recording.graph.nodes
        whole = tuple(dict.fromkeys(opaque_of(n) for n in nodes if isinstance(n, Call) and is_whole(n)))
        notes = []
        for reason in dict.fromkeys(self.reasons[o.path] for o in whole):
            paths = list(dict.fromkeys(o.path for o in whole if self.reasons[o.path] is reason))
            more = f" and {len(paths) - 1} more {type(self.model.get_submodule(paths[0])).__name__} are"
            kept = f"{more} kept whole, each in one stage" if paths[1:] else " is kept whole in one stage"
            notes.append(f"{paths[0]}{kept}: {reason.reason}, in {reason.where}")
        return noted(replace(recording, graph=replace(recording.graph, whole=whole)), *notes)


def _outermost(reasons: Mapping[str, NotExported]) -> dict[str, NotExported]:
    return {p: r for p, r in reasons.items() if not any(p.startswith(f"{q}.") for q in reasons)}


def _alike(model: nn.Module, path: str, other: str) -> bool:
    """Whether two modules run the same code; torch's own classes are too general to tell."""
    a, b = model.get_submodule(path), model.get_submodule(other)
    return a is b or (type(a) is type(b) and not type(a).__module__.startswith("torch."))
