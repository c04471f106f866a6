"""What an artifact for another cut imports: operators' modules, those of its own folder only if they are trusted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from codegen.artifact.cut_again import ArtifactSource, read_artifact
from codegen.artifact.graph_file import write_graph
from ir.capture import capture
from ir.errors import SourceError
from ir.serialized.graph_table import Uncut
from runtime.manifest.manifest import CallSignature, Manifest, Operator, ProgramEntry

OWN = """
import torch
torch.library.define("cutagain::mine", "(Tensor x) -> Tensor")
"""


def artifact(folder: Path, *operators: Operator) -> Path:
    list(write_graph(folder, Uncut(capture(torch.nn.Identity(), (torch.ones(2),)), ("a note",)), {}))
    program = ProgramEntry("main", (), (), {}, (), CallSignature((), {}, {}), (), {})
    Manifest("m", (program,), (), {}, {}, operators=operators).write_sealed(folder)
    return folder


def read(folder: Path, trusted: bool = False) -> ArtifactSource:
    return read_artifact(folder, weights=False, trusted=trusted)


def test_a_file_in_the_folder_runs_only_if_it_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "cut_again_own.py").write_text(OWN)
    folder = artifact(tmp_path, Operator("cutagain::mine", "cut_again_own", "", "", (0,)))
    message = r"runs cutagain::mine, which cut_again_own registers, a Python file in the folder, .*--trust-remote-code"
    with pytest.raises(SourceError, match=message):
        read(folder)
    assert "cut_again_own" not in sys.modules
    assert read(folder, trusted=True).notes == ("a note", "imported cut_again_own, which registers cutagain::mine")
    assert read(folder).notes == ("a note",)  # it is registered by now


def test_a_module_that_is_not_here(tmp_path: Path) -> None:
    folder = artifact(tmp_path, Operator("cutagain::gone", "cut_again_gone", "gone", "1.0", (0,)))
    with pytest.raises(SourceError, match=r"runs cutagain::gone, and cut_again_gone cannot be imported: .*; pip insta"):
        read(folder)
