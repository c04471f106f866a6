"""Routes: the tensors that one stage sends to another, from the manifest's tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from runtime.manifest import Manifest, ManifestError, StageEntry


@dataclass(frozen=True)
class Route:
    """The tensors of a batch that one stage sends to another.  None is the caller: it sends inputs, gets outputs."""

    source: int | None
    target: int | None
    takes: tuple[int, ...]  # indices among the tensors that the source sends
    places: tuple[int, ...]  # indices among the tensors that the target receives

    @property
    def capacity(self) -> int | None:
        """The number of batches that may queue on it; None for no limit.

        While all stages are busy, the target is `target - source` batches behind the source, so that many
        queue on a route that skips stages; one more keeps the source from blocking.  Routes from and to
        the caller are bounded by the batches that the caller has in flight.
        """
        return None if self.source is None or self.target is None else self.target - self.source + 1


def routes(manifest: Manifest) -> tuple[Route, ...]:
    """All routes.  The caller has one to and from each stage, if only to carry sizes there and failures back.

    Raises ManifestError if a stage receives a tensor that none sends to it, or an output of the model is missing.
    """
    if not manifest.stages:
        raise ManifestError("the manifest has no stages; compile the model again")
    return (*_to_stages(manifest), *_to_caller(manifest))


def _to_stages(manifest: Manifest) -> Iterator[Route]:
    inputs = {tensor.name: i for i, tensor in enumerate(manifest.inputs)}
    for target, stage in enumerate(manifest.stages):
        yield _route(None, target, stage, inputs)
        for source in dict.fromkeys(receive.source for receive in stage.receives if receive.source is not None):
            if source not in range(target):
                raise ManifestError(f"stage {target} receives from stage {source}, which does not run before it")
            yield _route(source, target, stage, _sent(manifest.stages[source], target))


def _route(source: int | None, target: int, stage: StageEntry, offered: Mapping[str, int]) -> Route:
    wanted = {place: r.tensor.name for place, r in enumerate(stage.receives) if r.source == source}
    for name in wanted.values():
        if name not in offered:
            giver = "the model has no such input" if source is None else f"stage {source} does not send it"
            raise ManifestError(f"stage {target} receives `{name}`, but {giver}; compile the model again")
    return Route(source, target, tuple(offered[name] for name in wanted.values()), tuple(wanted))


def _sent(stage: StageEntry, target: int) -> dict[str, int]:
    return {send.tensor.name: i for i, send in enumerate(stage.sends) if target in send.stages}


def _to_caller(manifest: Manifest) -> Iterator[Route]:
    places: list[int] = []
    for source, stage in enumerate(manifest.stages):
        ends = [(i, output) for i, send in enumerate(stage.sends) for output in send.outputs]
        places += [output for _, output in ends]
        yield Route(source, None, tuple(i for i, _ in ends), tuple(output for _, output in ends))
    if sorted(places) != list(range(len(manifest.outputs))):
        raise ManifestError(f"the stages send the outputs {sorted(places)} of {len(manifest.outputs)}, not each once")
