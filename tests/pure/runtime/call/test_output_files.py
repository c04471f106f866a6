"""Files that cannot be written are refused before anything takes time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.errors import InputError
from runtime.measure.__main__ import main as measure
from runtime.output_files import require_writable


def test_files_that_cannot_be_written_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_writable(tmp_path / "y.safetensors")
    with pytest.raises(InputError, match="none is no folder"):
        require_writable(tmp_path / "none" / "y.safetensors")
    with pytest.raises(InputError, match="it is a folder"):
        require_writable(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match=r"cannot write .*: permission denied"):
        require_writable(tmp_path / "y.safetensors")


def test_a_cluster_file_that_cannot_be_written_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure(["-o", str(tmp_path)]) == 2
    assert "it is a folder" in capsys.readouterr().err
