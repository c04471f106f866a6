"""An artifact folder -> a running pipeline."""

from runtime.distributed import parent as parent  # first, to look before the others take their time
from runtime.errors import DeviceError, DistributedError, InputError, PipelineClosed, StageError
from runtime.manifest import ManifestError
from runtime.pipeline import Pipeline

__all__ = [
    "DeviceError",
    "DistributedError",
    "InputError",
    "ManifestError",
    "Pipeline",
    "PipelineClosed",
    "StageError",
]
