"""The results of torch.compile for the stages of an artifact, kept beside it for the next load."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from runtime.device.kinds import model_name
from runtime.device.settings import torch_settings
from runtime.manifest.digests import file_hash

_FOLDER = "compiled"


@dataclass(frozen=True)
class CompiledCache:
    """Files in torch's own format, of one device, torch and text of the stages.  Each process adds what it compiles."""

    folder: Path
    key: str  # with which the names of the files begin
    known: set[str] = field(default_factory=set)  # keys of what the files have, by torch

    @classmethod
    def of_artifact(cls, folder: Path, device: torch.device) -> CompiledCache:
        """The files of an artifact for a device, whether there are some or not."""
        made_by: Mapping[str, object] = {
            "torch": torch.__version__,
            "device": model_name(device),
            "settings": torch_settings(),
            "files": {path.name: file_hash(path) for path in folder.glob("*.py")},
        }
        return cls(folder / _FOLDER, sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:16])

    def load(self) -> None:
        """Give torch what is kept, if there is anything.  A damaged file is as good as none."""
        for path in sorted(self.folder.glob(f"{self.key}-*.bin")):
            try:
                self.known.update(_keys(torch.compiler.load_cache_artifacts(path.read_bytes())))
            except Exception as e:  # from torch's own reader, whatever the file holds
                warnings.warn(f"{path} cannot be read, and is compiled anew: {e}", stacklevel=2)

    def save(self) -> None:
        """Keep what torch has compiled since the last time.  Nothing happens where the folder cannot be written."""
        made = torch.compiler.save_cache_artifacts()
        new = set() if made is None else _keys(made[1]) - self.known
        if made is None or not new:
            return
        self.known.update(new)
        name = f"{self.key}-{sha256(' '.join(sorted(new)).encode()).hexdigest()[:16]}.bin"
        with suppress(OSError):
            self.folder.mkdir(exist_ok=True)
            fresh = self.folder / f"{name}.{os.getpid()}"
            fresh.write_bytes(made[0])
            fresh.replace(self.folder / name)


def _keys(info: Any) -> set[str]:
    """The keys of all that torch wrote or read."""
    return set() if info is None else {key for keys in info.artifacts.values() for key in keys}
