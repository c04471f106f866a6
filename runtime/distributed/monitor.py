"""The thread that notices when other processes of the job fail, and tells them of faults here.

Rank 0 has a control connection to every other rank, and decides: the job ends with the first fault that it
hears of.  A process that ends closes its connection, which is noticed at once; one that is stopped, or whose
host is lost, sends no more heartbeats.
"""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Iterator, Sequence
from threading import Event, Lock, Thread

from runtime.awake_clock import AwakeClock
from runtime.distributed import parent
from runtime.distributed.exit import ReportedByRank0, kill
from runtime.distributed.links.error_codec import decode, encode
from runtime.distributed.rendezvous import Peer, Rendezvous
from runtime.engine.channel import Channel, ChannelClosed, Closable
from runtime.errors import StageError

TICK = 0.1  # seconds between two polls
EXIT_GRACE = 5.0  # seconds that a process has to end in order


class _Ended(Exception):
    """The job is over: because of `cause`, or, if that is None, because rank 0 closed the pipeline."""

    def __init__(self, cause: Exception | None, silent: int | None = None) -> None:
        """`silent`: the rank that sends no heartbeats, and may still run."""
        self.cause = cause
        self.silent = silent


class Monitor:
    """The state of the job's other processes, as this one knows it."""

    def __init__(self, found: Rendezvous, stages: Sequence[Sequence[int]], timeout: float) -> None:
        """Start the thread.

        `stages`: those of each rank.  `timeout`: seconds without a heartbeat after which another process is given up.
        """
        self.rank = found.rank
        self.alarm: Channel[None] = Channel()  # closed when the job ends, with the fault; any thread may close it
        self.peers = found.peers
        self._connections = dict(found.connections)
        self._stages = stages
        self._timeout = timeout
        self._silent = dict.fromkeys(self._connections, 0.0)  # seconds since the last heartbeat of each rank
        self._loading = set(self._connections)
        self._guarded: list[Closable] = [self.alarm]
        self._guards = Lock()
        self._orphaned = False  # rank 0 is lost, and cannot report that itself
        self._ended = Event()
        self.thread = Thread(target=self._run, name=f"rank {self.rank} monitor", daemon=True)
        self.thread.start()

    @property
    def count(self) -> int:
        """The processes that have stages."""
        return sum(map(bool, self._stages))

    def guard(self, closables: Sequence[Closable]) -> None:
        """Close these, with the cause, when the job ends."""
        with self._guards:
            self._guarded.extend(closables)
        if self.alarm.wait_closed(0):
            self._close_all(self._cause())

    def say_ready(self) -> None:
        """Tell the peers that this process has loaded its stages."""
        for connection in self._connections.values():
            connection.send({"ready": self.rank})

    def wait_ready(self) -> None:
        """On rank 0: wait until all processes have loaded their stages.  Raises the job's fault."""
        deadline = time.monotonic() + self._timeout
        while self._loading and not self.alarm.wait_closed(TICK / 2):
            if time.monotonic() > deadline:
                self.alarm.close(self.fault(min(self._loading), f"did not load within {self._timeout:g} s"))
        if self.alarm.wait_closed(0):
            self.leave()

    def serve(self) -> None:
        """On other ranks: wait until rank 0 closes the pipeline.  Raises SystemExit at a fault."""
        self.alarm.wait_closed()
        self.leave()

    def leave_by(self, error: BaseException) -> None:
        """On other ranks: end the job, as this process's own code raised."""
        if self.rank != 0:
            self.alarm.close(self.fault(self.rank, f"raised {type(error).__name__}: {error}"))

    def leave(self) -> None:
        """Leave the job, once the alarm is closed.  At a fault, rank 0 raises it and other ranks raise SystemExit."""
        self._ended.wait(2 * EXIT_GRACE)
        cause = self._cause()
        if cause is not None:
            raise cause if self.rank == 0 else ReportedByRank0

    def _cause(self) -> Exception | None:
        try:
            self.alarm.require_open()
        except ChannelClosed as e:
            return e.__cause__ if isinstance(e.__cause__, Exception) else None
        return None

    def fault(self, rank: int, what: str) -> StageError:
        """A fault of a process, as an error of the first stage that it runs."""
        peer = self.peers[rank]
        return StageError(min(self._stages[rank], default=0), peer.device, ConnectionError(f"{peer} {what}"))

    def _run(self) -> None:
        try:
            self._watch()
        except _Ended as e:
            for pid in self._end(e):
                kill(pid)

    def _watch(self) -> None:
        """Watch the other processes.  Raises _Ended."""
        beat, clock = 0.0, AwakeClock(TICK)
        while True:
            if self.alarm.wait_closed(0):
                raise _Ended(self._cause())
            if parent.is_gone():
                raise _Ended(self.fault(self.rank, "is alone: torchrun, which started it, ended"))
            now = time.monotonic()
            if now - beat > self._timeout / 10:
                beat = now
                for connection in self._connections.values():
                    connection.send({})
            self._listen(clock.passed())

    def _listen(self, passed: float) -> None:
        """Hear the peers for a tick.  `passed`: seconds since the last time."""
        readable, _, _ = select.select(list(self._connections.values()), [], [], TICK)
        for rank, connection in self._connections.items():
            self._silent[rank] = 0.0 if connection in readable else self._silent[rank] + passed
            if self._silent[rank] > self._timeout:
                raise self._lost(rank, f"gave no sign of life for {self._timeout:g} s", silent=rank)
            if connection in readable:
                self._hear(rank)

    def _hear(self, rank: int) -> None:
        try:
            tables = self._connections[rank].receive()
        except EOFError:
            raise self._lost(rank, "ended before the pipeline was closed") from None
        for table in tables:
            match table:
                case {"ready": int(other)}:
                    self._loading.discard(other)
                case {"end": str(error)}:
                    raise _Ended(decode(error.encode()))
                case {"end": None}:
                    raise _Ended(None)

    def _lost(self, rank: int, what: str, silent: int | None = None) -> _Ended:
        self._orphaned = rank == 0
        return _Ended(self.fault(rank, what), silent)

    def _end(self, ended: _Ended) -> Iterator[int]:
        """End the job; yields the ids of the processes to kill.

        Rank 0 ends first, so that its message comes before torchrun's; others then have `EXIT_GRACE` seconds.
        """
        if ended.silent is not None and self._may_kill(self.peers[ended.silent]):
            yield self.peers[ended.silent].pid
        self._tell(ended.cause)
        self._close_all(ended.cause)
        self._part(ended.cause)
        if self.rank != 0 and ended.cause is not None:
            time.sleep(EXIT_GRACE)
            yield self.peers[self.rank].pid  # threads that still run cannot be stopped otherwise

    def _may_kill(self, peer: Peer) -> bool:
        """A process that is stopped ends by nothing else; torchrun would first ask it to, and wait."""
        return peer.host == self.peers[self.rank].host and self.rank in (0, 1)

    def _tell(self, cause: Exception | None) -> None:
        """Tell all other ranks, or from other ranks than 0, rank 0."""
        for connection in self._connections.values():
            connection.send({"end": encode(cause).decode() if cause else None})

    def _close_all(self, cause: Exception | None) -> None:
        with self._guards:
            for closable in self._guarded:
                closable.close(cause)

    def _part(self, cause: Exception | None) -> None:
        """Close the connections, and let `leave` go on."""
        if self.rank == 0 and cause is None:
            for connection in self._connections.values():
                connection.hang_up(EXIT_GRACE)
        elif self.rank != 0 and cause is not None:
            if self._orphaned and self.rank == 1:
                print(f"error: {cause}", file=sys.stderr, flush=True)
            self._connections[0].wait_gone(EXIT_GRACE)
        self._ended.set()
