"""The stages of a pipeline where they run: on threads of this process, in processes that it started, or in a job."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from runtime.call.programs import Programs
from runtime.device.placement import place_stages
from runtime.device.settings import warn_of_other_settings
from runtime.distributed.bootstrap import JobMember
from runtime.distributed.monitor import Monitor
from runtime.engine.engine import Engine
from runtime.manifest.manifest import Manifest
from runtime.processes.choice import processes_of
from runtime.processes.owner import HostBetween, StageProcesses, job_of
from runtime.stage.loader import load_stages
from runtime.stage.speed import Speed


@dataclass
class RunningStages:
    """The stages of an artifact, started."""

    manifest: Manifest
    devices: tuple[torch.device, ...]  # of each stage
    engine: Engine  # which runs the stages of this process, and sends batches to all
    programs: Programs  # of the manifest
    processes: StageProcesses | None = None  # that this one started
    monitor: Monitor | None = None  # of the job that this process takes part in

    @classmethod
    def load(
        cls,
        folder: Path,
        devices: Sequence[str | torch.device] | str | torch.device | None,
        *,
        processes: bool | None,
        strict: bool,
        timeout: float | None,
        speed: Speed,
        tokens: int,
    ) -> RunningStages:
        """Start the stages of a folder, where `processes_of` says.  The arguments are those of `Pipeline.load`."""
        manifest = Manifest.read(folder).with_room_for(tokens)
        warn_of_other_settings(manifest.settings)
        placed = place_stages([stage.device for stage in manifest.stages], devices)
        if numbers := processes_of(manifest, placed, processes):
            job = job_of(folder, numbers, placed, speed, timeout, tokens)
            with suppress(HostBetween):
                owned = StageProcesses(job, manifest, strict, direct=processes is None)
                return cls._in_processes(owned, manifest, placed)
        speed = speed.of_artifact(folder, manifest, beside_callers=True)
        stages = load_stages(folder, manifest, placed, strict=strict, speed=speed, checked=bool(numbers))
        return cls(manifest, placed, Engine(manifest, stages, timeout), Programs.parse(manifest))

    @classmethod
    def _in_processes(
        cls, owned: StageProcesses, manifest: Manifest, devices: tuple[torch.device, ...]
    ) -> RunningStages:
        """Those of processes, which end if one of them does not begin."""
        with ExitStack() as failing:
            failing.callback(owned.close)
            programs = Programs.parse(manifest)  # may import the model's library: the processes load meanwhile
            owned.wait_loaded()
            engine = owned.begin()
            failing.pop_all()
        return cls(manifest, devices, engine, programs, processes=owned)

    @classmethod
    def of_job(cls, job: JobMember) -> RunningStages:
        """This process's stages of a job."""
        return cls(job.manifest, job.devices, job.engine, Programs.parse(job.manifest), monitor=job.monitor)

    @property
    def process_count(self) -> int:
        """The processes that have stages; 0 if all run on threads of this one."""
        apart = self.processes or self.monitor
        return apart.count if apart else 0

    def stop(self) -> None:
        """End the engine: batches in flight fail with PipelineClosed.

        On other ranks than 0: run the stages until rank 0 does so.
        """
        if self.monitor is not None and self.monitor.rank != 0:
            self.monitor.serve()
        self.engine.close()

    def end(self) -> None:
        """End the processes that this one started, once the engine has stopped."""
        if self.processes is not None:
            self.processes.close()
