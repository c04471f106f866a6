"""The thread that notices what happens to the other processes, and tells them what happens here.

Rank 0 has a line to every other rank, apart from the tensors, and decides: the first fault that it
hears of is the one that all end with.  A process that ends closes its line, which is seen at once;
one that is stopped, or whose host is gone, sends no more signs of life.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from threading import Event, Lock, Thread

from runtime.distributed import parent
from runtime.distributed.error_codec import decode, encode
from runtime.distributed.rendezvous import Meeting
from runtime.engine.channel import Channel, ChannelClosed, Closable
from runtime.errors import StageError

TICK = 0.1  # seconds between two looks
GRACE = 5.0  # seconds that a process has to end by itself


class _Ended(Exception):
    """The job is over."""

    def __init__(self, cause: Exception | None) -> None:
        """CAUSE: what went wrong, if something did."""
        self.cause = cause


class Monitor:
    """What this process knows of the others."""

    def __init__(self, meeting: Meeting, stages: Sequence[Sequence[int]], timeout: float) -> None:
        """Start the thread.  STAGES: those of each rank.

        TIMEOUT: the seconds of silence after which another process is given up.
        """
        self.rank = meeting.rank
        self.alarm: Channel[None] = Channel()  # closed when the job ends, with what went wrong; whoever knows closes it
        self.members = meeting.members
        self._lines = dict(meeting.lines)
        self._stages = stages
        self._timeout = timeout
        self._silent = dict.fromkeys(self._lines, 0.0)  # seconds since the last sign of each rank
        self._loading = set(self._lines)
        self._guarded: list[Closable] = [self.alarm]
        self._guards = Lock()
        self._orphaned = False  # rank 0 is gone, and cannot say so itself
        self._ended = Event()
        self.thread = Thread(target=self._run, name=f"rank {self.rank} monitor", daemon=True)
        self.thread.start()

    def guard(self, closables: Sequence[Closable]) -> None:
        """Have these closed, with the cause, when the job ends."""
        with self._guards:
            self._guarded.extend(closables)
        if self.alarm.wait_closed(0):
            self._close_all(self._cause())

    def say_ready(self) -> None:
        """This process has loaded its stages."""
        for line in self._lines.values():
            line.send({"ready": self.rank})

    def wait_ready(self) -> None:
        """On rank 0: until all have loaded their stages.  Raises what went wrong."""
        deadline = time.monotonic() + self._timeout
        while self._loading and not self.alarm.wait_closed(TICK / 2):
            if time.monotonic() > deadline:
                self.alarm.close(self.fault(min(self._loading), f"did not load within {self._timeout:g} s"))
        if self.alarm.wait_closed(0):
            self.leave()

    def serve(self) -> None:
        """On the other ranks: until rank 0 closes the pipeline.  SystemExit where something goes wrong."""
        self.alarm.wait_closed()
        self.leave()

    def leave_by(self, error: BaseException) -> None:
        """On the other ranks: this process does not serve on, as its own code raised."""
        if self.rank != 0:
            self.alarm.close(self.fault(self.rank, f"raised {type(error).__name__}: {error}"))

    def leave(self) -> None:
        """When the alarm is closed.  Rank 0 raises why; the others end the process, with status 1 and no message."""
        self._ended.wait(2 * GRACE)
        cause = self._cause()
        if cause is not None and self.rank == 0:
            raise cause
        if cause is not None:
            sys.exit(1)

    def _cause(self) -> Exception | None:
        try:
            self.alarm.require_open()
        except ChannelClosed as e:
            return e.__cause__ if isinstance(e.__cause__, Exception) else None
        return None

    def fault(self, rank: int, what: str) -> StageError:
        """What happened to a process, as an error of the first stage that it runs."""
        member = self.members[rank]
        return StageError(min(self._stages[rank], default=0), member.device, ConnectionError(f"{member} {what}"))

    def _run(self) -> None:
        try:
            self._watch()
        except _Ended as e:
            self._tell(e.cause)
            self._close_all(e.cause)
            self._part(e.cause)

    def _watch(self) -> None:
        """Raises _Ended."""
        beat, looked = 0.0, time.monotonic()
        while True:
            if self.alarm.wait_closed(0):
                raise _Ended(self._cause())
            if parent.is_gone():
                raise _Ended(self.fault(self.rank, "is alone: torchrun, which started it, ended"))
            now = time.monotonic()
            # A process that was stopped itself must not blame the others for the time.
            passed, looked = min(now - looked, 2 * TICK), now
            if now - beat > self._timeout / 10:
                beat = now
                for line in self._lines.values():
                    line.send({})
            self._listen(passed)

    def _listen(self, passed: float) -> None:
        readable, _, _ = select.select(list(self._lines.values()), [], [], TICK)
        for rank, line in self._lines.items():
            self._silent[rank] = 0.0 if line in readable else self._silent[rank] + passed
            if self._silent[rank] > self._timeout:
                self._kill(rank)
                raise self._lost(rank, f"gave no sign of life for {self._timeout:g} s")
            if line in readable:
                self._hear(rank)

    def _hear(self, rank: int) -> None:
        try:
            tables = self._lines[rank].receive()
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

    def _lost(self, rank: int, what: str) -> _Ended:
        self._orphaned = rank == 0
        return _Ended(self.fault(rank, what))

    def _kill(self, rank: int) -> None:
        """Nothing else ends a process that is stopped; torchrun would ask it first, and wait."""
        member = self.members[rank]
        if member.host == self.members[self.rank].host and self.rank in (0, 1):
            with suppress(OSError):
                os.kill(member.pid, signal.SIGKILL)

    def _tell(self, cause: Exception | None) -> None:
        """Rank 0 all others, and any other rank 0."""
        for line in self._lines.values():
            line.send({"end": encode(cause).decode() if cause else None})

    def _close_all(self, cause: Exception | None) -> None:
        with self._guards:
            for closable in self._guarded:
                closable.close(cause)

    def _part(self, cause: Exception | None) -> None:
        """Rank 0 ends first, so that its message comes before torchrun's; the others then have GRACE seconds."""
        if self.rank == 0 and cause is None:
            for line in self._lines.values():
                line.hang_up(GRACE)
        elif self.rank != 0 and cause is not None:
            if self._orphaned and self.rank == 1:
                print(f"error: {cause}", file=sys.stderr, flush=True)
            self._lines[0].wait_gone(GRACE)
        self._ended.set()
        if self.rank != 0 and cause is not None:
            time.sleep(GRACE)
            os._exit(1)  # what still runs cannot be stopped otherwise
