"""Stages on several hosts: the processes of a job, of which the engine is rank 0, and those that follow it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from runtime.distributed.job_address import host_and_port
from runtime.errors import InputError

_PAUSES = (0.2, 1.0, 2.0, 5.0)  # seconds before a start, by the number of those before it that failed at once
_LIVED = 30.0  # seconds after which a process counts as one that did not fail at once


@dataclass(frozen=True)
class HostJob:
    """The processes that run one artifact on several hosts, as torchrun would number them."""

    hosts: int
    each: int  # processes of a host
    address: str  # of the first host
    port: int

    def variables(self, rank: int) -> dict[str, str]:
        """The environment of a process, for `Pipeline.distributed`."""
        return {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank % self.each),
            "WORLD_SIZE": str(self.hosts * self.each),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }

    def ranks(self, host: int) -> range:
        return range(host * self.each, (host + 1) * self.each)


def host_job(hosts: int, address: str, planned: Sequence[str]) -> HostJob:
    """The job of an artifact whose stages were planned for these devices.

    `address`: of the first host, with or without a port.  Raises InputError.
    """
    name, port = host_and_port(address)
    devices = len({*planned})
    if len(planned) < hosts:
        raise InputError(f"an artifact of {len(planned)} stages cannot run on {hosts} hosts")
    return HostJob(hosts, devices // hosts if devices % hosts == 0 else 1, name, port)


def own_address() -> str:
    """The address by which other hosts reach this one, as its name says."""
    with suppress(OSError):
        return socket.gethostbyname(socket.gethostname())
    return "127.0.0.1"


class Followers:
    """Processes of a job other than rank 0: each is started again whenever it ends, and finds rank 0 again."""

    def __init__(self, job: HostJob, ranks: Sequence[int], arguments: Sequence[str]) -> None:
        """`arguments`: of `python -m runtime.serving.engines.follower`."""
        self._job = job
        self._ranks = ranks
        self._arguments = list(arguments)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start them, and see to it that they run until `stop`."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._keep(rank), name=f"rank {rank}") for rank in self._ranks]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, rank: int) -> None:
        failures = 0
        while True:
            began = asyncio.get_running_loop().time()
            await self._run(self._job.variables(rank))
            failures = 0 if asyncio.get_running_loop().time() - began > _LIVED else failures + 1
            await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])

    async def _run(self, variables: Mapping[str, str]) -> None:
        """One life of a process."""
        command = [sys.executable, "-m", "runtime.serving.engines.follower", *self._arguments]
        process = subprocess.Popen(command, env={**os.environ, **variables}, start_new_session=True)
        try:
            while process.poll() is None:
                await asyncio.sleep(0.1)
        finally:
            process.kill()
            process.wait()


async def follow(followers: Followers) -> None:
    """Run the processes of this host until a signal ends it."""
    ends = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ends.set)
    followers.start()
    await ends.wait()
    await followers.stop()
