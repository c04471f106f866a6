"""The folder beside an artifact in which torch's compiler keeps what it makes of the stages, for the next load."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch

from runtime.device.kinds import model_name
from runtime.device.settings import torch_settings
from runtime.manifest.digests import file_hash

_FOLDER = "compiled"
_BYTECODE = "python"  # of it: Python's compiled files of torch's compiler
_GRAPHS = "graphs"  # of a cache
_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"  # of the environment: where torch's compiler looks, each time


@dataclass(frozen=True)
class CompiledCache:
    """Kernels, and the graphs that call them, of one device, host, torch and text of the stages.

    Several processes may use it at once.
    """

    folder: Path

    @classmethod
    def of_artifact(cls, folder: Path, device: torch.device) -> CompiledCache:
        """The cache of an artifact for a device, whether there is one or not."""
        made_by: Mapping[str, object] = {
            "torch": torch.__version__,
            "device": model_name(device),
            "host": _processor(),
            "settings": torch_settings(),
            "files": {path.name: file_hash(path) for path in folder.glob("*.py")},
        }
        return cls(folder / _FOLDER / sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:16])

    def graph_file(self, module: str, key: str) -> Path:
        """The file of a kept graph of a stage with such a module file."""
        return self.folder.resolve() / _GRAPHS / f"{Path(module).stem}-{key[:32]}.json"

    @contextmanager
    def used(self) -> Iterator[None]:
        """A block in which torch compiles from here, and to here.

        Where the folder cannot be written, torch keeps to its own.
        """
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
        if not os.access(self.folder, os.W_OK):
            yield
            return
        before = os.environ.get(_VARIABLE)
        os.environ[_VARIABLE] = str(self.folder.resolve())
        try:
            yield
        finally:
            del os.environ[_VARIABLE]
            if before is not None:
                os.environ[_VARIABLE] = before


def bytecode_folder(artifact: Path) -> Path:
    """The folder beside an artifact for Python's compiled files, which name the version and source of each."""
    return artifact.resolve() / _FOLDER / _BYTECODE


def has_kept_graphs(artifact: Path, module: str) -> bool:
    """Whether graphs of a stage with such a module file are kept, for any device."""
    return any((artifact / _FOLDER).glob(f"*/{_GRAPHS}/{Path(module).stem}-*.json"))


def _processor() -> str:
    """The instructions that the host's processor has: libraries are compiled for all of them."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return platform.platform()
