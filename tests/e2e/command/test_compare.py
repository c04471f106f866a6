"""`stagecut compare`, and `compare_machines` in Python."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from ir.errors import CompileError
from ir.numbers.comparison import Comparison, Planned, Refused
from passes.annotate_cost import AnnotateCost
from passes.compilation import compiler
from passes.propagate_shapes import PropagateShapes
from stagecut import compare_machines
from tests.support.models.planning import machine, slow_machine
from tests.support.running.commands import MODEL, Shell


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell.open(tmp_path, monkeypatch, capsys)


def rows_of(text: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]


def test_a_row_for_each_cluster_then_for_each_number_of_devices_and_nothing_written(shell: Shell) -> None:
    before = shell.contents()
    ended = shell.run("model.py --clusters h100x2,l4x1 --stages 1,2", "compare")
    assert ended.status == 0, ended.err
    rows = rows_of(ended.out)
    assert ["machine", "binds", "bottleneck", "balance", "cuts", "memory", "samples/s"] in rows
    assert [row[0] for row in rows if len(row) == 7][1:] == ["h100x2", "l4x1", "1 × cpu", "2 × cpu"]
    assert [row[4] for row in rows if len(row) == 7][1:] == ["512 B", "0 B", "0 B", "512 B"]
    assert shell.contents() == before


def test_the_numbers_are_those_of_a_plan_for_the_machine_alone(shell: Shell) -> None:
    shell.write({"model.py": MODEL + "dynamic_shapes = {'input': {0: 'batch'}}\n"})
    compared = json.loads(shell.run("model.py --clusters l4x3 --stages 2 --json", "compare").out)
    for row, flags in zip(compared["rows"], ("--cluster l4x3", "--stages 2"), strict=True):
        alone = json.loads(shell.run(f"model.py -o out {flags} --json").out)
        of_other_sizes = {"good_for", "better", "close", "notes"}
        assert {k: v for k, v in row["summary"].items() if k not in of_other_sizes} == {
            k: v for k, v in alone.items() if k not in of_other_sizes
        }
        assert row["per_second"] == pytest.approx(2 / alone["bottleneck_seconds"])


def test_a_machine_without_a_plan_is_a_row(shell: Shell) -> None:
    ended = shell.run("model.py --clusters l4x1 --stages 1,4 --memory 20KiB", "compare")
    assert ended.status == 0, ended.err
    rows = rows_of(ended.out)
    assert ["l4x1", "no plan"] in rows
    assert ["1 × cpu", "no plan"] in rows
    assert any(row[0] == "4 × cpu" and len(row) == 7 for row in rows)
    assert "l4x1: cuda:0 needs 66.0 KiB and has 20.0 KiB" in ended.out


def test_the_picture_is_the_one_file_that_is_written(shell: Shell) -> None:
    before = shell.contents()
    ended = shell.run("model.py --clusters h100x2,l4x1 --memory 60KiB -o pictures/compare.svg", "compare")
    assert ended.status == 0, ended.err
    assert set(shell.contents()) - set(before) == {"pictures", "pictures/compare.svg"}
    texts = [text.text for text in ElementTree.parse("pictures/compare.svg").iter("{http://www.w3.org/2000/svg}text")]
    assert texts.index("h100x2") < texts.index("l4x1")
    assert texts[-1] == "no plan: cuda:0 needs 66.0 KiB and has 60.0 KiB"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "say which machines: --clusters h100x4,l4x8, --stages 2,4,8 or both"),
        ("--clusters tpu9x4", "there is no file tpu9x4"),
        ("--clusters h100x2,nothing.toml", "nothing.toml"),
        ("--stages 2,0", "stages is [2, 0]; it must be a list of whole numbers of 1 or more"),
        ("--stages 2,two", "stages is '2,two'; it must be a list of whole numbers of 1 or more"),
        ("--stages 2 -o compare.png", "the picture is an SVG; name a file such as compare.svg"),
        ("--stages 2 -o model.py/compare.svg", "cannot write model.py/compare.svg"),
    ],
)
def test_bad_input(command: str, message: str, shell: Shell) -> None:
    error = shell.refused(f"model.py {command}", "compare")
    assert message in " ".join(error.split())


class Counting:
    """A function that counts its calls."""

    def __init__(self, call: object) -> None:
        self.call, self.count = call, 0

    def __call__(self, *args: object, **kwargs: object) -> object:
        self.count += 1
        return self.call(*args, **kwargs)  # type: ignore[operator]


def test_one_export_and_one_run_of_each_pass_that_the_machines_do_not_matter_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    export, shapes, costs = (Counting(f) for f in (compiler.captured, PropagateShapes.run, AnnotateCost.run))
    monkeypatch.setattr(compiler, "captured", export)
    monkeypatch.setattr(PropagateShapes, "run", lambda *given: shapes(*given))
    monkeypatch.setattr(AnnotateCost, "run", lambda *given: costs(*given))
    compare_machines(nn.Linear(4, 4), (torch.ones(2, 4),), clusters=["l4x1", "h100x1"], stages=[1], progress=False)
    assert export.count == 1
    assert (shapes.count, costs.count) == (2, 2)  # on GPUs, and on the CPU, where masks are told of


def test_from_python() -> None:
    model = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 8), nn.Linear(8, 8)).eval()
    ids = torch.zeros(2, 5, dtype=torch.int64)
    found = compare_machines(model, (ids,), clusters=[machine(2), "l4x1"], stages=1, memory="1400B", progress=False)
    assert isinstance(found, Comparison)
    first, *others = found.rows
    assert isinstance(first, Planned)
    assert [type(row) for row in others] == [Refused, Refused]
    assert found.counted == "tokens"
    assert first.per_second == pytest.approx(10 / first.summary.bottleneck_seconds)
    assert [load.compute_seconds for load in first.loads] == [s.compute_seconds for s in first.summary.stages]
    lines = repr(found).splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["machine", "cluster", "l4x1", "1"]
    assert "<td>no plan</td>" in found._repr_html_()


def test_pools_of_a_decoder_are_those_of_each_machine() -> None:
    decoder, tiny = Path(__file__).parents[3] / "examples" / "own_decoder.py", slow_machine(1, memory=30_000)
    found = compare_machines(decoder, clusters=["l4x1", machine(1), tiny], generate=True, progress=False)
    gpus, cpus, none = found.rows
    assert isinstance(gpus, Planned)
    assert isinstance(cpus, Planned)
    pools = [sum(stage.cache_bytes for stage in row.summary.stages) for row in (gpus, cpus)]
    assert pools[0] > 10 * pools[1] > 0  # as many pages as have room, and those of 32 texts
    assert isinstance(none, Refused)
    assert "tokens fits beside the weights" in none.reason
    with pytest.raises(CompileError, match="--max-length is for decoders that continue texts"):
        compare_machines(decoder, stages=2, max_length=9)


def test_options_of_one_machine_are_refused_in_python() -> None:
    with pytest.raises(CompileError, match="there is no option 'weights'"):
        compare_machines(nn.Linear(4, 4), (torch.ones(2, 4),), stages=[2], weights="copy")
