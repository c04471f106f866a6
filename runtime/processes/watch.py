"""The processes of stages as their owner sees them, and the thread that hears them until they end."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Condition, Event, Thread, current_thread

from runtime.awake_clock import AwakeClock
from runtime.distributed.exit import kill_group, kill_rest_of_group
from runtime.distributed.links.error_codec import decode
from runtime.engine.channel import Closable
from runtime.errors import PipelineClosed, StageError, StageLost
from runtime.processes.message_socket import MessageSocket
from runtime.processes.orders import Alive, Fault, Followed, Order, StopSession, receive_report, send_order
from runtime.processes.session import Places
from runtime.processes.start import Started

SILENCE = 300.0  # seconds without a sign of life after which a process is given up, unless there is a time-out
GRACE = 10.0  # seconds that a process has to stop what it runs, before it is killed
_TICK = 0.1  # seconds between two looks at the time
_QUIET = 2.0  # seconds without a sign of life, which come each second, after which a process may have ended


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
    loads: bool = True  # whether it has not loaded its stages yet

    @property
    def is_lost(self) -> bool:
        return self.fault is not None

    def order(self, order: Order, descriptors: Sequence[int] = ()) -> None:
        """Send an order, if the process is still there."""
        self.waits += 1
        with suppress(ConnectionError):
            send_order(self.connection, order, descriptors)


@dataclass
class Members:
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

    def require_open(self) -> None:
        """Raises PipelineClosed once the processes are ended."""
        if self.ended.is_set():
            raise PipelineClosed("the processes of this pipeline were ended with it; load it again with Pipeline.load")

    def faults(self) -> list[Exception]:
        """The faults that members were lost for."""
        return [member.fault for member in self.members.values() if member.fault is not None]

    def is_settled(self) -> bool:
        """Whether each process has followed its orders, or is lost, or ended."""
        return self.ended.is_set() or all(member.is_lost or not member.waits for member in self.members.values())

    def is_stopped(self) -> bool:
        """Whether no process is in a session: one that loads, which may take minutes, is in none."""
        stopped = all(member.is_lost or member.loads or not member.waits for member in self.members.values())
        return self.ended.is_set() or stopped


def watch(shared: Members, places: Places, limit: float) -> None:
    """The thread that hears the members, until the processes are ended."""
    clock = AwakeClock(_TICK)
    while not shared.ended.is_set():
        with shared.changed:
            living = [m for m in shared.members.values() if not m.is_lost]
        readable, _, _ = select.select([m.connection for m in living], [], [], _TICK)
        passed = clock.passed()
        for member in living:
            heard = member.connection in readable
            member.silent = 0.0 if heard else member.silent + passed
            if member.silent > member.patience:
                kill_group(member.process.pid)
                _lost(shared, places, member, f"gave no sign of life for {member.patience:g} s")
            elif member.silent > _QUIET and (end := _end_of(member.process, 0.0)):  # what it forked has the connection
                _lost(shared, places, member, end)
            while heard and not member.is_lost:  # all that has come: what was read already wakes nobody
                _hear(shared, places, member, limit)
                heard = not member.is_lost and member.connection.has_message()


def _hear(shared: Members, places: Places, member: StageProcess, limit: float) -> None:
    try:
        answer = receive_report(member.connection)
    except ConnectionError:
        end = _end_of(member.process, 1.0)
        if not end:
            kill_group(member.process.pid)
        return _lost(shared, places, member, end or "closed its connection")
    match answer:
        case Followed():
            with shared.changed:
                member.waits, member.patience, member.loads = member.waits - 1, limit, False
                shared.changed.notify_all()
        case Fault(error):
            cause = decode(error)
            if isinstance(cause, StageError):  # it is busy for too long, and cannot be stopped
                cause = StageLost(cause.stage, cause.device, cause.__cause__ or cause)
                kill_group(member.process.pid)
            _fail(shared, member, cause)
        case Alive():
            pass


def _lost(shared: Members, places: Places, member: StageProcess, what: str) -> None:
    stage = places.processes.index(member.number)
    cause = ConnectionError(f"process {member.process.pid}, which ran it, {what}")
    _fail(shared, member, StageLost(stage, str(places.devices[stage]), cause))


def _fail(shared: Members, member: StageProcess, cause: Exception) -> None:
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


def _end_of(process: Started, timeout: float) -> str:
    """The way in which a process ended, and with it what it forked; nothing if it has not within the time-out."""
    try:
        status = process.wait(timeout)
    except subprocess.TimeoutExpired:
        return ""
    kill_rest_of_group(process.pid)
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def end_members(shared: Members, thread: Thread, owner: int) -> None:
    """End all members.  Runs also on garbage collection, on any thread, and at exit; not in a fork of the owner."""
    if os.getpid() != owner:
        return
    with shared.changed:
        shared.ended.set()
        shared.changed.notify_all()
    if thread.is_alive() and thread is not current_thread():
        thread.join(GRACE)
    for member in shared.members.values():
        member.connection.close()  # a member ends when its connection does
    deadline = time.monotonic() + GRACE
    for member in shared.members.values():
        try:
            member.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            kill_group(member.process.pid)
            member.process.wait()
