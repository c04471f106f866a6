"""Files that cannot be written are refused before anything takes time."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime.errors import InputError
from runtime.measure.__main__ import main as measure
from runtime.output_files import replace_file, require_apart, require_writable, write_files
from tests.support.artifacts.by_hand import chain
from tests.support.patience import PATIENCE


def test_files_that_cannot_be_written_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_writable(tmp_path / "y.safetensors")
    with pytest.raises(InputError, match="none is no folder"):
        require_writable(tmp_path / "none" / "y.safetensors")
    with pytest.raises(InputError, match="it is a folder"):
        require_writable(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match=r"cannot write .*: permission denied"):
        require_writable(tmp_path / "y.safetensors")


def test_files_of_the_artifact_and_the_inputs_are_not_written_over(tmp_path: Path) -> None:
    given, weights = tmp_path / "x.safetensors", chain(tmp_path / "out") / "stage_0.safetensors"
    require_apart(weights.with_name("y.safetensors"), weights.parent, given)
    for file in (weights, weights.with_name("manifest.json")):
        with pytest.raises(InputError, match=r"is a file of the artifact; name another to write"):
            require_apart(file, weights.parent, given)
    with pytest.raises(InputError, match=r"is what the inputs are read from; name another file to write"):
        require_apart(tmp_path / "out/../x.safetensors", weights.parent, given)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file, link = tmp_path / "there/y", tmp_path / "link"
    file.parent.mkdir()
    replace_file(file, lambda path: path.write_text("first"))
    (tmp_path / "plain").touch()
    assert file.stat().st_mode == (tmp_path / "plain").stat().st_mode  # not that of temporary files
    link.symlink_to(file)
    file.chmod(0o640)

    def private(path: Path) -> None:  # as the library of safetensors does
        path.unlink()
        path.write_text("second")
        path.chmod(0o600)

    replace_file(link, private)
    assert link.is_symlink()
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("second", 0o640)

    def full(path: Path) -> None:
        path.write_text("third")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"cannot write .*link: No space left on device"):
        replace_file(link, full)
    assert file.read_text() == "second"
    assert {path.name for path in file.parent.iterdir()} == {"y"}


def test_files_that_a_full_disk_kept_from_being_written_are_not_taken_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Path.write_text

    def full(path: Path, data: str, **options: str) -> None:
        whole(path, data[:1], **options)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(InputError, match=r"cannot write .*one: No space left on device"):
            write_files(tmp_path, {"a/one": "first", "two": "second"}, False)
    assert [file.name for file in tmp_path.rglob("*")] == ["a"]
    written = write_files(tmp_path, {"a/one": "first", "two": "second"}, False)
    assert [file.read_text() for file in written] == ["first", "second"]


def test_what_is_no_file_is_written_to_and_stays(tmp_path: Path) -> None:
    """As /dev/null, which an administrator could replace."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        replace_file(pipe, lambda path: path.write_text("content"))
        assert read.result(PATIENCE) == "content"
    assert pipe.is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_cluster_file_that_cannot_be_written_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure(["-o", str(tmp_path)]) == 2
    assert "it is a folder" in capsys.readouterr().err
