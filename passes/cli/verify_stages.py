"""--verify: whether the stages return what the uncut model returns, call after call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

from ir.analysis.bind import SizeValues, allowed_sizes
from ir.analysis.interpret import interpret
from ir.analysis.programs import program_of
from ir.capture.checks.values import other_values
from ir.capture.unregistered_state.places import Place, leaves
from ir.capture.unregistered_state.restoring import put_back
from ir.capture.unregistered_state.snapshots import copied_values, differences, held_around, outermost
from ir.errors import CaptureError, CompileError, StateError, VerifyError
from ir.graph import Graph
from ir.objects.signature import Signature, call, flatten
from ir.sizes import at
from ir.sources import Source, with_values
from runtime import InputError, ManifestError, Pipeline, StageError

Flattened: TypeAlias = tuple[list[Any], Any]
"""The leaves and the containers of what a call returned."""

_CALLS = ("the example", "the example again", "other values of the example's kind")


def compare(source: Source, folder: Path, graph: Graph) -> str:
    """Compare each program with the model.  Returns the verdict; raises VerifyError where they differ."""
    if not source.variants:
        return _compared(source, folder, graph)
    calls = (replace(source, args=call.args, kwargs=call.kwargs) for call in source.calls)
    verdicts = (_compared(call, folder, program_of(graph, i)) for i, call in enumerate(calls))
    return "; ".join(f"{call.name}: {verdict}" for call, verdict in zip(source.calls, verdicts, strict=True))


def _compared(source: Source, folder: Path, graph: Graph) -> str:
    """Run the model and its stages three times in a row.  Returns the verdict.

    The calls are the example, the example again, and inputs of the same types with other values and, where sizes are
    dynamic, other sizes; `graph` says which.  The last is left out where the model itself does not take it.
    Raises VerifyError where they differ, CaptureError where the model does from its own export, and StateError where it
    keeps something from call to call that stages do not.
    """
    calls = _calls(source, graph)
    with with_values(source.model, source.weights):
        wanted, again = (_run_uncut(source, graph.signature, calls) for _ in range(2))
        plain = _run_uncut(source, graph.signature, calls, fused=False)
        if not _all_alike(wanted, again, len(plain)):
            _require_random(source, graph.signature, calls)
            return "the model is not deterministic: two runs of it differ, so there is nothing to compare with"
    wanted = wanted[: len(plain)]
    most = 0.0
    with _running(folder) as pipe:
        for arguments, want, unfused, what in zip(calls, wanted, plain, _CALLS, strict=False):
            got = flatten(call(pipe, graph.signature.parameters, deepcopy(arguments)))
            when = "" if what == _CALLS[0] else f", called with {what}"
            try:
                most = max(most, _require_same(want, unfused, got, when))
            except VerifyError as e:
                raise _error(e, source, graph, got, first=not when) from e
    exact = f"within {most:.3g} (its fused layers round otherwise)" if most else "bit for bit"
    more = "" if len(wanted) == len(_CALLS) else "; the model takes no other values than the example's"
    return f"the stages return what the uncut model returns, {exact}, in {len(wanted)} calls{more}"


def _error(error: VerifyError, source: Source, graph: Graph, got: Flattened, first: bool) -> CompileError:
    """The error to raise for a call that returned `got`, the first one or a later one, with what explains it."""
    if first and _is_as_captured(source, graph, got):
        return CaptureError(f"{error}: while it is exported, forward computes something else than when it is called")
    if first or not (names := _kept(source, graph.signature)):
        return error
    more = f" and {len(names) - 1} more" if names[1:] else ""
    return StateError(f"{error}: the model keeps {names[0]}{more} from call to call, the stages do not")


def _is_as_captured(source: Source, graph: Graph, got: Flattened) -> bool:
    """Whether the stages return for the example what the model was captured as."""
    tensors = graph.signature.bind(source.args, source.kwargs)
    found = interpret(graph, [t.clone() for t in tensors], source.weights).outputs
    returned = [x for x in got[0] if isinstance(x, torch.Tensor)]
    return len(found) == len(returned) and all(map(_same, found, returned))


@contextmanager
def _running(folder: Path) -> Iterator[Pipeline]:
    try:
        with Pipeline.load(folder, devices=["cpu"]) as pipe:
            yield pipe
    except (StageError, InputError, ManifestError) as e:
        raise VerifyError(f"the stages do not run: {e}") from e


def _require_same(wanted: Flattened, plain: Flattened, got: Flattened, when: str) -> float:
    """The largest difference, where fused layers make outputs otherwise than `plain` ones; else there is none.

    Raises VerifyError where the stages returned something else.
    """
    if str(got[1]) != str(wanted[1]):
        raise VerifyError(f"the stages return other containers than the model{when}: {got[1]}, not {wanted[1]}")
    most = 0.0
    for i, (a, unfused, b) in enumerate(zip(wanted[0], plain[0], got[0], strict=True)):
        rounded = _rounded(a, unfused)  # by torch's fused layers
        if not _same(a, b) and not (rounded and _close(a, b)):
            raise VerifyError(f"output {i} of the stages differs from the model's{when}{_difference(a, b)}")
        most = max(most, _distance(a, b)) if rounded else most
    return most


def _calls(source: Source, graph: Graph) -> list[Mapping[str, Any]]:
    """The arguments of each call, by the names of the model's parameters."""
    tensors = graph.signature.bind(source.args, source.kwargs)
    if graph.decoding.page:  # rows that share pages would overwrite each other's keys in any order
        tokens = [value.name == "input_ids" for value in graph.inputs]
        others = [other_values(t) if new else t for t, new in zip(tensors, tokens, strict=True)]
    else:
        larger = next((sizes for sizes in allowed_sizes(graph) if sizes != graph.hints), graph.hints)
        others = [other_values(t) for t in _resized(tensors, graph, larger)]
    return [graph.signature.arguments.fill(given) for given in (tensors, tensors, others)]


def _resized(tensors: Sequence[torch.Tensor], graph: Graph, sizes: SizeValues) -> Iterator[torch.Tensor]:
    """The example's tensors, repeated or cut to other sizes."""
    for tensor, value in zip(tensors, graph.inputs, strict=True):
        for i, dim in enumerate(value.type.shape):
            if not isinstance(dim, int):
                tensor = tensor.index_select(i, torch.arange(at(dim, sizes)) % tensor.shape[i])
        yield tensor


def _run_uncut(
    source: Source, signature: Signature, calls: Sequence[Mapping[str, Any]], fused: bool = True
) -> list[Flattened]:
    """Run the model on calls in a row, without one of other values that it rejects, and put back what it changed.

    Not `fused`: without the layers that torch swaps in for eager modules.
    """
    results: list[Flattened] = []
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fused and enabled)
    try:
        with torch.no_grad(), put_back(source.model):
            for arguments in calls:
                try:
                    found, spec = flatten(call(source.model, signature.parameters, deepcopy(arguments)))
                except Exception:
                    if len(results) < len(_CALLS) - 1:
                        raise
                    break
                results.append(([x.clone() if isinstance(x, torch.Tensor) else x for x in found], spec))
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
    return results


def _require_random(source: Source, signature: Signature, calls: Sequence[Mapping[str, Any]]) -> None:
    """Raise StateError for a model whose runs differ although torch draws the same random numbers in them."""
    seeded: list[list[Flattened]] = []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            seeded.append(_run_uncut(source, signature, calls))
    if not _all_alike(*seeded, count=len(calls)):
        raise StateError(
            "the model returns something else when it is called again with the same inputs and random numbers: it "
            "keeps something that stages do not, as in an iterator, or draws numbers that are not torch's"
        )


def _all_alike(runs: Sequence[Flattened], others: Sequence[Flattened], count: int) -> bool:
    """Whether two runs of `count` calls, or of fewer, return the same."""
    runs, others = runs[:count], others[:count]
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
    return len(a[0]) == len(b[0]) and all(map(_same, a[0], b[0]))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
    return type(a) is type(b) and a == b


def _rounded(a: Any, b: Any) -> bool:
    """Whether the model's fused layers make a tensor that differs from that of its plain ones."""
    return isinstance(a, torch.Tensor) and not _same(a, b)


def _close(a: torch.Tensor, b: Any) -> bool:
    """Whether two tensors differ by no more than fused layers round."""
    tolerance = 256 * torch.finfo(a.dtype).eps if a.is_floating_point() else 0
    least = tolerance * max(1.0, float(a.abs().max()) if a.numel() else 0.0)
    return a.dtype == b.dtype and a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=least, equal_nan=True)


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).abs().nan_to_num().max()) if a.numel() else 0.0


def _difference(a: Any, b: Any) -> str:
    tensors = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.shape == b.shape
    return f" by at most {_distance(a, b):.3g}" if tensors else f": {a!r} and {b!r}"
