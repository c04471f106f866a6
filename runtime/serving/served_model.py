"""An artifact that is served, whatever protocol asks: its engines, and the requests and texts that they work on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from runtime.errors import InputError
from runtime.manifest.manifest import Manifest
from runtime.serving.admission import (
    DEFAULT_LIMITS,
    Admission,
    Arrays,
    Batch,
    Expired,
    Limits,
    NotServing,
    Overloaded,
    RequestFailed,
    WantedOutputs,
)
from runtime.serving.engines.hosts import Followers, HostJob
from runtime.serving.engines.messages import EngineMessage
from runtime.serving.engines.supervisor import EngineState, EngineStatus, Supervisor
from runtime.serving.interface import Interface
from runtime.serving.texts import Texts

# The HTTP status of what `ServedModel.answer` raises.
STATUS: Mapping[type[Exception], int] = {
    InputError: 400,
    Overloaded: 429,
    RequestFailed: 500,
    NotServing: 503,
    Expired: 504,
}
OBSERVED_FOR = 60.0  # seconds for which stages are observed after somebody asked
_LOOK = 2.0  # seconds between two observations


def http_status(error: Exception) -> int:
    """The HTTP status of what `ServedModel.answer` raises; 500 for anything else."""
    if isinstance(error, RequestFailed) and error.fault:
        return 400
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)


class ServedModel:
    """The engines of an artifact, which are alike, and what they work on.  Lives on one event loop."""

    def __init__(
        self,
        artifact: Path,
        engines: Sequence[Sequence[str]],
        limits: Limits = DEFAULT_LIMITS,
        exact: bool = False,
        observe: Callable[[Batch], None] = lambda _: None,
        timed: Callable[[float, float], None] = lambda waited, ran: None,
        job: HostJob | None = None,
        changed: Callable[[int, EngineStatus], None] = lambda engine, status: None,
    ) -> None:
        """`engines`: the arguments of each; `exact`: no request shares a batch; `observe` and `timed`: see Admission.

        `job`: of the one engine whose stages are on several hosts; `changed`: called with the number of an engine and
        its new state.  Raises ManifestError.
        """
        self.interface = Interface(Manifest.read(artifact))
        self.artifact = artifact
        self._exact = exact
        self.admission = Admission(self._run, self._limits(limits), observe, timed, self.interface.batching)
        self.texts = Texts(self._send, limits.waiting * len(engines))
        self.supervisors = [
            Supervisor(
                arguments,
                partial(self._told, engine),
                partial(self._lost, engine),
                job.variables(0) if job else {},
                partial(changed, engine),
            )
            for engine, arguments in enumerate(engines)
        ]
        self._followers = Followers(job, job.ranks(0)[1:], engines[0]) if job else None
        self._draining = False
        self._stages: dict[int, list[dict[str, Any]]] = {}  # as each engine observed them last
        self._wanted = 0.0  # until when stages are observed
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the engines."""
        if self._followers is not None:
            self._followers.start()
        for supervisor in self.supervisors:
            supervisor.start()
        self._looking = asyncio.get_running_loop().create_task(self._look(), name="look")

    async def stop(self, why: str = "the server ends") -> None:
        """End the engines; what still waits gets no answer."""
        self._close(why)
        if self._looking is not None:
            self._looking.cancel()
        if self._followers is not None:
            await self._followers.stop()
        await asyncio.gather(*(supervisor.stop() for supervisor in self.supervisors))

    def drain(self) -> None:
        """Say that no more requests are wanted; those that are here are answered."""
        self._draining = True

    @property
    def is_ready(self) -> bool:
        """Whether a request would run now."""
        return not self._draining and any(status.state is EngineState.READY for status in self.engines)

    @property
    def state(self) -> str:
        """The state of the engines, for people: of several, that of the first that is not ready."""
        if self._draining:
            return "draining"
        return next((str(status) for status in self.engines if status.state is not EngineState.READY), "ready")

    @property
    def engines(self) -> list[EngineStatus]:
        return [supervisor.status for supervisor in self.supervisors]

    async def answer(self, arrays: Arrays, seconds: float | None = None, outputs: Sequence[str] = ()) -> Arrays:
        """The outputs for these inputs: all, or those named, or parts of them as `logits[:, -1]`.

        Raises InputError, and what `Admission.answer` does.
        """
        if self.interface.writes_texts:
            raise InputError("this model writes texts; ask it by /v1/completions or /v1/chat/completions")
        arrays = self.interface.given(arrays)
        self.interface.check(arrays)
        parts = self.interface.parts(outputs) if outputs else ()
        key = None if self._exact else self.interface.batching.key(arrays)
        return await self.admission.answer(arrays, None if key is None else (key, parts), seconds, parts)

    def stages(self) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
        """The engine, the number and the load of each stage, as observed last; has them observed for a while."""
        self._wanted = monotonic() + OBSERVED_FOR
        for engine, stages in sorted(self._stages.items()):
            yield from ((engine, number, load) for number, load in enumerate(stages))

    # ---- the engines

    def _limits(self, limits: Limits) -> Limits:
        most = self.interface.most_rows
        return limits if most is None else Limits(limits.waiting, min(limits.rows, most), limits.seconds)

    def _send(self, engine: int, message: EngineMessage) -> None:
        self.supervisors[engine].send(message)

    def _run(self, engine: int, number: int, arrays: Arrays, wanted: WantedOutputs) -> None:
        self._send(engine, EngineMessage("run", {"id": number, **wanted}, arrays))

    def _told(self, engine: int, message: EngineMessage) -> None:
        fields = message.fields
        match message.kind:
            case "ready":
                self.admission.opened(fields["stages"], engine)
                self.texts.opened(engine)
            case "begun":
                self.texts.begun(fields)
            case "step":
                self.texts.step(fields)
            case "end":
                self.texts.ended(fields["id"])
            case "text_error":
                self.texts.failed(fields["id"], fields["message"], fault=fields["whose"] == "input")
            case "result":
                self.admission.done(fields["id"], message.arrays)
            case "error":
                self.admission.failed(fields["id"], fields["message"], fault=fields["whose"] == "input")
            case "stages":
                self._stages[engine] = fields["stages"]

    def _lost(self, engine: int, why: str) -> None:
        self._stages.pop(engine, None)
        if all(status.state is EngineState.FAILED for status in self.engines):
            self._close(why)
        else:
            self.admission.lost(engine)
            self.texts.lost(engine)

    def _close(self, why: str) -> None:
        self.admission.close(why)
        self.texts.close(why)

    async def _look(self) -> None:
        with suppress(asyncio.CancelledError):
            while True:
                if monotonic() < self._wanted:
                    for engine in range(len(self.supervisors)):
                        self._send(engine, EngineMessage("observe"))
                await asyncio.sleep(_LOOK)
