"""--verify: whether the stages return what the uncut model returns, call after call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, TypeAlias

import torch

from ir.analysis.bind import SizeValues, allowed_sizes
from ir.analysis.interpret import interpret
from ir.analysis.programs import program_of
from ir.analysis.random_numbers import draws_numbers
from ir.capture.checks.values import of_size, other_values
from ir.capture.export.gradient_hooks import gradient_hooks_seen
from ir.capture.unregistered_state.places import Place, leaves
from ir.capture.unregistered_state.restoring import put_back
from ir.capture.unregistered_state.snapshots import copied_values, differences, held_around, outermost
from ir.checkpoint.checkpoint import Checkpoint
from ir.errors import CaptureError, CompileError, StateError, VerifyError
from ir.graph import Graph
from ir.objects.signature import Signature, call, flatten
from ir.sizes import at, in_layout
from ir.sources import Source, with_values
from ir.text.names import listed_names
from ir.text.units import format_bytes
from passes.compilation.rounding import EXACT, Rounding, distance, equal_results, rounding_between
from runtime import InputError, ManifestError, Pipeline, StageError

Flattened: TypeAlias = tuple[list[Any], Any]
"""The leaves and the containers of what a call returned."""

_CALLS = ("the example", "the example again", "other values of the example's kind")


def compare(source: Source, folder: Path, graph: Graph) -> str:
    """Compare each program with the model.  Returns the verdict; raises VerifyError where they differ."""
    uncut, loaded = _as_its_library_loads_it(source)
    if not source.variants:
        return _compared(source, uncut, folder, graph) + loaded
    verdicts = list[str]()
    for i, called in enumerate(source.calls):
        mine, other = (replace(one, args=called.args, kwargs=called.kwargs) for one in (source, uncut))
        verdicts.append(f"{called.name}: {_compared(mine, other, folder, program_of(graph, i))}")
    return "; ".join(verdicts) + loaded


def _compared(source: Source, uncut: Source, folder: Path, graph: Graph) -> str:
    """Run the model and its stages three times in a row.  Returns the verdict.

    The calls are the example, the example again, and inputs of the same types with other values and, where sizes are
    dynamic, other sizes; `graph` says which.  The last is left out where the model itself does not take it.
    `uncut` has the model to compare with, `source` the one that was captured.
    Raises VerifyError where they differ, CaptureError where the model does from its own export, and StateError where it
    keeps something from call to call that stages do not, random numbers among it.
    """
    calls = _calls(source, graph)
    with with_values(uncut.model, uncut.weights):
        wanted, again = (_run_uncut(uncut, graph.signature, calls) for _ in range(2))
        if not _all_alike(wanted, again):
            _require_random(uncut, graph.signature, calls)
            return "the model is not deterministic: two runs of it differ, so there is nothing to compare with"
    rounded = EXACT
    with _running(folder) as pipe:
        for arguments, want, what in zip(calls, wanted, _CALLS, strict=False):
            got = flatten(call(pipe, graph.signature.parameters, deepcopy(arguments)))
            when = "" if what == _CALLS[0] else f", called with {what}"
            try:
                rounded = max(rounded, _require_same(want, got, when))
            except VerifyError as e:
                raise _error(e, source, graph, got, first=not when) from e
    more = "" if len(wanted) == len(_CALLS) else "; the model takes no other values than the example's"
    return f"the stages return what the uncut model returns, {rounded}, in {len(wanted)} calls{more}"


def _as_its_library_loads_it(source: Source) -> tuple[Source, str]:
    """The source with the model that its library loads, where that fits in memory, and words that say which it is."""
    if not isinstance(source.weights, Checkpoint):
        return source, ""
    if source.library is None:
        return source, "; its weights are as stagecut reads them"
    needed = sum(p.nbytes for p in source.model.parameters())
    if needed > _free_memory():
        return source, f"; its weights are as stagecut reads them, as {format_bytes(needed)} do not fit in memory"
    return replace(source, model=source.library(), weights={}), "; its weights are as its own library loads them"


def _free_memory() -> float:
    """Bytes that a process may take: those that are free, and those of cached files."""
    try:
        listed = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(listed["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):  # not on Linux
        return inf


def _error(error: VerifyError, source: Source, graph: Graph, got: Flattened, first: bool) -> CompileError:
    """The error to raise for a call that returned `got`, the first one or a later one, with what explains it."""
    if draws_numbers(lambda: _captured(source, graph)):  # and yet it returned the same in two runs
        return StateError(
            f"{error}: the model draws random numbers that it seeds itself, or sets torch's back to those before; the "
            "stages draw whatever torch's seed gives"
        )
    if first and _is_as_captured(source, graph, got):
        return CaptureError(f"{error}: while it is exported, forward computes something else than when it is called")
    if first or not (names := _kept(source, graph.signature)):
        return error
    kept = listed_names(names, 1)
    return StateError(f"{error}: the model keeps {kept} from call to call, the stages do not")


def _is_as_captured(source: Source, graph: Graph, got: Flattened) -> bool:
    """Whether the stages return for the example what the model was captured as."""
    found = _captured(source, graph)
    returned = [x for x in got[0] if isinstance(x, torch.Tensor)]
    return len(found) == len(returned) and all(map(equal_results, found, returned))


def _captured(source: Source, graph: Graph) -> Sequence[torch.Tensor]:
    """The results of the graph for the example."""
    tensors = graph.signature.bind(source.args, source.kwargs)
    return interpret(graph, [t.clone() for t in tensors], source.weights).outputs


@contextmanager
def _running(folder: Path) -> Iterator[Pipeline]:
    try:
        with Pipeline.load(folder, devices=["cpu"]) as pipe:
            yield pipe
    except (StageError, InputError, ManifestError) as e:
        raise VerifyError(f"the stages do not run: {e}") from e


def _require_same(wanted: Flattened, got: Flattened, when: str) -> Rounding:
    """The largest rounding in what the stages returned.  Raises VerifyError where it is something else."""
    if str(got[1]) != str(wanted[1]):
        raise VerifyError(f"the stages return other containers than the model{when}: {got[1]}, not {wanted[1]}")
    found = EXACT
    for i, (a, b) in enumerate(zip(wanted[0], got[0], strict=True)):
        if (rounded := rounding_between(a, b)) is None:
            raise VerifyError(f"output {i} of the stages differs from the model's{when}{_difference(a, b)}")
        found = max(found, rounded)
    return found


def _calls(source: Source, graph: Graph) -> list[Mapping[str, Any]]:
    """The arguments of each call, by the names of the model's parameters."""
    tensors = graph.signature.bind(source.args, source.kwargs)
    if graph.decoding.page:  # rows that share pages would overwrite each other's keys in any order
        tokens = [value.name == "input_ids" for value in graph.inputs]
        others = [other_values(t) if new else t for t, new in zip(tensors, tokens, strict=True)]
    else:
        larger = next((sizes for sizes in allowed_sizes(graph) if sizes != graph.hints), graph.hints)
        resized = zip(_resized(tensors, graph, larger), graph.layouts, strict=True)
        others = [in_layout(other_values(t), layout) for t, layout in resized]
    return [graph.signature.arguments.fill(given) for given in (tensors, tensors, others)]


def _resized(tensors: Sequence[torch.Tensor], graph: Graph, sizes: SizeValues) -> Iterator[torch.Tensor]:
    """The example's tensors, repeated or cut to other sizes."""
    for tensor, value in zip(tensors, graph.inputs, strict=True):
        for i, dim in enumerate(value.type.shape):
            if not isinstance(dim, int):
                tensor = of_size(tensor, i, at(dim, sizes))
        yield tensor


def _run_uncut(source: Source, signature: Signature, calls: Sequence[Mapping[str, Any]]) -> list[Flattened]:
    """Run the model on calls in a row, without one of other values that it rejects, and put back what it changed."""
    results: list[Flattened] = []
    with torch.no_grad(), gradient_hooks_seen(), put_back(source.model):
        for arguments in calls:
            try:
                found, spec = flatten(call(source.model, signature.parameters, deepcopy(arguments)))
            except Exception:
                if len(results) < len(_CALLS) - 1:
                    raise
                break
            results.append(([x.clone() if isinstance(x, torch.Tensor) else x for x in found], spec))
    return results


def _require_random(source: Source, signature: Signature, calls: Sequence[Mapping[str, Any]]) -> None:
    """Raise StateError for a model whose runs differ although torch draws the same random numbers in them."""
    seeded: list[list[Flattened]] = []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            seeded.append(_run_uncut(source, signature, calls))
    if not _all_alike(*seeded):
        raise StateError(
            "the model returns something else when it is called again with the same inputs and random numbers: it "
            "keeps something that stages do not, as in an iterator, or draws numbers that are not torch's"
        )


def _all_alike(runs: Sequence[Flattened], others: Sequence[Flattened]) -> bool:
    """Whether two runs of the same calls return the same."""
    return len(runs) == len(others) and all(map(_alike, runs, others))


def _kept(source: Source, signature: Signature) -> list[str]:
    """Places that a call changes: attributes of the model, variables around it; tensors, perhaps state, come last."""
    model, arguments = source.model, signature.arguments.fill(signature.bind(source.args, source.kwargs))
    registered = [name for name, _ in model.named_buffers(remove_duplicate=False)]

    def items_in() -> Mapping[Place, Any]:
        return {**copied_values(leaves(model, registered)), **held_around(model)}

    with torch.no_grad(), put_back(model):
        before = items_in()
        call(model, signature.parameters, deepcopy(arguments))
        places = differences(before, [after := items_in()])
    return list(outermost(sorted(places, key=lambda p: isinstance(after.get(p), torch.Tensor))))


def _alike(a: Flattened, b: Flattened) -> bool:
    return len(a[0]) == len(b[0]) and all(map(equal_results, a[0], b[0]))


def _difference(a: Any, b: Any) -> str:
    tensors = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.shape == b.shape
    return f" by at most {distance(a, b):.3g}" if tensors else f": {a!r} and {b!r}"
