"""Loading and exit statuses that the command lines of the runtime have in common."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from runtime.distributed.bootstrap import TIMEOUT
from runtime.errors import DeviceError, DistributedError, InputError, ManifestError, StageError
from runtime.pipeline import Pipeline
from runtime.stage.callers import CALLERS


def is_first() -> bool:
    """Whether this process makes the calls: the only one, or rank 0 of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def loaded(options: argparse.Namespace) -> Pipeline:
    """The pipeline, in as many processes as torchrun started."""
    devices = options.devices.split(",") if options.devices else None
    speed = {"compile": options.compile, "cuda_graphs": options.cuda_graphs or None}
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        how = {"timeout": options.timeout, "processes": options.processes}
        return Pipeline.load(options.artifact, devices, strict=options.strict, **how, **speed)
    device = devices[int(os.environ.get("LOCAL_RANK", "0")) % len(devices)] if devices else None
    timeout = options.timeout or TIMEOUT
    return Pipeline.distributed(options.artifact, device, strict=options.strict, timeout=timeout, **speed)


def status_of(run: Callable[[], None]) -> int:
    """0, or 2 for bad input and 1 for a stage that raised or a process that was lost, with one message."""
    try:
        with CALLERS.ours():
            run()
    except (DeviceError, InputError, ManifestError) as e:
        return fail(str(e), 2)
    except (DistributedError, StageError) as e:
        return fail(str(e), 1)
    return 0


def fail(message: str, status: int) -> int:
    """Print what went wrong, and hand on the exit status."""
    print(f"error: {message}", file=sys.stderr)
    return status
