"""An artifact in several processes: this process's part of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from runtime.device.placement import device_of_process, spread_stages
from runtime.distributed import sigterm as last_words
from runtime.distributed.monitor import Monitor
from runtime.distributed.network import connect
from runtime.distributed.rendezvous import meet, rank_and_world
from runtime.engine.engine import Engine
from runtime.errors import DeviceError
from runtime.manifest import Manifest, ManifestError
from runtime.stage.loader import load_stages
from runtime.stage.speed import Speed

TIMEOUT = 300.0  # seconds: an endless wait costs a cluster


@dataclass(frozen=True)
class Job:
    manifest: Manifest
    devices: tuple[torch.device, ...]  # of each stage
    engine: Engine  # runs those of this process
    monitor: Monitor


@dataclass(frozen=True)
class _Place:
    """Where the stages run."""

    manifest: Manifest
    ranks: tuple[int, ...]  # of each stage
    device: torch.device  # of this process

    @classmethod
    def find(cls, folder: Path, device: str | torch.device | None) -> _Place:
        """Raises ManifestError or DeviceError."""
        rank, world = rank_and_world()
        manifest = Manifest.read(folder)
        planned = [stage.device for stage in manifest.stages]
        ranks = spread_stages(planned, world)
        local = int(os.environ.get("LOCAL_RANK", rank))
        return cls(manifest, ranks, device_of_process(planned[ranks.index(rank)], device, local))

    def stages(self, rank: int) -> list[int]:
        return [stage for stage, of in enumerate(self.ranks) if of == rank]


def start(folder: Path, device: str | torch.device | None, *, strict: bool, timeout: float, speed: Speed) -> Job:
    """Every process calls this.  What goes wrong in any is raised on rank 0; the others end with status 1.

    Raises ManifestError, DeviceError, DistributedError or StageError.
    """
    _set_up_cuda()
    rank, world = rank_and_world()
    if rank == 0:
        last_words.allow()
    try:
        place = _Place.find(folder, device)
    except (ManifestError, DeviceError) as e:
        if rank == 0:
            raise
        monitor = Monitor(meet("cpu", (), timeout), [[]] * world, timeout)
        monitor.alarm.close(e)
        monitor.leave()
        raise
    names = [f"rank {i} ({_spell(place.stages(i))})" for i in range(world)]
    meeting = meet(str(place.device), names, timeout)
    last_words.allow()  # others have none before they know rank 0
    monitor = Monitor(meeting, [place.stages(i) for i in range(world)], timeout)
    devices = tuple(torch.device(meeting.members[of].device) for of in place.ranks)
    try:
        ports = connect(place.manifest, meeting, place.ranks, monitor, timeout)
        stages = load_stages(folder, place.manifest, devices, strict=strict, speed=speed, indices=place.stages(rank))
        engine = Engine(place.manifest, stages, timeout, ports)
    except Exception as e:
        monitor.alarm.close(e)
        monitor.leave()
        raise
    monitor.guard(engine.closables)
    monitor.say_ready()
    if rank == 0:
        monitor.wait_ready()
    return Job(place.manifest, devices, engine, monitor)


def _set_up_cuda() -> None:
    """What CUDA and NCCL read when they are first used; who has set it otherwise is left alone."""
    # A kernel that is loaded when first used waits for all that runs, and a transfer runs until its other end comes.
    os.environ.setdefault("CUDA_MODULE_LOADING", "EAGER")
    # Every link has a communicator of its own, which is what this warning asks for.
    os.environ.setdefault("TORCH_NCCL_SHOW_EAGER_INIT_P2P_SERIALIZATION_WARNING", "false")


def _spell(stages: list[int]) -> str:
    return f"stage{'s' * (len(stages) != 1)} {', '.join(map(str, stages))}"
