"""Bootstrap of a job: this process's stages, connected to those of its peers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from runtime.device.kinds import DEVICE_KINDS
from runtime.device.placement import device_of_process, spread_stages
from runtime.device.settings import warn_of_other_settings
from runtime.distributed import sigterm
from runtime.distributed.job_address import JobAddress
from runtime.distributed.monitor import Monitor
from runtime.distributed.network import connect
from runtime.distributed.rendezvous import rendezvous
from runtime.engine.engine import Engine
from runtime.errors import DeviceError, ManifestError
from runtime.manifest.manifest import Manifest
from runtime.stage.loader import load_stages
from runtime.stage.rehearsal import rehearse
from runtime.stage.speed import Speed

TIMEOUT = 300.0  # seconds: an endless wait costs a cluster


@dataclass(frozen=True)
class JobMember:
    """An artifact in several processes, as one of them sees it."""

    manifest: Manifest
    devices: tuple[torch.device, ...]  # of each stage
    engine: Engine  # of the stages of this process
    monitor: Monitor


@dataclass(frozen=True)
class _Place:
    """The processes and the device that stages run in."""

    manifest: Manifest
    ranks: tuple[int, ...]  # of each stage
    device: torch.device  # of this process

    @classmethod
    def find(cls, folder: Path, device: str | torch.device | None, at: JobAddress) -> _Place:
        """Raises ManifestError, DeviceError or DistributedError."""
        manifest = Manifest.read(folder)
        warn_of_other_settings(manifest.settings)
        planned = [stage.device for stage in manifest.stages]
        ranks = spread_stages(planned, at.world)
        return cls(manifest, ranks, device_of_process(planned[ranks.index(at.rank)], device, at.local))

    def stages(self, rank: int) -> list[int]:
        return [stage for stage, host in enumerate(self.ranks) if host == rank]


def start(
    folder: Path,
    device: str | torch.device | None,
    at: JobAddress,
    *,
    strict: bool,
    timeout: float,
    speed: Speed,
    tokens: int = 0,
) -> JobMember:
    """Start this process's part of a job.  Every process calls this.  The arguments are those of Pipeline.distributed.

    A fault of any process is raised on rank 0; the other processes end with status 1.
    Raises ManifestError, DeviceError, DistributedError or StageError.
    """
    rank, world = at.rank, at.world
    if rank == 0:
        sigterm.delay()
    place = _found_place(folder, device, at, timeout)
    names = [f"rank {i} ({_spell(place.stages(i))})" for i in range(world)]
    found = rendezvous(at, str(place.device), names, timeout, tokens)
    if several_hosts := len({peer.domain for peer in found.peers}) > 1:
        _set_variables()
    sigterm.delay()  # on other ranks from here on: they have nothing to report before they know rank 0
    monitor = Monitor(found, [place.stages(i) for i in range(world)], timeout)
    devices = tuple(torch.device(found.peers[rank].device) for rank in place.ranks)
    try:
        manifest = place.manifest.with_room_for(found.peers[0].tokens)  # pages are given out by rank 0
        ports = connect(manifest, found, place.ranks, monitor, timeout)
        chosen = speed.of_artifact(folder, manifest, beside_callers=rank == 0)
        stages = load_stages(folder, manifest, devices, strict=strict, speed=chosen, indices=place.stages(rank))
        rehearse(stages, manifest, chosen, before_transfers=several_hosts)
        engine = Engine(manifest, stages, timeout, ports)
    except Exception as e:
        monitor.alarm.close(e)
        monitor.leave()
        raise
    monitor.guard(engine.closables)
    monitor.say_ready()
    if rank == 0:
        monitor.wait_ready()
    return JobMember(manifest, devices, engine, monitor)


def _found_place(folder: Path, device: str | torch.device | None, at: JobAddress, timeout: float) -> _Place:
    """See `_Place.find`.  A fault on another rank than 0 is that of the job."""
    try:
        return _Place.find(folder, device, at)
    except (ManifestError, DeviceError) as e:
        if at.rank != 0:
            monitor = Monitor(rendezvous(at, "cpu", (), timeout), [[]] * at.world, timeout)
            monitor.alarm.close(e)
            monitor.leave()
        raise


def _set_variables() -> None:
    """Set the environment variables that drivers read at their first use, unless the user has set them."""
    for kind in DEVICE_KINDS.values():
        for name, value in kind.variables:
            os.environ.setdefault(name, value)


def _spell(stages: list[int]) -> str:
    return f"stage{'s' * (len(stages) != 1)} {', '.join(map(str, stages))}"
