"""The processes that this one starts for stages: started, watched, restarted and ended by it."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread

import torch

from runtime.device.settings import torch_settings
from runtime.distributed.exit import kill_group
from runtime.engine.channel import Channel
from runtime.engine.engine import Engine
from runtime.errors import StageLost
from runtime.manifest.manifest import Manifest
from runtime.processes.choice import reach_next
from runtime.processes.member import stages_of
from runtime.processes.message_socket import MessageSocket
from runtime.processes.orders import BeginSession, LoadStages
from runtime.processes.session import CALLER, Places, session_ports
from runtime.processes.start import can_be_copied, start_member
from runtime.processes.watch import GRACE, SILENCE, Members, StageProcess, end_members, watch
from runtime.stage.compiling.compiled_cache import bytecode_folder
from runtime.stage.compiling.compiler import begin_import
from runtime.stage.loader import check_stages
from runtime.stage.speed import Speed


class HostBetween(Exception):
    """Raised where tensors from one accelerator to another would go through the host's memory."""


class StageProcesses:
    """A process for each device of a plan, or fewer, of which one may be this one."""

    def __init__(self, job: LoadStages, manifest: Manifest, strict: bool, direct: bool = False) -> None:
        """Start the processes, which load their stages: see `wait_loaded`.  Load those of this process meanwhile.

        `job`: what each is told, apart from its number; `strict`: see `check_stages`; `direct`: that this process has
        stages only where their tensors need no host in between.  Raises ManifestError, DeviceError or HostBetween.
        """
        check_stages(job.folder, manifest, range(len(manifest.stages)), strict)
        self._job = job
        self._places = Places(manifest, job.processes, job.devices)
        self._places.links()  # raises ManifestError before anything is started
        self._shared = shared = Members()
        self._limit = job.timeout or SILENCE
        self._thread = Thread(target=watch, args=(shared, self._places, self._limit), daemon=True, name="processes")
        self._end = weakref.finalize(self, end_members, shared, self._thread, os.getpid())
        self._engine: Engine | None = None  # of the last session
        try:
            direct = direct and CALLER in job.processes
            if direct and not can_be_copied():  # new Pythons are started for seconds, so not in vain
                _require_direct(job.devices)
            self._start_missing()  # before this process uses a device, and so cannot be copied
            if direct:
                _require_direct(job.devices)
            self._own = stages_of(job, manifest) if CALLER in job.processes else ()
        except BaseException:
            self.close()
            raise

    @property
    def count(self) -> int:
        """The processes that have stages, of which this one may be one."""
        return len({*self._places.processes})

    @property
    def pids(self) -> dict[int, tuple[int, ...]]:
        """The ids of the processes that live, and the stages of each."""
        shared = self._shared
        with shared.changed:
            living = [] if shared.ended.is_set() else [m for m in shared.members.values() if not m.is_lost]
        return {m.process.pid: self._stages(m.number) for m in living}

    def wait_loaded(self) -> None:
        """Wait until the processes have done all that they must do, or one has failed: others may load for minutes.

        Raises ManifestError, DeviceError or StageLost, or PipelineClosed if they are ended meanwhile.
        """
        shared = self._shared
        with shared.changed:
            shared.changed.wait_for(lambda: shared.faults() or shared.is_settled())
            faults = shared.faults()
        if faults:
            raise faults[0]
        shared.require_open()

    def begin(self) -> Engine:
        """Start a session: the engine of this process.

        Starts again the processes that were lost; the others keep their weights.  All state is that of the start.
        Raises as `wait_loaded` does, and StageLost where a stage of this process does not come to an end.
        """
        shared = self._shared
        self._settle()
        self._reset_own()
        self._start_missing()
        self.wait_loaded()
        own, passed = self._connect()
        alarm = Channel[None]()
        ports = session_ports(self._places, CALLER, own, alarm)
        outputs = {self._places.devices[p.route.source or 0] for p in ports.inward if _carries(p.route.programs)}
        limit = self._job.timeout if self._own else None
        engine = self._engine = Engine(self._places.manifest, self._own, limit, ports, outputs)
        with shared.changed:
            shared.closables = engine.closables
            for number, ends in passed.items():
                shared.members[number].order(BeginSession(tuple(ends)), [end.fileno() for end in ends.values()])
            lost = shared.faults()
        for ends in passed.values():
            for end in ends.values():
                end.forget()
        if lost:  # meanwhile
            engine.close()
            raise lost[0]
        return engine

    def close(self) -> None:
        """End the processes, wait until they have ended, and release the stages of this one."""
        self._end()
        self._own, self._engine = (), None

    def _start_missing(self) -> None:
        """Start the processes that are not there, or were lost.  Raises PipelineClosed."""
        shared = self._shared
        with shared.changed:
            shared.require_open()
            for number in sorted({*self._places.processes} - {CALLER}):
                old = shared.members.get(number)
                if old is None or old.is_lost:
                    if old is not None:
                        old.process.wait()
                    shared.members[number] = self._start(number)
        if not self._thread.is_alive():
            self._thread.start()

    def _reset_own(self) -> None:
        """Have the state of this process's stages be that of the start, once they have ended the session before."""
        if self._engine is None:
            return
        self._engine.close()
        if self._own and self._engine.is_running:
            stage = self._own[0]
            cause = RuntimeError("it does not come to an end, and runs in the process that loaded the pipeline")
            raise StageLost(stage.index, str(stage.device), cause)
        for stage in self._own:
            stage.reset()

    def _settle(self) -> None:
        """Wait until the members that live have stopped the session before; kill those that do not.

        Those that load, as another one could not, go on.
        """
        shared = self._shared
        with shared.changed:
            shared.stop()
            if not shared.changed.wait_for(shared.is_stopped, GRACE):
                for slow in shared.members.values():
                    if slow.waits and not (slow.is_lost or slow.loads):
                        kill_group(slow.process.pid)
            shared.changed.wait_for(shared.is_stopped)

    def _start(self, number: int) -> StageProcess:
        here, there = MessageSocket.pair()
        device = self._places.devices[self._places.processes.index(number)]
        try:
            process = start_member(there, device, self._job.threads, partial(self._begin_import, number))
        except BaseException:
            for end in (here, there):
                end.close()
            raise
        started = StageProcess(number, process, here)
        started.order(replace(self._job, number=number))
        return started

    def _begin_import(self, number: int) -> None:
        """Begin what a process can do before it knows of its stages."""
        devices = {i: self._places.devices[i] for i in self._stages(number)}
        if names := self._job.speed.imports(self._job.folder, self._places.manifest, devices):
            begin_import(bytecode_folder(self._job.folder), names)

    def _connect(self) -> tuple[dict[int, MessageSocket], dict[int, dict[int, MessageSocket]]]:
        """A connection for each link: this process's ends by the number of the route, and those of each member."""
        ends: dict[int, dict[int, MessageSocket]] = {number: {} for number in (CALLER, *self._places.processes)}
        for route, processes in self._places.links().items():
            for process, end in zip(processes, MessageSocket.pair(), strict=True):
                ends[process][route] = end
        return ends.pop(CALLER), ends

    def _stages(self, number: int) -> tuple[int, ...]:
        return tuple(stage for stage, process in enumerate(self._places.processes) if process == number)


def job_of(
    folder: Path,
    processes: Sequence[int],
    devices: Sequence[torch.device],
    speed: Speed,
    timeout: float | None,
    tokens: int = 0,
) -> LoadStages:
    """The order that processes are given first.  `processes`: that of each stage; `tokens`: see LoadStages."""
    return LoadStages(
        folder.resolve(),
        CALLER,
        tuple(processes),
        tuple(devices),
        speed,
        timeout,
        beat=min(1.0, (timeout or SILENCE) / 10),
        threads=max(1, torch.get_num_threads() // len({*processes})),
        settings=torch_settings(),
        seed=torch.initial_seed(),
        tokens=tokens,
    )


def _require_direct(devices: Sequence[torch.device]) -> None:
    """Raises HostBetween.  Sets the devices up."""
    if not reach_next(devices):
        raise HostBetween


def _carries(programs: Sequence[object]) -> bool:
    return any(getattr(program, "takes", ()) for program in programs)
