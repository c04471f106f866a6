"""Bad input gets one clear message and status 2, and leaves everything as it was."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import passes.compilation.compiler
from ir.errors import InternalError
from ir.text.units import parse_bytes
from runtime.manifest.manifest import Manifest
from tests.support.running.commands import MODEL, Shell

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """With an artifact of an earlier run in `out`, which no refused command may touch."""
    shell = Shell.open(tmp_path, monkeypatch, capsys)
    shell.write_artifact("out")
    return shell


INPUTS = "example_inputs = (torch.ones(2, 64),)\n"
SOURCES = {
    "without a model": ("x = 1", "model.py defines no `model`; a model file has `model` (a torch.nn.Module, or a"),
    "without inputs": (
        "from torch import nn\nmodel = nn.Linear(2, 2)",
        "model.py defines no `example_inputs`; a model",
    ),
    "a model of another kind": ("model = 3", "`model` in model.py is a int, not a torch.nn.Module"),
    "a function that makes no model": ("def model(): return 'text'", "`model` in model.py is a str, not a torch.nn"),
    "inputs of another kind": (
        MODEL + "example_inputs = torch.ones(2)",
        "`example_inputs` in model.py is a Tensor; make",
    ),
    "an exception": ("import torch\n\n1 / 0", "model.py:3 raised ZeroDivisionError: division by zero"),
    "a missing module": ("import nothing_of_that_name", "model.py:1 raised ModuleNotFoundError: No module named"),
    "no Python": ("import torch\nmodel = (", "model.py:2 raised SyntaxError: '(' was never closed"),
    "an exception in a function": (
        "def model():\n    raise ValueError('no weights')",
        "model.py:2 raised ValueError: no",
    ),
    "an exception in a library": ("import json\njson.loads('{')", "model.py:2 raised JSONDecodeError: Expecting"),
    "an exception in the inputs": (
        MODEL + "def example_inputs():\n    return {}['x']",
        "model.py:7 raised KeyError: 'x'",
    ),
    "a checkpoint that is missing": (MODEL + "checkpoint = 'weights'", "there is no checkpoint at weights; give a"),
    "a checkpoint that is damaged": (MODEL + "checkpoint = 'model.py'", "cannot read model.py: "),
    "inputs that do not fit": (
        MODEL + "example_inputs = (1, 2)",
        "the example inputs do not fit Sequential.forward(input): too many positional arguments",
    ),
}


@pytest.mark.parametrize("what", SOURCES)
def test_a_model_file(what: str, shell: Shell) -> None:
    text, message = SOURCES[what]
    shell.write({"model.py": text})
    assert f"error: {message}" in shell.refused("model.py -o out --stages 2")


COMMANDS = {
    "a missing file": ("none.py -o out --stages 2", "error: there is no file none.py; give a model file such as"),
    "a file that is no Python": (
        "notes.txt -o out --stages 2",
        "error: notes.txt is neither a Python file nor an exported program; give a model",
    ),
    "a file of another library": ("m.onnx -o out --stages 2", "error: m.onnx is a file of ONNX, which is not read"),
    "an archive": ("m.tar.gz -o out --stages 2", "unpack it, and give the folder in it"),
    "a file of weights": ("m.safetensors -o out --stages 2", "the model, and the weights with --checkpoint m.safeten"),
    "a folder's file of weights": ("folder/m.safetensors -o out --stages 2", "program; give its folder, folder"),
    "a missing function": ("model.py:build -o out --stages 2", "error: model.py defines no `build`; a model file has"),
    "no output folder": ("model.py --stages 2", "error: where to? name the artifact folder with -o OUT"),
    "no machine": ("model.py -o out", "error: say either how many stages (--stages N) or which devices (--cluster"),
    "two machines": (
        "model.py -o out --stages 2 --cluster c.toml",
        "error: say either how many stages (--stages N) or",
    ),
    "no stage": ("model.py -o out --stages 0", "error: --stages is 0; it must be a whole number"),
    "stages in words": (
        "model.py -o out --stages two",
        "error: --stages is 'two'; it must be a whole number",
    ),
    "an unknown flag": ("model.py -o out --stages 2 --fast", "No such option: --fast"),
    "where to read on": ("model.py -o out --stages 2 --fast", "; see stagecut compile --help"),
    "an amount without a unit": (
        "model.py -o out --stages 2 --memory 16",
        "error: --memory is '16'; it must be an amount such as 16GiB",
    ),
    "an exponent without a unit": (
        "model.py -o out --stages 2 --memory 1.6e10",
        "error: --memory is '1.6e10'; it must be an amount such as 16GiB",
    ),
    "an unknown choice": (
        "model.py -o out --stages 2 --shared maybe",
        "error: --shared is 'maybe'; it must be colocate, replicate or auto",
    ),
    "an unknown pass to print": (
        "model.py -o out --stages 2 --print-after fuse",
        "error: no pass is named 'fuse'; there are export, simplify-masks, share-heads, fuse-attention, ",
    ),
    "an unknown pass to stop at": (
        "model.py --stages 2 --stop-after fuse",
        "error: no pass is named 'fuse'; there are",
    ),
    "a folder of others": (
        "model.py -o mine --stages 2",
        "error: mine is a folder that stagecut did not write: it holds thesis.txt; name another folder, or use --force",
    ),
    "a file in the way": ("model.py -o notes.txt --stages 2", "error: notes.txt is not a folder; name another place"),
    "a file above the folder": ("model.py -o notes.txt/out --stages 2", "error: cannot write notes.txt/out: "),
    "memory in words": (
        "model.py -o out --stages 2 --memory lots",
        "error: --memory is 'lots'; it must be an amount",
    ),
    "a cluster file that is missing": (
        "model.py -o out --cluster no.toml",
        "error: cannot read the cluster file no.toml:",
    ),
    "a device that is known by no name": (
        "model.py -o out --cluster h300x2",
        "error: there is no file h300x2, and of devices only a100, ",
    ),
    "a device without a number": ("model.py -o out --cluster h100", "in any number: did you mean h100x1?"),
    "no devices of a kind": ("model.py -o out --cluster h100x0", "in any number: did you mean h100x1?"),
    "a name without a folder": (
        "gpt2 -o out --stages 2",
        "there is no file gpt2; give a model file such as examples/gpt2.py, a checkpoint folder or a .pt2; if it is a "
        "model of the Hugging Face hub, download it first, and give the folder: hf download gpt2 --local-dir gpt2",
    ),
    "a plan that is left out": (
        "model.py --stages 2 --stop-after export --json",
        "--json needs the whole plan, which --stop-after leaves out; drop one of the two",
    ),
    "no time for the sizes": (
        "model.py -o out --stages 2 --option check-sizes{size-limit=nan}",
        "size-limit is nan; it must be a number of seconds, 0 or more",
    ),
    "a device in capitals": ("model.py -o out --cluster H100x4", "in any number: did you mean h100x4?"),
    "a number before the device": ("model.py -o out --cluster 4xh100", "in any number: did you mean h100x4?"),
    "a name of the hub": ("meta-llama/Llama-3-8B -o out --stages 2", "hf download meta-llama/Llama-3-8B --local-dir"),
    "no time": (
        "model.py -o out --stages 2 --time-limit nan",
        "error: --time-limit is nan; it must be a number of seconds",
    ),
    "negative time": (
        "model.py -o out --stages 2 --size-limit -1",
        "error: --size-limit is -1.0; it must be a number of",
    ),
    "an option of no pass": ("model.py -o out --stages 2 --option fuse{a=1}", "error: no pass is named 'fuse'; there"),
    "an option that a pass lacks": (
        "model.py -o out --stages 2 --option split-stages{speed=1}",
        "error: split-stages has no option 'speed'; it has objective, slack, cut-at, in-flight, time-limit",
    ),
    "a value that an option of a pass lacks": (
        "model.py -o out --stages 2 --option split-stages{objective=fast}",
        "error: split-stages{objective} is 'fast'; it must be throughput or latency",
    ),
    "a profile of devices elsewhere": (
        "model.py -o out --cluster h200x2 --cost profiled",
        "error: there is no cuda:0 on this host, which has ",
    ),
    "a cluster file in prose": (
        "model.py -o out --cluster notes.txt",
        "error: cannot read the cluster file notes.txt:",
    ),
    "dynamic in words": (
        "model.py -o out --stages 2 --dynamic batch",
        "error: --dynamic: 'batch' does not read as INPUT:DIM=NAME,DIM=NAME, for example input_ids:0=batch,1=seq",
    ),
    "dynamic for no argument": (
        "model.py -o out --stages 2 --dynamic ids:0=batch",
        "error: dynamic shapes name `ids`, which is no argument of the model; it takes ['input']",
    ),
    "dynamic for no dimension": (
        "model.py -o out --stages 2 --dynamic input:2=batch",
        "error: dynamic dimension 2 of `input`: it has 2 dimensions",
    ),
    "a workload without dynamic sizes": (
        "model.py -o out --stages 2 --workload batch=2",
        "error: the workload names batch; no size of this model may change: --dynamic input_ids:0=batch,1=seq lets",
    ),
    "dynamic for a size that is fixed": (
        "model.py -o out --stages 2 --dynamic input:0=batch,1=width",
        "`width` (dimension 1 of `input`)",
    ),
    "more stages than nodes": ("model.py -o out --stages 9", "error: no plan for 9 devices: "),
}


@pytest.mark.parametrize("what", COMMANDS)
def test_a_command(what: str, shell: Shell) -> None:
    command, message = COMMANDS[what]
    shell.write({"notes.txt": "Not Python, nor TOML.", "mine/thesis.txt": "all of my work"})
    shell.write(
        {"m.tar.gz": "", "m.onnx": "", "m.safetensors": "", "folder/m.safetensors": "", "folder/config.json": ""}
    )
    assert message in shell.refused(command)


MODULE = """\
import torch
from torch import nn

class Odd(nn.Module):
    def forward(self, x):
        {}

model = {}
example_inputs = (torch.ones(2, 64),)
"""
BELOW = "nn.Sequential(nn.Linear(64, 64), nn.Sequential(nn.ReLU(), Odd()))"
ODD = {  # a line, why it is odd, and what usually helps
    "a branch on values": (
        "return x if x.sum() > 0 else -x",
        "it decides by the values of a tensor",
        "use torch.where in place of if",
    ),
    "a size from values": (
        "return x + x[x > 0].sum()",
        "a size depends on the values of a tensor",
        "torch.where or a mask",
    ),
    "a value read out": (
        "return x * x.sum().item()",
        "a size depends on the values of a tensor",
        "in place of indexing by nonzero, .item()",
    ),
}


@pytest.mark.parametrize("what", ODD)
def test_a_model_that_cannot_be_exported(what: str, shell: Shell) -> None:
    """Where nothing helps, the message names the module and the line, and says what to change."""
    code, reason, advice = ODD[what]
    shell.write({"model.py": MODULE.format(code, "Odd()")})
    error = shell.refused("model.py -o out --stages 2")
    assert f"error: the model cannot be exported: {reason}" in error
    assert f"in the model (model.py:6): {code[:40]}" in error
    assert advice in error
    assert "or move it into a module of its own" in error


@pytest.mark.parametrize("what", ODD)
def test_a_module_that_cannot_be_exported(what: str, shell: Shell) -> None:
    """It is kept whole, and a note and the report say where it is and why."""
    code, reason, _ = ODD[what]
    shell.write({"model.py": MODULE.format(code, BELOW)})
    ended = shell.run("model.py -o out --stages 2 --verify")
    assert ended.status == 0, ended.err
    [note] = [line for line in ended.err.splitlines() if line.startswith("note: ")]
    assert note.startswith(f"note: 1.1 is kept whole in one stage: {reason}")
    assert f"in 1.1 (model.py:6): {code}" in note
    assert reason in (shell.folder / "out/report.html").read_text()


KNOWING = """\
import torch
from torch import nn

class Knows(nn.Module):
    def forward(self, ids):
        return torch.tensor(0), bool((ids > 5).any())

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.knows, self.embed = Knows(), nn.Embedding(10, 8)

    def forward(self, ids):
        return self.embed(ids) * (2 if self.knows(ids)[1] else 3)

model = Model().eval()
example_inputs = (torch.arange(10)[None],)
"""


def test_what_computes_something_else_on_a_second_input_is_refused(shell: Shell) -> None:
    """A number among what a module returns, the same for every trial of it, would stay as it was there."""
    shell.write({"model.py": KNOWING})
    error = shell.refused("model.py -o out --stages 2")
    assert "error: the model cannot be exported: it decides by the values of a tensor" in error
    assert "in knows (model.py:6): return torch.tensor(0), bool((ids > 5).any())" in error
    assert "knows cannot be kept whole: on a second input the stages would compute something else" in error


def test_a_checkpoint_of_another_model(shell: Shell) -> None:
    good = {
        f"{i}.{name}": torch.zeros(shape) for i in range(4) for name, shape in [("weight", (64, 64)), ("bias", (64,))]
    }
    shell.write({"model.py": MODEL + "checkpoint = 'weights.safetensors'"})
    save_file({k: v for k, v in good.items() if k != "2.bias"}, "weights.safetensors")
    assert "error: the checkpoint weights.safetensors holds no 2.bias" in shell.refused("model.py -o out --stages 2")
    save_file(good | {"2.bias": torch.zeros(32)}, "weights.safetensors")
    error = shell.refused("model.py -o out --stages 2")
    assert "error: 2.bias is [32] in weights.safetensors and float32[64] in the model" in error
    save_file(good, "weights.safetensors")
    assert shell.run("model.py -o out --stages 2").status == 0


@pytest.mark.parametrize("memory", ["17KiB", "20KiB", "33KiB"])
def test_what_it_says_would_fit_does_fit(memory: str, shell: Shell) -> None:
    """Too little memory: the message says what is short, and for how much and how many it would do."""
    error = shell.refused(f"model.py -o out --stages 2 --memory {memory}")
    told = re.fullmatch(
        r"error: cpu needs [\d.]+ KiB and has [\d.]+ KiB; the largest part that cannot be divided is \d\.weight "
        r"\([\d.]+ KiB\)\. It fits on 2 devices of ([\d.]+ \wi?B)(?:, or on (\d+) devices of ([\d.]+ \wi?B))?\.",
        " ".join(error.splitlines()[-1].split()),
    )
    assert told, error
    enough, devices, _ = told.groups()
    assert shell.run(f"model.py -o fits --stages 2 --memory {enough.replace(' ', '')}").status == 0
    assert shell.run(f"model.py -o short --stages 2 --memory {int(parse_bytes(enough) * 0.98)}").status == 2
    if devices:
        assert shell.run(f"model.py -o more --stages {devices} --memory {memory}").status == 0
        assert shell.run(f"model.py -o fewer --stages {int(devices) - 1} --memory {memory}").status == 2


def test_most_messages_come_before_the_model_is_read(shell: Shell) -> None:
    """A long import is not worth the wait for a flag that is wrong."""
    shell.write({"model.py": "raise SystemError('read too early')", "mine/thesis.txt": "all of my work"})
    shell.write(
        {"m.tar.gz": "", "m.onnx": "", "m.safetensors": "", "folder/m.safetensors": "", "folder/config.json": ""}
    )
    for flags in (
        "-o out",
        "-o out --stages 2 --print-after fuse",
        "-o mine --stages 2",
        "-o model.py/out --stages 2",
        "-o . --stages 2 --force",
        "-o /proc/out --stages 2 --force",
        "-o out --stages 2 --memory x",
    ):
        assert "read too early" not in shell.refused(f"model.py {flags}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("serve out --port abc", "argument --port: invalid int value: 'abc'; see stagecut serve --help"),
        ("run out --input x", "the following arguments are required: --output; see stagecut run --help"),
    ],
)
def test_a_mistake_in_the_flags_of_any_subcommand_is_one_line(arguments: str, message: str, shell: Shell) -> None:
    ended = shell.type_in(*arguments.split())
    assert (ended.status, ended.err) == (2, f"error: {message}\n")


def test_a_fault_of_ours_is_status_1(shell: Shell) -> None:
    def broken(*_: object, **__: object) -> None:
        raise InternalError("the tables do not match")

    before = shell.contents()
    shell.monkeypatch.setattr(passes.compilation.compiler, "plan_stages", broken)
    ended = shell.run("model.py -o out --stages 2")
    assert ended.status == 1
    assert "this is a fault of stagecut, not of your input: the tables do not match" in ended.err
    assert shell.contents() == before


def test_an_interrupt_leaves_everything_as_it_was(shell: Shell) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = shell.contents()
    shell.monkeypatch.setattr(Manifest, "write_sealed", stopped)
    ended = shell.run("model.py -o out --stages 2")
    assert ended.status == 130
    assert "interrupted; nothing was written" in ended.err
    assert shell.contents() == before


def test_the_real_command_has_the_status_and_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "passes.compile", str(tmp_path / "none.py"), "-o", str(tmp_path / "out")]
    done = subprocess.run([*command, "--stages", "2"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    ways = "give a model file such as examples/gpt2.py, a checkpoint folder or a .pt2"
    assert done.stderr == f"error: there is no file {tmp_path}/none.py; {ways}\n"
    assert not list(tmp_path.iterdir())
