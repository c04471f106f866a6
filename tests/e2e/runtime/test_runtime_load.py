"""Loading an artifact: edited, missing and damaged files, several at once, and the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

import runtime
from runtime import DeviceError, InputError, ManifestError, Pipeline
from runtime.check.__main__ import main as check
from runtime.check.artifact import faults
from runtime.generation.__main__ import main as generate
from runtime.manifest.digests import seal_of
from runtime.manifest.manifest import FILE, Manifest, write_table
from runtime.run import main
from tests.support.artifacts.by_hand import Part, chain, write
from tests.support.patience import PATIENCE
from tests.support.running.forked_jobs import python

ROOT = Path(__file__).resolve().parents[3]
X = torch.arange(8.0).reshape(2, 4)


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_an_edited_stage_runs_with_one_warning(tmp_path: Path) -> None:
    edit(chain(tmp_path) / "stage_1.py", "h * 2", "h * 3")
    with pytest.warns(UserWarning, match="stage_1.py differs from the manifest: it was edited") as caught:
        pipe = Pipeline.load(tmp_path)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pipe:
        assert torch.equal(pipe(X), (X + 1) * 3)


def test_an_edited_manifest_is_told(tmp_path: Path) -> None:
    """A page of another size, say, would mix up texts."""
    Manifest.read(chain(tmp_path)).write_sealed(tmp_path)
    Pipeline.load(tmp_path, strict=True).close()
    edit(tmp_path / FILE, '"pages": 0', '"pages": 3')
    with pytest.warns(UserWarning, match="manifest.json differs from its seal: it was edited"):
        Pipeline.load(tmp_path).close()
    with pytest.raises(ManifestError, match="differs from its seal: it was edited; load it without strict"):
        Pipeline.load(tmp_path, strict=True)


def test_modules_draw_no_first_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of embeddings would import torch's compiler."""
    edit(
        chain(tmp_path) / "stage_0.py",
        "        return module\n",
        "        nn.Embedding(2, 2, device='meta')\n        return module\n",
    )
    monkeypatch.setattr("torch.nn.init._no_grad_normal_", None)
    with pytest.warns(UserWarning, match="it was edited"), Pipeline.load(tmp_path) as pipe:
        assert torch.equal(pipe(X), (X + 1) * 2)


@pytest.mark.parametrize("name", ["stage_1.py", "stage_0.safetensors"])
def test_strict_refuses_changed_files(tmp_path: Path, name: str) -> None:
    chain(tmp_path)
    Pipeline.load(tmp_path, strict=True).close()
    with (tmp_path / name).open("ab") as f:
        f.write(b"\n")
    with pytest.raises(ManifestError, match=f"{name} differs from the manifest"):
        Pipeline.load(tmp_path, strict=True)


@pytest.mark.parametrize("name", ["stage_1.py", "stage_0.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (chain(tmp_path) / name).unlink()
    with pytest.raises(ManifestError, match=f"{name} is missing"):
        Pipeline.load(tmp_path)


def test_a_folder_of_schema_2_is_whole_and_runs() -> None:
    folder = ROOT / "tests/data/schema_2"
    assert [*faults(folder)] == []
    weights = load_file(folder / "stage_0.safetensors") | load_file(folder / "stage_1.safetensors")
    x = torch.randn(4, 2)
    hidden = functional.linear(x, weights["first.weight"], weights["first.bias"])
    expected = functional.linear(hidden, weights["second.weight"], weights["second.bias"]) + hidden.sum(0)
    with Pipeline.load(folder, strict=True) as pipe:
        assert torch.equal(pipe(x)["y"], expected)
        pipe.reset()
        assert torch.equal(pipe(x=x)["y"], expected)


def drop_stages(folder: Path) -> None:
    table = json.loads((folder / "manifest.json").read_text())
    del table["stages"]
    (folder / "manifest.json").write_text(json.dumps(table))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "manifest.json").unlink(), "is not an artifact folder: it has no manifest.json"),
        (lambda f: (f / "manifest.json").write_text("{"), "cannot read"),
        (lambda f: edit(f / "manifest.json", '"schema": 3', '"schema": 0'), "has schema 0, this runtime reads 3"),
        (lambda f: edit(f / "manifest.json", '"source": 0', '"origin": 0'), r"is damaged \(KeyError: 'source'\)"),
        (lambda f: edit(f / "manifest.json", '"stages": [', '"rooms": 0, "stages": ['), "has an unknown key `rooms`"),
        (lambda f: edit(f / "manifest.json", '"slot": 0', '"slot": "0"'), "malformed tree"),
        (drop_stages, r"is damaged \(KeyError: 'stages'\)"),
        (lambda f: edit(f / "manifest.json", '"Stage1"', '"Other"'), "stage_1.py has no class Other"),
        (lambda f: edit(f / "manifest.json", '"state": []', '"state": ["w"]'), "stage_0.py lacks a buffer"),
        (lambda f: (f / "stage_0.safetensors").write_bytes(b"?"), "stage_0.py cannot read .*stage_0.safetensors"),
    ],
)
def test_a_damaged_artifact_is_refused(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(chain(tmp_path))
    with pytest.raises(ManifestError, match=message):
        Pipeline.load(tmp_path)


@pytest.mark.parametrize(
    ("later", "schemas"),
    [
        ({"schema": 4, "programs": {}}, "its schema is 4, this version reads 2 and 3"),
        ({"warmth": 0.5}, "its schema is 3, this version reads 2 and 3 without the key `warmth`"),
    ],
)
def test_an_artifact_of_a_newer_version_is_no_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], later: dict[str, Any], schemas: str
) -> None:
    table = json.loads((chain(tmp_path) / FILE).read_text()) | later
    write_table(tmp_path, {**table, "seal": seal_of(table)})
    message = f"{FILE} was written by a newer version of stagecut: {schemas}; update stagecut here, or compile the mo"
    with pytest.raises(ManifestError, match=re.escape(message)):
        Pipeline.load(tmp_path)
    for command, extra in ((check, ()), (generate, ("hello",))):
        assert command([str(tmp_path), *extra]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:stage_0.py differs")
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import nowhere", "ModuleNotFoundError"),
        ("def f(:", "SyntaxError"),
        (
            "class MyError(Exception):\n    def __str__(self): return self.a\nraise MyError",
            "MyError: it has no text, as ",
        ),
    ],
)
def test_a_stage_file_that_cannot_be_imported_is_named(tmp_path: Path, text: str, why: str) -> None:
    (chain(tmp_path) / "stage_0.py").write_text(text)
    with pytest.raises(ManifestError, match=rf"cannot import .*stage_0.py: {why}"):
        Pipeline.load(tmp_path)


@pytest.mark.parametrize(("name", "message"), [("nowhere", "it does not exist"), ("stage_0.py", "it is a file")])
def test_a_path_that_is_no_artifact_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ManifestError, match=f"{name} is not an artifact folder: {message}; .* writes one"):
        Pipeline.load(chain(tmp_path) / name)


def test_devices_of_a_wrong_type_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="devices is 2, which names no device"):
        Pipeline.load(chain(tmp_path), devices=2)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": "5"}, "timeout is '5'; it must be a number of seconds above 0, or None"),
        ({"strict": "x"}, "strict is 'x'; it must be True or False"),
        ({"compile": 1}, "compile is 1; it must be True or False"),
        ({"folder": 3}, "the artifact is 3; it must be the path of a folder"),
    ],
)
def test_options_of_a_wrong_type_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        Pipeline.load(**{"folder": chain(tmp_path), **options})


@pytest.mark.parametrize("count", ["2", 0, True])
def test_counts_of_a_wrong_type_are_refused(tmp_path: Path, count: Any) -> None:
    with Pipeline.load(chain(tmp_path)) as pipe:
        with pytest.raises(InputError, match=f"microbatches is {count!r}; it must be a whole number of parts"):
            pipe(X, microbatches=count)
        with pytest.raises(InputError, match=f"in_flight is {count!r}; it must be a whole number of batches"):
            pipe.map([X], in_flight=count)


def test_a_pipeline_says_what_runs_where(tmp_path: Path) -> None:
    with Pipeline.load(chain(tmp_path)) as pipe:
        assert repr(pipe) == f"<Pipeline {pipe.manifest.name} from {tmp_path}: stages 0-1 on cpu; open>"
    assert repr(pipe).endswith("stages 0-1 on cpu; closed>")


def test_what_needs_no_pipeline_loads_no_torch() -> None:
    script = (
        "import sys, runtime, runtime.errors, runtime.manifest; from runtime import StageError;"
        "assert 'Pipeline' in dir(runtime), dir(runtime); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


def test_the_parent_is_known_before_anything_slow_is_imported() -> None:
    script = "import sys, runtime; sys.exit('runtime.distributed.parent' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


def test_an_entry_point_that_is_missing_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'runtime' has no attribute 'Pipelines'"):
        runtime.Pipelines  # noqa: B018


def test_a_device_that_is_not_here(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="device cuda:77 is not here; this host has cpu"):
        Pipeline.load(chain(tmp_path), devices=["cuda:77"])


def test_artifacts_live_side_by_side(tmp_path: Path) -> None:
    other = [Part("return (x * 100,)", {"x": None}, {"y": ((), (0,))})]
    path = list(sys.path)
    with (
        Pipeline.load(chain(tmp_path / "a")) as a,
        Pipeline.load(write(tmp_path / "b", other)) as b,
        Pipeline.load(tmp_path / "a") as c,
    ):
        assert torch.equal(a(X), c(X))
        assert torch.equal(b(X), X * 100)
        for pipe in (a, b, c):
            pipe.close()
    assert sys.path == path
    assert not list(tmp_path.rglob("__pycache__"))


# The command line


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str, str]:
    save_file({"x": X}, tmp_path / "x.safetensors")
    return str(chain(tmp_path / "out")), str(tmp_path / "x.safetensors"), str(tmp_path / "y.safetensors")


def test_run_reads_and_writes_tensors_by_name(files: tuple[str, str, str], capsys: pytest.CaptureFixture[str]) -> None:
    out, x, y = files
    assert main([out, "--input", x, "--output", y, "--devices", "cpu", "--strict"]) == 0
    assert torch.equal(load_file(y)["y"], (X + 1) * 2)
    assert capsys.readouterr().out == "y: float32[2, 4]\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": "nowhere"}, "nowhere is not an artifact folder"),
        ({"--input": "nowhere"}, "cannot read the inputs from nowhere"),
        ({"--output": "nowhere/y"}, "cannot write nowhere/y: nowhere is no folder"),
        ({"--devices": "cuda:77"}, "cuda:77 is not here"),
    ],
)
def test_run_explains_bad_input(
    files: tuple[str, str, str], capsys: pytest.CaptureFixture[str], change: dict[str, str], message: str
) -> None:
    out, x, y = files
    options = {"--input": x, "--output": y} | change
    assert main([options.pop("out", out), *(word for option in options.items() for word in option)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not Path(y).exists()


def test_run_refuses_wrong_tensors(
    files: tuple[str, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, x, y = files
    save_file({"x": X, "z": X + 1}, x)
    assert main([out, "--input", x, "--output", y]) == 2
    assert "there is no input `z`; the model takes x" in capsys.readouterr().err
    save_file({"x": X[0]}, x)
    assert main([out, "--input", x, "--output", y]) == 2
    assert "`x`: expected float32[batch, 4], got float32[4]" in capsys.readouterr().err


def test_run_reports_a_stage_that_raises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = write(tmp_path / "out", [Part("raise ValueError('no')", {"x": None}, {"y": ((), (0,))})])
    save_file({"x": X}, tmp_path / "x")
    assert main([str(out), "--input", str(tmp_path / "x"), "--output", str(tmp_path / "y")]) == 1
    assert capsys.readouterr().err == "error: stage 0 (cpu) raised ValueError: no\n"


def test_run_from_outside(files: tuple[str, str, str]) -> None:
    out, x, y = files
    command = [sys.executable, "-m", "runtime.run", out, "--input", x, "--output", y]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "y: float32[2, 4]\n", "")


def test_run_says_once_that_a_stage_was_edited(files: tuple[str, str, str], tmp_path: Path) -> None:
    out, x, y = files
    edit(Path(out) / "stage_1.py", "h * 2", "h * 3")
    command = ["-m", "runtime.run", out, "--input", x, "--output", y]
    done = python(tmp_path, *command)
    assert (done.status, done.err) == (0, "warning: stage_1.py differs from the manifest: it was edited\n")
    done = python(tmp_path, *command, "--strict")
    assert done.status == 2
    assert done.err.startswith("error: stage_1.py differs from the manifest: it was edited")


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan"])
def test_run_explains_a_timeout_that_is_none(
    files: tuple[str, str, str], capsys: pytest.CaptureFixture[str], text: str
) -> None:
    out, x, y = files
    with pytest.raises(SystemExit) as ended:
        main([out, "--input", x, "--output", y, f"--timeout={text}"])
    assert ended.value.code == 2
    assert f"{text} is no time in seconds" in capsys.readouterr().err


@pytest.mark.slow
def test_run_ends_where_a_stage_hangs(tmp_path: Path) -> None:
    out = write(tmp_path / "out", [Part("time.sleep(600)\nreturn (x,)", {"x": None}, {"y": ((), (0,))})])
    save_file({"x": X}, tmp_path / "x")
    files = ["--input", tmp_path / "x", "--output", tmp_path / "y"]
    done = python(tmp_path, "-m", "runtime.run", out, "--timeout", "0.5", *files)
    message = "error: stage 0 (cpu) raised TimeoutError: it is busy with one batch for more than 0.5 s\n"
    assert (done.status, done.out, done.err) == (1, "", message)


def test_python_ends_with_batches_in_flight(tmp_path: Path) -> None:
    script = (
        "import sys, torch; from runtime import Pipeline; pipe = Pipeline.load(sys.argv[1]);"
        "results = pipe.map([torch.zeros(2, 4)] * 99); next(results); print('end')"
    )
    command = [sys.executable, "-c", script, str(chain(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")
