"""What is said of options, sources and cuts that cannot be, where no other test asks for it."""

from __future__ import annotations

import re
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from codegen.report.page import data_of
from ir.capture import capture
from ir.decoding import Decoding
from ir.errors import CompileError, PipelineError, SourceError
from ir.sources import Source
from ir.sources.decoder import made
from ir.sources.decoder.step import MadeStep
from passes.cli.cut_first.generating import _check_prompt
from passes.cli.cut_first.prepared import prepared
from passes.compilation.api import compile_model
from passes.compilation.job import Job
from passes.compilation.sizes import pools
from passes.options.options import Options
from passes.options.scoped import scoped
from passes.partitioners import shortage, solve
from passes.partitioners.problem import Device, Infeasible, Node, Problem
from tests.support.artifacts.by_hand import Part, write


def test_a_source_that_is_none() -> None:
    with pytest.raises(
        SourceError, match=re.escape("the model is a int; give a torch.nn.Module, or the path of a mod")
    ):
        compile_model(cast(Any, 3), out="unused", stages=1)
    with pytest.raises(CompileError, match="--verify runs the stages, which needs their weights; drop --weights none"):
        compile_model(nn.Linear(2, 2), (torch.ones(1, 2),), out="unused", stages=1, verify=True, weights="none")


def test_the_command_to_continue_a_text_is_one_that_the_artifact_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr("passes.compilation.job._contents", lambda *_: "2 stages")
    job: Any = SimpleNamespace(options=Options(out=tmp_path, stages=2), terminal=SimpleNamespace(note=notes.append))
    graph = SimpleNamespace(decoding=SimpleNamespace(page=4))
    compiled: Any = SimpleNamespace(files=[tmp_path / "graph.svg"], plan=SimpleNamespace(graph=graph))
    Job.tell_result(job, compiled)
    assert notes[-1].startswith(f"to continue a text: stagecut generate {tmp_path} --ids '1 15 27', or ")
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").touch()
    Job.tell_result(job, compiled)
    assert notes[-1].startswith(f"to continue a text: stagecut generate {tmp_path} 'a prompt', or ")


TOKENIZERS = ["tokenizer.json", "tokenizer/tokenizer.json", "snapshots/main/tokenizer.json", "adapter_config.json"]


@pytest.mark.parametrize("file", TOKENIZERS)
def test_a_prompt_that_no_artifact_could_read(tmp_path: Path, file: str) -> None:
    with pytest.raises(SourceError, match=r"has no tokenizer.json, so its prompts are token ids; say --ids"):
        _check_prompt(tmp_path, Namespace(ids=False))
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    _check_prompt(tmp_path, Namespace(ids=False))


def test_an_adapter_of_a_module_needs_the_checkpoint_that_it_adapts() -> None:
    with pytest.raises(SourceError, match="an adapter is merged into the weights of a checkpoint; name it, as in"):
        compile_model(nn.Linear(2, 2), (torch.ones(1, 2),), out="unused", stages=1, adapter="unused")


def test_adapters_that_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Linear(2, 2)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    given = {"out": tmp_path / "out", "stages": 1, "checkpoint": tmp_path / "net.pt", "adapter": "keep"}
    with pytest.raises(SourceError, match="--adapter keep has no adapter to keep: name its folder, and plan"):
        compile_model(net, (torch.ones(1, 2),), **given)
    step = MadeStep(net, Decoding(page=4), example=torch.ones(1, 2))
    monkeypatch.setattr(made, "own_step", lambda *_: step)
    with pytest.raises(SourceError, match="--adapter keep with --generate is for decoders of texts alone"):
        made.step_of(Source("net", net, (), {}, None, {}, adapters=("one",)))


def test_a_pass_whose_options_do_not_read() -> None:
    with pytest.raises(PipelineError, match=re.escape("'split' does not read as PASS{OPTION=VALUE}, for example ")):
        scoped((), ["split"])


def test_an_artifact_takes_no_flags_of_the_compiler(tmp_path: Path) -> None:
    folder = write(tmp_path / "own", [Part("return (x,)", {"x": None}, {"y": ((), (0,))})])
    with pytest.raises(SourceError, match="own is cut already, so --stages says nothing; it is for `stagecut compile`"):
        prepared(str(folder), ["--stages", "2"])


def test_a_page_that_is_no_report() -> None:
    with pytest.raises(ValueError, match="it holds no data of a report"):
        data_of("<html></html>")


# ---- steps of a decoder


class Looks(nn.Module):
    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return input_ids * 2


@pytest.mark.parametrize(
    ("low", "most", "message"),
    [
        (2, 64, "the model's code asks for seq of 2 or more, and texts grow token by token"),
        (1, 4, "without a cache the model's code takes 4 tokens at most; say --max-length 4"),
    ],
)
def test_steps_of_a_decoder_that_takes_few_lengths(low: int, most: int, message: str) -> None:
    graph = capture(Looks(), (torch.ones(2, 8, dtype=torch.int64),), dynamic_shapes={"input_ids": {1: "seq"}})
    graph = replace(graph, ranges=dict.fromkeys(graph.ranges, (low, most)))
    with pytest.raises(CompileError, match=message):
        pools._chunk(graph, cast(Any, SimpleNamespace(cached=False, max_length=64, chunk=0)))


# ---- cuts


def test_a_group_that_no_device_can_run() -> None:
    nodes = (Node((1.0, np.inf)), Node((np.inf, 1.0)))
    problem = Problem(nodes, (), groups=((0, 1),), devices=(Device(), Device(kind=1)))
    with pytest.raises(Infeasible, match="must share a device, and no device can run them all"):
        solve(problem)


def test_devices_whose_order_fits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(memory=4.0)
    core = SimpleNamespace(problem=SimpleNamespace(devices=(device, device)), n=2)
    sweep = SimpleNamespace(alone=lambda: np.array([1.0, 2.0]), filled=lambda _: [2.0, 1.0])
    monkeypatch.setattr(shortage, "Sweep", lambda *_: sweep)
    found = shortage.shortage(cast(Any, core), proven=True)
    assert found.reason == "memory suffices, but no order of the devices lets each run its part"
    found = shortage.shortage(cast(Any, core), proven=False)
    assert found.reason == "memory suffices, but no split was found in which each device can run its part"
    assert not found.proven
