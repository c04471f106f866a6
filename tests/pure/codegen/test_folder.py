"""A folder is replaced only where nothing is lost, and what cannot be written is known at once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from codegen.artifact.folder import check_replaceable, new_folder, restamp
from ir.errors import OutputError
from runtime.manifest.digests import seal_of
from runtime.manifest.manifest import write_table

STAGE = "# the first stage"


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def manifest(files: Mapping[str, str], schema: int = 2) -> str:
    hashes = {name: sha256(text.encode()).hexdigest() for name, text in files.items()}
    return json.dumps({"schema": schema, "name": "model", "files": hashes})


def artifact(folder: Path, schema: int = 2) -> Path:
    files = {"stage_0.py": STAGE, "passes/01-simplify-masks.txt": "graph()"}
    write(folder, files | {"manifest.json": manifest(files, schema)})
    return folder


def replaced(out: Path, meanwhile: Callable[[], object] = lambda: None, force: bool = False) -> None:
    with new_folder(out, force=force) as folder:
        write(folder, {"stage_0.py": "# of this run"})
        meanwhile()


def interrupt() -> None:
    raise KeyboardInterrupt


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return artifact(tmp_path / "out")


@pytest.mark.parametrize("adapters", [None, 3, {"two": 1}, [["two"]]])
def test_what_another_schema_calls_adapters_is_no_hindrance(adapters: object, out: Path) -> None:
    write_table(out, {**json.loads((out / "manifest.json").read_text()), "adapters": adapters})
    replaced(out)
    assert contents(out) == {"stage_0.py": "# of this run"}


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_an_artifact_of_any_schema_is_replaced(schema: int, tmp_path: Path) -> None:
    replaced(artifact(tmp_path / "out", schema))
    assert contents(tmp_path) == {"out/stage_0.py": "# of this run"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_later_runs_leave_in_an_artifact_is_ours(out: Path) -> None:
    write(out, {"compiled/stage_0/graph.so": "", "__pycache__/stage_0.cpython-312.pyc": "", "passes/02-x.txt": ""})
    replaced(out)
    assert set(contents(out)) == {"stage_0.py"}


MANIFESTS = {
    "of a web application": '{"name": "shop", "icons": [{"src": "a.png"}]}',
    "of an extension": '{"manifest_version": 3, "name": "shop", "version": "1.0"}',
    "of files without hashes": '{"schema": 2, "name": "shop", "files": {"index.html": "index-4f.html"}}',
    "that is a list": "[]",
    "that is no JSON": "{",
    "of bytes": "\ud800",
}


@pytest.mark.parametrize("what", MANIFESTS)
def test_a_folder_with_a_manifest_of_others(what: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, {"index.html": "<html>", "compiled/app.js": "x"})
    (out / "manifest.json").write_bytes(MANIFESTS[what].encode(errors="surrogatepass"))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(
        OutputError,
        match=r"out is a folder that stagecut did not write: it holds compiled/app.js, index.html, manifest.json; "
        r"name another folder, or use --force to move this one to .*/out.old$",
    ):
        replaced(out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


STRANGERS: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "an edited stage": (lambda f: write(f, {"stage_0.py": "# mine"}), "holds stage_0.py, edited since stagecut wrote"),
    "an edited dump": (
        lambda f: write(f, {"passes/01-simplify-masks.txt": "note"}),
        "holds passes/01-simplify-masks.txt, edited",
    ),
    "a file beside": (lambda f: write(f, {"notes.txt": "mine"}), "holds notes.txt, which stagecut did not write"),
    "a file below": (lambda f: write(f, {"passes/notes.txt": "mine"}), "holds passes/notes.txt, which stagecut"),
    "a hidden file": (lambda f: write(f, {".git/HEAD": "mine"}), "holds .git/HEAD, which stagecut did not write"),
    "an empty folder": (lambda f: (f / "runs").mkdir(), "holds runs/, which stagecut did not write"),
    "a link to a folder": (lambda f: (f / "data").symlink_to("/"), "holds data, which stagecut did not write"),
    "a link that dangles": (lambda f: (f / "data").symlink_to("none"), "holds data, which stagecut did not write"),
    "a link in place of a stage": (
        lambda f: ((f / "stage_0.py").rename(f.parent / "mine.py"), (f / "stage_0.py").symlink_to("../mine.py")),
        "holds stage_0.py, edited since",
    ),
    "both": (
        lambda f: write(f, {"stage_0.py": "# mine", "notes.txt": "mine"}),
        "holds stage_0.py, edited since stagecut wrote it and holds notes.txt, which stagecut did not write; name",
    ),
    "many": (
        lambda f: write(f, {f"{i}.txt": "mine" for i in range(9)}),
        "holds 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 4 more, which stagecut did not write",
    ),
}


@pytest.mark.parametrize("what", STRANGERS)
def test_an_artifact_with_files_of_others(what: str, out: Path) -> None:
    change, message = STRANGERS[what]
    change(out)
    before = contents(out)
    with pytest.raises(OutputError, match=f"out {message}"):
        check_replaceable(out)
    with pytest.raises(OutputError, match=f"out {message}"):
        replaced(out)
    assert contents(out) == before


def test_a_manifest_that_was_edited_is_the_users(out: Path) -> None:
    table = json.loads((out / "manifest.json").read_text())
    write_table(out, {**table, "seal": seal_of(table)})
    check_replaceable(out)
    write_table(out, {**table, "seal": seal_of(table), "name": "mine"})
    with pytest.raises(OutputError, match=r"out holds manifest.json, edited since stagecut wrote it"):
        check_replaceable(out)


def test_force_moves_the_folder_aside_whole(out: Path) -> None:
    for name in ("out.old", "out.old.2", "out.old.3"):
        write(out, {"notes.txt": name})
        before = contents(out)
        replaced(out, force=True)
        assert contents(out.with_name(name)) == before
        assert contents(out) == {"stage_0.py": "# of this run"}


def test_force_deletes_what_is_ours_alone(out: Path) -> None:
    replaced(out, force=True)
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_file_that_comes_while_the_folder_is_written(out: Path) -> None:
    with pytest.raises(OutputError, match=r"holds notes.txt, which stagecut did not"):
        replaced(out, lambda: write(out, {"notes.txt": "mine"}))
    assert contents(out)["notes.txt"] == "mine"
    assert contents(out)["stage_0.py"] == STAGE
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_edit_of_the_same_length_and_time(out: Path) -> None:
    """What is edited is told by content."""
    check_replaceable(out)
    times = (out / "stage_0.py").stat()
    write(out, {"stage_0.py": STAGE.upper()})
    os.utime(out / "stage_0.py", ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(OutputError, match=r"stage_0.py, edited"):
        check_replaceable(out)


def test_what_stagecut_itself_writes_again_is_ours(out: Path) -> None:
    write(out, {"stage_0.py": "# with a measured run"})
    restamp(out / "stage_0.py")
    write(out, {"notes.txt": "not in the manifest"})
    restamp(out / "notes.txt")
    with pytest.raises(OutputError, match=r"out holds notes.txt, which stagecut did not write; name"):
        check_replaceable(out)


def test_a_manifest_that_cannot_be_written_again_stays(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(out)

    def full(path: Path, text: str) -> None:
        path.write_bytes(text[:9].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_table(out, {"schema": 3})
    assert contents(out) == before


def test_an_interrupt_while_the_folder_moves(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, rename = contents(out), Path.rename

    def stopped(self: Path, target: Path) -> Path:
        if target == out and not self.name.endswith(".old"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stopped)
    with pytest.raises(KeyboardInterrupt):
        replaced(out)
    assert contents(out) == before
    assert [path.name for path in out.parent.iterdir()] == ["out"]


UNWRITABLE: Mapping[str, tuple[Callable[[Path], Path], str]] = {
    "a file": (lambda f: f / "file", "file is not a folder; name another place"),
    "below a file": (lambda f: f / "file" / "out", r"cannot write .*file/out: Not a directory"),
    "a name that is too long": (lambda f: f / ("x" * 300), "cannot write .*: File name too long"),
    "a long name below": (lambda f: f / "new" / ("x" * 300), "cannot write .*: File name too long"),
    "no name": (lambda f: f / "a\0b", "cannot write .*: .*null"),
    "a folder of the kernel": (lambda _: Path("/proc/stagecut"), "cannot write /proc/stagecut: "),
    "a mounted disk": (lambda _: Path("/proc"), "/proc is where a disk is mounted"),
    "a link to a folder": (lambda f: f / "link", "link is a link to folder; name the folder itself"),
    "a link that dangles": (lambda f: f / "dangling", "dangling is a link to none; name the folder itself"),
    "a link in a circle": (lambda f: f / "circle" / "out", "cannot write .*: "),
    "the working directory": (lambda _: Path("."), r"\. is the working directory, which cannot be replaced"),
    "no path": (lambda _: Path(""), r"\. is the working directory, which cannot be replaced"),
    "the folder above": (lambda _: Path(".."), r"\.\. holds the working directory, which cannot be replaced"),
    "the folder above, by name": (lambda f: f, r" holds the working directory, which cannot be replaced"),
}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("what", UNWRITABLE)
def test_a_place_that_cannot_be_written(
    what: str, force: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"file": "mine"})
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "dangling").symlink_to("none")
    (tmp_path / "circle").symlink_to("circle")
    monkeypatch.chdir(tmp_path / "folder")
    place, message = UNWRITABLE[what]
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=message):
        check_replaceable(place(tmp_path), force=force)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_parent_that_is_read_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match=r"cannot write .*out: Permission denied"):
            check_replaceable(tmp_path / "out")
    finally:
        tmp_path.chmod(0o700)


def test_a_parent_that_takes_no_new_folder(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk that is read-only, where `out` itself is there."""

    def refuse(path: str, *_: object) -> None:
        raise OSError(30, "Read-only file system", path)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(OutputError, match=r"cannot write .*/out: Read-only file system"):
        check_replaceable(out)


@pytest.mark.parametrize("inside", ["", "model.py", "weights/model.safetensors"])
def test_what_the_model_is_read_from_stays(inside: str, out: Path) -> None:
    with pytest.raises(OutputError, match=r"out holds .*, which the model is read from; name another folder"):
        check_replaceable(out, force=True, inputs=[out / inside])
    check_replaceable(out / "new", inputs=[out / inside])


def test_a_link_to_what_the_model_is_read_from(out: Path) -> None:
    (out.parent / "model").symlink_to(out)
    with pytest.raises(OutputError, match=r"out holds .*/model, which the model is read from"):
        check_replaceable(out, inputs=[out.parent / "model"])


def test_folders_above_that_were_missing_go_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        replaced(tmp_path / "a" / "b" / "out", interrupt)
    assert not list(tmp_path.iterdir())
    replaced(tmp_path / "a" / "b" / "out")
    assert list(contents(tmp_path)) == ["a/b/out/stage_0.py"]
