"""The engine's process: started, watched and started again, by the front.

A process that ends closes its socket, which is seen at once; one that hangs shows no sign of life, and is killed.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from runtime.awake_clock import AwakeClock
from runtime.serving.engines.messages import EngineMessage, read_message
from runtime.serving.engines.stopped import StoppedProcesses

HUNG_AFTER = 3.0  # seconds without a sign of life after which a process counts as hung
HUNG_LOADING_AFTER = 60.0  # while it loads, as libraries then keep Python from running for seconds
_TICK = 0.1  # seconds between two looks at the time
_LOOK = 1.0  # seconds between two looks at whether a process was stopped that has shown no sign of life yet
PAUSES = (
    0.0,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
)  # seconds before a start, by the number of starts that failed one after another


class EngineState(Enum):
    """The state of an engine."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    MENDING = "mending"  # a stage's process is started again, the others keep their weights
    FAILED = "failed"  # it refused its artifact, and will again
    CLOSED = "closed"


@dataclass
class EngineStatus:
    """Facts about an engine, for health checks, metrics and people."""

    state: EngineState = EngineState.STARTING
    detail: str = ""
    starts: int = 0  # of the process, or of a stage's
    read: int = 0  # bytes, while it loads

    def __str__(self) -> str:
        return f"{self.state.value}: {self.detail}" if self.detail else self.state.value


class Supervisor:
    """One engine: the process, the socket that leads to it, and what to do when either ends."""

    def __init__(
        self,
        arguments: Sequence[str],
        told: Callable[[EngineMessage], None],
        lost: Callable[[str], None],
        variables: Mapping[str, str] = MappingProxyType({}),
        changed: Callable[[EngineStatus], None] = lambda status: None,
    ) -> None:
        """`arguments` and `variables`: of `engine_process`; `told`: what it says; `lost`: it is gone.

        `changed`: called with each new state but the last, when it is closed.
        """
        self.status = EngineStatus()
        self._variables = variables
        self._arguments = list(arguments)
        self._told = told
        self._lost = lost
        self._changed = changed
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._silent: float | None = None  # seconds since its last sign of life; none before the first
        self._running: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The id of the engine's process; 0 before the first."""
        return 0 if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it, and see to it that it runs until `stop`."""
        self._running = asyncio.get_running_loop().create_task(self._keep(), name="supervisor")

    def send(self, message: EngineMessage) -> None:
        """Hand a message to the engine.  What it never reads is lost with it, and `lost` is called then."""
        if self._writer is not None and not self._writer.is_closing():  # uvloop refuses to write to what is closed
            self._writer.write(message.packed())

    async def stop(self) -> None:
        """End the engine: it sees the end of the socket, and is killed if it does not."""
        self.status.state = EngineState.CLOSED
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
        await self._end()

    async def _keep(self) -> None:
        failures = 0
        while self.status.state is not EngineState.FAILED:
            await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
            why = await self._run_once()
            served = self.status.state in (EngineState.READY, EngineState.MENDING)
            failures = 0 if served else failures + 1
            if self.status.state is not EngineState.FAILED:
                self._become(EngineState.STARTING, why)
            self._lost(why)
            await self._end()

    async def _run_once(self) -> str:
        """One life of the process; returns what ended it."""
        reader = await self._launch()
        watch = asyncio.get_running_loop().create_task(self._watch())
        try:
            while True:
                message = await read_message(reader)
                self._silent = 0.0
                match message.kind:
                    case "beat":
                        self._loading(message.fields.get("read", 0))
                    case "refused":
                        self._become(EngineState.FAILED, message.fields["message"])
                        return self.status.detail
                    case "lost":
                        self._become(EngineState.MENDING, message.fields["message"])
                        self._lost(self.status.detail)
                    case "ready":
                        self.status.starts += self.status.state is EngineState.MENDING
                        self._become(EngineState.READY)
                        self._told(message)
                    case _:
                        self._told(message)
        except (asyncio.IncompleteReadError, ConnectionError):
            return "the engine's process ended" if watch.cancel() else "the engine's process hung, and was ended"
        finally:
            watch.cancel()

    async def _launch(self) -> asyncio.StreamReader:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "runtime.serving.engines.engine_process", *self._arguments]
        environment = {**os.environ, **self._variables}
        with theirs:
            command += ["--socket", str(theirs.fileno())]
            # A session of its own: an interrupt at the terminal is for the front, which lets the engine finish.
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], start_new_session=True, env=environment
            )
        self.status.starts += 1
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=1 << 20)
        self._silent = None
        return reader

    async def _watch(self) -> None:
        """End a process that is silent: it hangs, or was stopped.

        Silence counts from its first sign of life on: before, libraries may take minutes to import.
        """
        clock, stopped, since = AwakeClock(_TICK), StoppedProcesses(), 0.0
        while self._silent is None or self._silent < self._patience():
            await asyncio.sleep(_TICK)
            passed = clock.passed()
            if self._silent is not None:
                self._silent += passed
                continue
            since += passed
            if since >= _LOOK:
                stopped.look([self.pid])
                since = 0.0
        self._kill()

    def _patience(self) -> float:
        return HUNG_AFTER if self.status.state is EngineState.READY else HUNG_LOADING_AFTER

    def _loading(self, read: int) -> None:
        if self.status.state is EngineState.STARTING:
            self._become(EngineState.LOADING)
        self.status.read = read

    def _become(self, state: EngineState, detail: str = "") -> None:
        self.status.state, self.status.detail = state, detail
        self._changed(self.status)

    def _kill(self) -> None:
        """End the process at once; those that it started see that, and end, too."""
        if self._process is not None:
            self._process.kill()

    async def _end(self) -> None:
        """Close the socket, and wait for the end of the process."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._process is None:
            return
        for _ in range(60):
            if self._process.poll() is not None:
                return
            await asyncio.sleep(0.05)
        self._kill()
        await asyncio.to_thread(self._process.wait)
