"""Routes: the tensors that one stage sends to another, from the manifest's tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from runtime.errors import ManifestError
from runtime.manifest.manifest import Manifest, ProgramEntry, ProgramStage


@dataclass(frozen=True)
class RouteTensors:
    """The tensors that a route carries in one program."""

    takes: tuple[int, ...] = ()  # indices among the tensors that the source sends
    places: tuple[int, ...] = ()  # indices among the tensors that the target receives


@dataclass(frozen=True)
class Route:
    """The way from one stage to another.  None is the caller: it sends inputs, gets outputs.

    Every batch takes every route, whatever its program, if only with no tensors: so all ports stay in step.
    """

    source: int | None
    target: int | None
    programs: tuple[RouteTensors, ...]

    @property
    def capacity(self) -> int | None:
        """The number of batches that may queue on it; None for no limit.

        While all stages are busy, the target is `target - source` batches behind the source, so that many
        queue on a route that skips stages; one more keeps the source from blocking.  Routes from and to
        the caller are bounded by the batches that the caller has in flight.
        """
        return None if self.source is None or self.target is None else self.target - self.source + 1


_Ends = tuple[int | None, int | None]  # source and target


def routes(manifest: Manifest) -> tuple[Route, ...]:
    """All routes.  The caller has one to and from each stage, if only to carry sizes there and failures back.

    Raises ManifestError if a stage receives a tensor that none sends to it, or an output of the model is missing.
    """
    if not manifest.stages or not manifest.programs:
        missing = "programs" if manifest.stages else "stages"
        raise ManifestError(f"the manifest has no {missing}; compile the model again")
    tables = [{**dict(_to_stages(program)), **dict(_to_caller(program))} for program in manifest.programs]
    return tuple(
        Route(*ends, tuple(table.get(ends, RouteTensors()) for table in tables))
        for ends in dict.fromkeys(ends for table in tables for ends in table)
    )


def _to_stages(program: ProgramEntry) -> Iterator[tuple[_Ends, RouteTensors]]:
    inputs = {tensor.name: i for i, tensor in enumerate(program.inputs)}
    for target, stage in enumerate(program.stages):
        yield (None, target), _carried(None, target, stage, inputs)
        for source in dict.fromkeys(receive.source for receive in stage.receives if receive.source is not None):
            if source not in range(target):
                raise ManifestError(f"stage {target} receives from stage {source}, which does not run before it")
            yield (source, target), _carried(source, target, stage, _sent(program.stages[source], target))


def _carried(source: int | None, target: int, stage: ProgramStage, offered: Mapping[str, int]) -> RouteTensors:
    wanted = {place: r.tensor.name for place, r in enumerate(stage.receives) if r.source == source}
    for name in wanted.values():
        if name not in offered:
            giver = "the model has no such input" if source is None else f"stage {source} does not send it"
            raise ManifestError(f"stage {target} receives `{name}`, but {giver}; compile the model again")
    return RouteTensors(tuple(offered[name] for name in wanted.values()), tuple(wanted))


def _sent(stage: ProgramStage, target: int) -> dict[str, int]:
    return {send.tensor.name: i for i, send in enumerate(stage.sends) if target in send.stages}


def _to_caller(program: ProgramEntry) -> Iterator[tuple[_Ends, RouteTensors]]:
    places: list[int] = []
    for source, stage in enumerate(program.stages):
        ends = [(i, output) for i, send in enumerate(stage.sends) for output in send.outputs]
        places += [output for _, output in ends]
        yield (source, None), RouteTensors(tuple(i for i, _ in ends), tuple(output for _, output in ends))
    if sorted(places) != list(range(len(program.outputs))):
        raise ManifestError(f"the stages send the outputs {sorted(places)} of {len(program.outputs)}, not each once")
