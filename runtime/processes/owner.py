"""The processes that this one starts for stages: started, watched, restarted and ended by it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Condition, Event, Thread, current_thread

import torch

from runtime.device.settings import torch_settings
from runtime.distributed.error_codec import decode
from runtime.distributed.exit import kill
from runtime.engine.channel import Channel, Closable
from runtime.engine.engine import Engine
from runtime.errors import StageError, StageLost
from runtime.manifest.manifest import Manifest
from runtime.processes.message_socket import MessageSocket
from runtime.processes.orders import (
    Alive,
    BeginSession,
    Fault,
    Followed,
    LoadStages,
    Order,
    StopSession,
    receive_report,
    send_order,
)
from runtime.processes.session import CALLER, Places, session_ports
from runtime.processes.start import Started, start_member
from runtime.stage.loader import check_stages
from runtime.stage.speed import Speed

SILENCE = 300.0  # seconds without a sign of life after which a process is given up, unless there is a time-out
_TICK = 0.1  # seconds between two looks at the time
GRACE = 10.0  # seconds that a process has to stop what it runs, before it is killed


@dataclass
class StageProcess:
    """A process that runs stages."""

    number: int
    process: Started
    connection: MessageSocket
    waits: int = 0  # orders that it has not answered
    silent: float = 0.0  # seconds since its last sign of life
    patience: float = SILENCE  # seconds without one after which it is given up; more until it has loaded
    fault: Exception | None = None  # what ended it

    @property
    def is_lost(self) -> bool:
        return self.fault is not None

    def order(self, order: Order, descriptors: Sequence[int] = ()) -> None:
        """Send an order, if the process is still there."""
        self.waits += 1
        with suppress(ConnectionError):
            send_order(self.connection, order, descriptors)


@dataclass
class _Shared:
    """State of the owner and the thread that watches.  `changed` is held to look at it, or to change it."""

    changed: Condition = field(default_factory=Condition)
    members: dict[int, StageProcess] = field(default_factory=dict)
    closables: Sequence[Closable] = ()  # of the engine of this session; none where there is no session
    ended: Event = field(default_factory=Event)

    def stop(self) -> Sequence[Closable]:
        """Have the members that live end their session, if there is one.  What this process must close for that."""
        closables, self.closables = self.closables, ()
        for member in self.members.values() if closables else ():
            if not member.is_lost:
                member.order(StopSession())
        return closables

    def is_settled(self) -> bool:
        """Whether each process has followed its orders, or is lost."""
        return all(member.is_lost or not member.waits for member in self.members.values())


class StageProcesses:
    """A process for each device of a plan, or fewer."""

    def __init__(self, job: LoadStages, manifest: Manifest, strict: bool) -> None:
        """Start the processes, and wait until they have loaded their stages.

        `job`: what each is told, apart from its number; `strict`: see `check_stages`.  Raises ManifestError,
        DeviceError or StageLost.
        """
        check_stages(job.folder, manifest, range(len(manifest.stages)), strict)
        self._job = job
        self._places = Places(manifest, job.processes, job.devices)
        self._places.links()  # raises ManifestError before anything is started
        self._shared = shared = _Shared()
        self._limit = job.timeout or SILENCE
        self._thread = Thread(target=_watch, args=(shared, self._places, self._limit), daemon=True, name="processes")
        self._end = weakref.finalize(self, _end, shared, self._thread, os.getpid())
        try:
            self._fill()
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> dict[int, tuple[int, ...]]:
        """The ids of the processes that live, and the stages of each."""
        with self._shared.changed:
            living = [m for m in self._shared.members.values() if not m.is_lost]
        return {m.process.pid: self._stages(m.number) for m in living}

    def begin(self) -> Engine:
        """Start a session: the engine of this process, which has no stages of its own.

        Starts again the processes that were lost; the others keep their weights.  All state is that of the start.
        Raises as the constructor does.
        """
        shared = self._shared
        self._settle()
        self._fill()
        own, passed = self._connect()
        alarm = Channel[None]()
        ports = session_ports(self._places, CALLER, own, alarm)
        outputs = {self._places.devices[p.route.source or 0] for p in ports.inward if _carries(p.route.programs)}
        engine = Engine(self._places.manifest, (), None, ports, outputs)
        with shared.changed:
            shared.closables = engine.closables
            for number, ends in passed.items():
                shared.members[number].order(BeginSession(tuple(ends)), [end.fileno() for end in ends.values()])
            lost = [m.fault for m in shared.members.values() if m.fault is not None]
        for ends in passed.values():
            for end in ends.values():
                end.forget()
        if lost:  # meanwhile
            engine.close()
            raise lost[0]
        return engine

    def close(self) -> None:
        """End the processes, and wait until they have ended."""
        self._end()

    def _fill(self) -> None:
        """Start the processes that are missing, and wait until all that they must do is done."""
        shared = self._shared
        with shared.changed:
            for number in sorted({*self._places.processes}):
                old = shared.members.get(number)
                if old is None or old.is_lost:
                    if old is not None:
                        old.process.wait()
                    shared.members[number] = self._start(number)
        if not self._thread.is_alive():
            self._thread.start()
        with shared.changed:
            shared.changed.wait_for(shared.is_settled)
            faults = [m.fault for m in shared.members.values() if m.fault is not None]
        if faults:
            raise faults[0]

    def _settle(self) -> None:
        """Wait until the members that live have stopped the session before; kill those that do not."""
        shared = self._shared
        with shared.changed:
            shared.stop()
            if not shared.changed.wait_for(shared.is_settled, GRACE):
                for slow in shared.members.values():
                    if slow.waits and not slow.is_lost:
                        kill(slow.process.pid)
            shared.changed.wait_for(shared.is_settled)

    def _start(self, number: int) -> StageProcess:
        here, there = MessageSocket.pair()
        device = self._places.devices[self._places.processes.index(number)]
        process = start_member(there, device, self._job.threads)
        started = StageProcess(number, process, here)
        started.order(replace(self._job, number=number))
        return started

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
    """The order that processes are given first.  `processes`: that of each stage, from 1; `tokens`: see LoadStages."""
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


def _carries(programs: Sequence[object]) -> bool:
    return any(getattr(program, "takes", ()) for program in programs)


def _watch(shared: _Shared, places: Places, limit: float) -> None:
    """The thread that hears the members, until the processes are ended."""
    looked = time.monotonic()
    while not shared.ended.is_set():
        with shared.changed:
            living = [m for m in shared.members.values() if not m.is_lost]
        readable, _, _ = select.select([m.connection for m in living], [], [], _TICK)
        now = time.monotonic()
        # A process that was stopped itself must not blame the others for the time.
        passed, looked = min(now - looked, 2 * _TICK), now
        for member in living:
            heard = member.connection in readable
            member.silent = 0.0 if heard else member.silent + passed
            if member.silent > member.patience:
                kill(member.process.pid)
                _lost(shared, places, member, f"gave no sign of life for {member.patience:g} s")
            while heard and not member.is_lost:  # all that has come: what was read already wakes nobody
                _hear(shared, places, member, limit)
                heard = not member.is_lost and member.connection.has_message()


def _hear(shared: _Shared, places: Places, member: StageProcess, limit: float) -> None:
    try:
        answer = receive_report(member.connection)
    except ConnectionError:
        return _lost(shared, places, member, _end_of(member.process))
    match answer:
        case Followed():
            with shared.changed:
                member.waits, member.patience = member.waits - 1, limit
                shared.changed.notify_all()
        case Fault(error):
            cause = decode(error)
            if isinstance(cause, StageError):  # it is busy for too long, and cannot be stopped
                cause = StageLost(cause.stage, cause.device, cause.__cause__ or cause)
                kill(member.process.pid)
            _fail(shared, member, cause)
        case Alive():
            pass


def _lost(shared: _Shared, places: Places, member: StageProcess, what: str) -> None:
    stage = places.processes.index(member.number)
    cause = ConnectionError(f"process {member.process.pid}, which ran it, {what}")
    _fail(shared, member, StageLost(stage, str(places.devices[stage]), cause))


def _fail(shared: _Shared, member: StageProcess, cause: Exception) -> None:
    """End the session at a fault: the engine of this process is closed with it, and the other members stop."""
    with shared.changed:
        if member.is_lost or shared.ended.is_set():
            return
        member.fault = cause
        member.connection.close()
        closables = shared.stop()
        shared.changed.notify_all()
    for closable in closables:
        closable.close(cause)


def _end_of(process: Started) -> str:
    """The way in which a process that closed its connection ended."""
    try:
        status = process.wait(1.0)
    except subprocess.TimeoutExpired:
        kill(process.pid)
        return "closed its connection"
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _end(shared: _Shared, thread: Thread, owner: int) -> None:
    """End all members.  Runs also on garbage collection, on any thread, and at exit; not in a fork of the owner."""
    if os.getpid() != owner:
        return
    shared.ended.set()
    if thread.is_alive() and thread is not current_thread():
        thread.join(GRACE)
    for member in shared.members.values():
        member.connection.close()  # a member ends when its connection does
    deadline = time.monotonic() + GRACE
    for member in shared.members.values():
        try:
            member.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            kill(member.process.pid)
            member.process.wait()
