"""The front door: help without torch, messages for wrong options, an installation without the compiler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import passes
import stagecut
from ir.errors import CompileError
from passes.cli.main import app
from passes.compilation.compiler import check_room
from passes.options.options import CostSource, Options
from tests.support.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[4]
MISSING = """
import sys
class Missing:
    def find_spec(self, name, *_):
        if name in ("ortools", "graphviz"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""


def run(code: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"import sys\nsys.path.append({str(ROOT)!r})\n"
    return subprocess.run(
        [sys.executable, "-c", path + code, *arguments], cwd=folder, capture_output=True, text=True, timeout=PATIENCE
    )


@pytest.mark.parametrize("command", [[], ["compile"], ["generate"]])
def test_help_comes_without_torch_and_without_the_compiler(command: list[str], tmp_path: Path) -> None:
    code = f"""{MISSING}
from stagecut import main
try:
    main()
finally:
    print([name for name in ("torch", "sympy") if name in sys.modules])
"""
    done = run(code, *command, "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert f"Example: stagecut {' '.join(command) or 'compile'} " in done.stdout


ENDING = """
import atexit, os
import passes.cli.main as command
from stagecut import main
class Freed:
    def __del__(self, write=os.write):
        write(1, b"freed\\n")
def run(arguments, plain=command.run):
    atexit.register(print, "last words")
    plain(arguments)
sys.freed, command.run = Freed(), run
"""


@pytest.mark.parametrize(("call", "freed"), [("main()", []), ("main(sys.argv[1:])", ["freed"])])
def test_a_process_whose_command_plans_ends_without_freeing_its_objects(
    call: str, freed: list[str], tmp_path: Path
) -> None:
    done = run(f"{ENDING}\n{call}", "compile", "--help", folder=tmp_path)
    said = done.stdout.splitlines()
    assert (done.returncode, said[said.index("last words") :]) == (0, ["last words", *freed])


def test_a_process_that_plans_ends_with_the_status_of_the_command(tmp_path: Path) -> None:
    done = run(f"{ENDING}\nmain()", "compile", "model.py", "--no-such-option", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "last words\n")


@pytest.mark.slow
def test_without_the_compiler_a_command_says_how_to_get_it(tmp_path: Path) -> None:
    done = run(f"{MISSING}\nfrom stagecut import main\nmain()", "compile", "model.py", "-o", "out", folder=tmp_path)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: stagecut compile needs ")
    assert line.endswith(", which is not installed; pip install 'stagecut[compile]'")


@pytest.mark.parametrize("name", ["runtime", "ir"])
def test_a_folder_that_hides_ours_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    done = run("import stagecut\nstagecut.Pipeline", folder=tmp_path)
    assert f"ImportError: {tmp_path / name} hides the package {name!r} of stagecut" in done.stderr


def test_the_entry_points_are_listed() -> None:
    assert {"compile_model", "auto_partition", "Pipeline"} <= set(dir(stagecut))
    assert dir(passes) == ["auto_partition", "compare_machines", "compile_model"]


def test_the_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"stagecut {stagecut.__version__}\n"


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a device for devices": ({"devices": "cpu"}, r"devices is 'cpu'; it must be how many there are, or a list"),
    "no devices": ({"devices": 0}, r"devices is 0; it must be how many"),
    "an empty list of devices": ({"devices": []}, r"devices is \[\]; it must be how many"),
    "an unknown device": ({"devices": ["gpu0"]}, r"'gpu0' is no name of a device that torch knows"),
    "a number in quotes": ({"stages": "2"}, r"stages is '2'; it must be a whole number of 1 or more"),
    "an unknown option": ({"stage": 2}, r"there is no option 'stage'; did you mean 'stages'\?"),
    "an option of the command": ({"json": True}, r"json is for the command line alone"),
    "two machines": ({"stages": 2, "devices": 2}, r"stages and devices exclude each other"),
    "an unknown choice": ({"weights": "all"}, r"weights is 'all'; it must be copy, link or none"),
    "not a time": ({"time_limit": float("nan")}, r"time_limit is nan; it must be a number of seconds"),
    "a word for a switch": ({"padding": "no"}, r"padding is 'no'; it must be True or False"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_option_of_a_python_call(what: str, tmp_path: Path) -> None:
    options, message = WRONG[what]
    with pytest.raises(CompileError, match=message):
        stagecut.compile_model(nn.Linear(2, 2), (torch.ones(1, 2),), out=tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"args": 3}, r"args is a int; give a tuple of the model's positional arguments"),
        ({"args": None}, r"args is a NoneType; give a tuple"),
        ({"kwargs": 3}, r"kwargs is a int; give a dict of the model's arguments by name"),
        ({"variants": 3}, r"variants is a int; give a dict of calls by name"),
    ],
)
def test_a_call_that_is_none(call: dict[str, Any], message: str, tmp_path: Path) -> None:
    given = {"args": (torch.ones(1, 2),), **call}
    with pytest.raises(CompileError, match=message):
        stagecut.compile_model(nn.Linear(2, 2), out=tmp_path / "out", stages=1, **given)


def test_devices_is_a_keyword() -> None:
    with pytest.raises(CompileError, match=r"devices is a keyword: auto_partition\(…, devices=2\)"):
        stagecut.auto_partition(nn.Linear(2, 2), 2)  # type: ignore[arg-type]


def test_options_are_read_alike_from_texts_and_values() -> None:
    texts = Options(memory="1GiB", dtype="float16", cost="profiled", out="x")  # type: ignore[arg-type]
    values = Options(memory=2**30, dtype=torch.float16, cost=CostSource.profiled, out=Path("x"))  # type: ignore[arg-type]
    assert texts == values


def test_the_disk_must_have_room(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"need 1,000,000,000,000,000,000 bytes .* and the disk has [\d,]+ "):
        check_room(tmp_path, 10**18)


def test_a_python_call_says_what_the_command_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, unless progress is turned off; and the plan is a table."""
    model, x = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4))).eval(), torch.ones(3, 8)
    options: dict[str, Any] = {"stages": 2, "dynamic_shapes": ["input:0=batch"], "verify": True}
    plan = stagecut.compile_model(model, (x,), out=tmp_path / "out", **options)
    said = capsys.readouterr()
    assert said.out == ""
    assert "verify: the stages return what the uncut model returns, bit for bit, in 3 calls\n" in said.err
    assert "numbers for batch 3\n" in said.err
    assert f"wrote {tmp_path / 'out'}: 2 stages with 1.1 KiB of weights; see" in said.err
    assert f"to run it: stagecut run {tmp_path / 'out'} --input" in said.err
    *table, value, sizes = repr(plan).splitlines()
    assert value.startswith("bottleneck ")
    assert sizes == "numbers for batch 3"
    rows = [line.split() for line in table]
    assert [row[:2] for row in rows] == [["stage", "device"], ["0", "cpu"], ["1", "cpu"]]
    assert rows[0][2] == "busy"
    assert all(float(row[2]) > 0 for row in rows[1:])
    assert plan._repr_html_().count("<tr>") == 3
    stagecut.compile_model(model, (x,), out=tmp_path / "out", progress=False, **options)
    assert capsys.readouterr() == ("", "")
