"""The results of torch.compile for a stage, kept beside the artifact for the next load."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch

from runtime.device.kinds import model_name
from runtime.device.settings import torch_settings

_FOLDER = "compiled"


@dataclass(frozen=True)
class CompiledCache:
    """A file in torch's own format."""

    path: Path

    @classmethod
    def of_stage(cls, folder: Path, index: int, device: torch.device, hashes: Iterable[str]) -> CompiledCache:
        """The file of a stage for this device and torch.  `folder`: the artifact; `hashes`: of the stage's modules."""
        made_by: Mapping[str, object] = {
            "torch": torch.__version__,
            "device": model_name(device),
            "settings": torch_settings(),
            "files": sorted(hashes),
        }
        key = sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:16]
        return cls(folder / _FOLDER / f"stage_{index}-{key}.bin")

    def load(self) -> None:
        """Give torch what is kept, if there is anything.  A damaged file is as good as none."""
        if self.path.is_file():
            try:
                torch.compiler.load_cache_artifacts(self.path.read_bytes())
            except Exception as e:  # from torch's own reader, whatever the file holds
                warnings.warn(f"{self.path} cannot be read, and is compiled anew: {e}", stacklevel=2)

    def save(self) -> None:
        """Keep what torch has compiled in this process.  Nothing happens where the folder cannot be written."""
        made = torch.compiler.save_cache_artifacts()
        if made is None:
            return
        with suppress(OSError):
            self.path.parent.mkdir(exist_ok=True)
            fresh = self.path.with_suffix(f".{os.getpid()}")
            fresh.write_bytes(made[0])
            fresh.replace(self.path)
