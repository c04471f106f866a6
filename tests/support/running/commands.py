"""The command line, run in this process."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from stagecut import main

MODEL = """\
import torch
from torch import nn

model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(4)))
example_inputs = (torch.ones(2, 64),)
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Shell:
    """A folder with `model.py`, in which `stagecut compile` is run."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    @classmethod
    def open(cls, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main sets it
        (folder / "model.py").write_text(MODEL)
        return cls(folder, monkeypatch, capsys)

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def write_artifact(self, folder: str) -> None:
        """What an earlier run left in a folder, in short: a stage file, and its hash in the manifest."""
        stage = "# of an earlier run"
        table = {"schema": 2, "name": "model", "files": {"stage_0.py": sha256(stage.encode()).hexdigest()}}
        self.write({f"{folder}/stage_0.py": stage, f"{folder}/manifest.json": json.dumps(table)})

    def run(self, command: str, subcommand: str = "compile") -> Ended:
        """Run what follows `stagecut compile`, or another subcommand."""
        return self.type_in(subcommand, *command.split())

    def type_in(self, *arguments: str) -> Ended:
        """Run what follows `stagecut`."""
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        out, err = self.capsys.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    def refused(self, command: str, subcommand: str = "compile") -> str:
        """The message of a command that is bad input: status 2, nothing on stdout, no file changed."""
        before = self.contents()
        ended = self.run(command, subcommand)
        assert ended.status == 2, ended.err
        assert ended.out == ""
        assert self.contents() == before
        return ended.err

    def contents(self) -> dict[str, str]:
        """A hash for each file of the folder."""
        return {
            str(path.relative_to(self.folder)): sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
            for path in self.folder.rglob("*")
            if "__pycache__" not in path.parts
        }
