"""Artifact folder -> a running pipeline.

    errors          one exception class per culprit
    pipeline        Pipeline: load, call, stream, trace, close
    running_stages  its stages: on threads of this process, in processes that it started, or in a job
    run             the command line that runs an artifact once
    serve           the command line that answers requests
    package         the command line that writes what another server needs
    flags           flags of `run`, and those of all command lines that run an artifact
    options         checks of a pipeline's options
    caller          warnings at the line of the user's code that called
    awake_clock     seconds of silence, without those in which this process was stopped
    output_files    whether files can be written, and what they would replace
    command_line    loading and exit statuses, which those command lines have in common
    manifest/       the index of an artifact folder
    device/         devices of this host, streams, copies, clocks, torch's settings
    stage/          one stage with its weights on a device
    call/           arguments <-> tensors and sizes
    engine/         the stages of one process, on threads
    distributed/    the processes of a job
    processes/      the processes that this one starts, one for each device
    generation/     texts that a decoder continues, many at once
    serving/        requests over HTTP, and the engine's process
    trace/          what ran in each stage and when
    check/          whether an artifact folder is whole
    measure/        the command line that measures a host, for a cluster file

The entry points are imported when they are asked for: torch takes seconds, for which a command line must not wait.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from runtime.distributed import parent as parent  # remembers the parent process; at once, as torch takes seconds

if TYPE_CHECKING:
    from runtime.errors import DeviceError as DeviceError
    from runtime.errors import DistributedError as DistributedError
    from runtime.errors import InputError as InputError
    from runtime.errors import ManifestError as ManifestError
    from runtime.errors import PipelineClosed as PipelineClosed
    from runtime.errors import StageError as StageError
    from runtime.errors import StageLost as StageLost
    from runtime.pipeline import Pipeline as Pipeline

_ENTRY_POINTS = {
    "DeviceError": "runtime.errors",
    "DistributedError": "runtime.errors",
    "InputError": "runtime.errors",
    "ManifestError": "runtime.errors",
    "Pipeline": "runtime.pipeline",
    "PipelineClosed": "runtime.errors",
    "StageError": "runtime.errors",
    "StageLost": "runtime.errors",
}


def __getattr__(name: str) -> Any:
    """An entry point, imported at its first use (PEP 562).  Raises AttributeError for any other name."""
    if name not in _ENTRY_POINTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ENTRY_POINTS[name]), name)


def __dir__() -> list[str]:
    return sorted(_ENTRY_POINTS)
