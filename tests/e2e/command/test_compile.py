"""Compiled, loaded and run, a model returns what it does uncut; and what its folder holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import passes.compilation.compiler
from ir.errors import OutputError, SourceError
from ir.machine.cluster import Cluster
from ir.plan import StagePlan
from passes.compilation.api import compile_model
from passes.compilation.auto import auto_partition
from runtime import Pipeline
from runtime.manifest.manifest import Manifest
from tests.support.checking import Call, assert_same, check_artifact, run_model
from tests.support.models.model_cases import CASES, X
from tests.support.models.planning import DEVICE, LINK, slow_machine
from tests.support.models.written import WIDTH, Tied, hidden, tokens


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_stages_return_what_the_model_does(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    check_artifact(case.build(), case.calls(), tmp_path / "out", case.dynamic, slow_machine(case.stages))


# ---- what the cases above are there for


@pytest.fixture
def compiled(tmp_path: Path) -> Callable[..., tuple[StagePlan, Manifest]]:
    """Compile a case, and read its manifest."""

    def compiled(name: str, **options: Any) -> tuple[StagePlan, Manifest]:
        case, out = CASES[name], tmp_path / "out"
        plan = compile_model(
            case.build(),
            case.calls()[0].args,
            out=out,
            cluster=slow_machine(case.stages),
            dynamic_shapes=case.dynamic,
            **options,
        )
        return plan, Manifest.read(out)

    return compiled


def test_a_value_goes_straight_to_each_stage_that_reads_it(compiled: Callable[..., tuple[StagePlan, Manifest]]) -> None:
    plan, _ = compiled("a value read by three stages")
    assert [(t.src, t.stage) for t in plan.transfers if t.value.name == "x_1"] == [(0, 1), (0, 2), (0, 3)]


def test_skips_pass_over_the_stages_between(compiled: Callable[..., tuple[StagePlan, Manifest]]) -> None:
    plan, _ = compiled("long skips")
    assert (0, 3) in {(t.src, t.stage) for t in plan.transfers}


def test_each_stage_returns_the_outputs_that_it_makes(compiled: Callable[..., tuple[StagePlan, Manifest]]) -> None:
    _, manifest = compiled("two outputs from different stages")
    assert [[send.outputs for send in stage.sends] for stage in manifest.programs[0].stages] == [[(0,)], [(1,)], [(2,)]]
    assert [[send.stages for send in stage.sends] for stage in manifest.programs[0].stages] == [[(1,)], [(2,)], [()]]


def test_an_input_goes_to_the_stage_that_reads_it(compiled: Callable[..., tuple[StagePlan, Manifest]]) -> None:
    _, manifest = compiled("an input first read in the last stage")
    given = [[r.tensor.name for r in stage.receives if r.source is None] for stage in manifest.programs[0].stages]
    assert given == [["x"], [], ["labels"]]


def test_a_size_that_no_argument_has_is_an_integer_argument(
    compiled: Callable[..., tuple[StagePlan, Manifest]], tmp_path: Path
) -> None:
    _, manifest = compiled("a size in a later stage")
    assert [stage.sizes for stage in manifest.programs[0].stages] == [(), (), ("seq",)]
    assert "def forward(self, x_2, *, seq: int):" in (tmp_path / "out/stage_2.py").read_text()


def test_state_stays_in_one_stage_and_can_be_reset(tmp_path: Path) -> None:
    case = CASES["a cache that calls fill"]
    model, calls = case.build(), case.calls()
    plan = check_artifact(model, calls, tmp_path / "out", case.dynamic, slow_machine(2))
    assert [[state.name for state in stage.graph.states] for stage in plan.stages] == [
        ["layers_0_keys", "layers_0_seen"],
        ["layers_1_keys", "layers_1_seen"],
    ]
    with Pipeline.load(tmp_path / "out", devices=["cpu"]) as pipe:
        first, second = (pipe(*calls[0].args) for _ in range(2))
        pipe.reset()
        assert_same(first, pipe(*calls[0].args))
    assert not torch.equal(first, second)


# ---- one weight in two places


@pytest.mark.parametrize(
    ("shared", "devices", "copies"),
    [("colocate", [0, 1, 0], 1), ("replicate", [0, 1], 2), ("auto", [0, 1], 2)],
)
def test_a_tied_weight(shared: str, devices: list[int], copies: int, tmp_path: Path) -> None:
    """Kept once, its readers share a device; copied, each stage that reads it has its own."""
    calls = [Call.of(tokens(2, 4)), Call.of(tokens(1, 9))]
    plan = check_artifact(Tied().eval(), calls, tmp_path, CASES["tied weights"].dynamic, slow_machine(2), shared=shared)
    assert list(plan.graph.placement) == devices
    held = [set(load_file(tmp_path / f"stage_{s.index}.safetensors")) for s in plan.stages]
    assert [f"{name}.weight" in held[i] for i, name in ((0, "embedding"), (-1, "head"))] == [True, True]
    on = {plan.graph.placement[i] for i, names in enumerate(held) if names & {"embedding.weight", "head.weight"}}
    assert len(on) == copies


def test_auto_keeps_one_copy_where_two_do_not_fit(tmp_path: Path) -> None:
    """The embedding is most of the model, and the second device is too small for it."""
    model = Tied().eval()
    model.embedding = torch.nn.Embedding(512, WIDTH)
    model.head.weight = model.embedding.weight
    large, small = (replace(DEVICE, flops=1e6, memory=int(share * model.head.weight.nbytes)) for share in (2, 0.5))
    cluster = Cluster.uniform((large, small), LINK)
    plan = check_artifact(model, [Call.of(tokens(1, 1))], tmp_path, None, cluster, shared="auto")
    assert [stage.device.memory for stage in plan.stages] == [large.memory, small.memory, large.memory]


# ---- where weights come from and go to


def test_weights_are_taken_from_a_checkpoint(tmp_path: Path) -> None:
    case = CASES["long skips"]
    model, blank = case.build(), case.build()
    for parameter in blank.parameters():
        parameter.data.zero_()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    call = Call.of(hidden())
    for place in (tmp_path, tmp_path / "model.safetensors"):
        compile_model(blank, call.args, out=tmp_path / "out", cluster=slow_machine(2), checkpoint=place)
        with Pipeline.load(tmp_path / "out", devices=["cpu"]) as pipe:
            assert_same(next(run_model(model, [call])), pipe(*call.args))


def test_a_checkpoint_in_shards(tmp_path: Path) -> None:
    case = CASES["long skips"]
    model, call = case.build(), Call.of(hidden())
    halves = [{k: v for k, v in model.state_dict().items() if k.startswith(start)} for start in ("down", "up")]
    for i, half in enumerate(halves):
        save_file(half, tmp_path / f"part-{i}.safetensors")
    index = {"weight_map": {name: f"part-{i}.safetensors" for i, half in enumerate(halves) for name in half}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    check_artifact(model, [call], tmp_path / "out", X, slow_machine(2), checkpoint=tmp_path)
    (tmp_path / "part-1.safetensors").unlink()
    with pytest.raises(SourceError, match=r"index.json places up\S+ in .*part-1\.safetensors, which is missing"):
        compile_model(model, call.args, out=tmp_path / "out", stages=2, checkpoint=tmp_path)


def test_without_weights_there_is_all_but_the_weights(tmp_path: Path) -> None:
    case = CASES["long skips"]
    for weights in ("copy", "none"):
        compile_model(case.build(), (hidden(),), out=tmp_path / weights, cluster=slow_machine(2), weights=weights)
    names = {folder: {f.name for f in (tmp_path / folder).iterdir()} for folder in ("copy", "none")}
    assert names["copy"] - names["none"] == {"stage_0.safetensors", "stage_1.safetensors"}
    assert names["none"] < names["copy"]
    for i in range(2):
        assert (tmp_path / "copy" / f"stage_{i}.py").read_text() == (tmp_path / "none" / f"stage_{i}.py").read_text()


def test_compiling_again_replaces_the_whole_folder(tmp_path: Path) -> None:
    case = CASES["long skips"]
    for stages, files in [(4, 4), (2, 2)]:
        compile_model(case.build(), (hidden(),), out=tmp_path / "out", cluster=slow_machine(stages))
        assert len(list((tmp_path / "out").glob("stage_*.safetensors"))) == files
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("call", [compile_model, auto_partition])
def test_a_folder_that_cannot_be_replaced_is_told_before_the_export(
    call: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "shop"}')
    monkeypatch.setattr(passes.compilation.compiler, "captured", pytest.fail)
    with pytest.raises(OutputError, match=r"is a folder that stagecut did not write: it holds manifest.json; name"):
        call(nn.Linear(2, 2), args=(torch.ones(2),), out=tmp_path, stages=1)


def test_force_moves_what_others_wrote_aside(tmp_path: Path) -> None:
    for out, old in [("a", "a.old"), ("b", "b.old")]:
        (tmp_path / out).mkdir()
        (tmp_path / out / "thesis.txt").write_text("all of my work")
        if out == "a":
            compile_model(nn.Linear(2, 2), (torch.ones(2),), out=tmp_path / out, stages=1, force=True)
        else:
            auto_partition(nn.Linear(2, 2), (torch.ones(2),), devices=1, out=tmp_path / out, force=True).close()
        assert [path.name for path in (tmp_path / old).iterdir()] == ["thesis.txt"]
        assert (tmp_path / out / "stage_0.py").exists()


def test_a_failure_while_writing_leaves_the_folder_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["long skips"]
    compile_model(case.build(), (hidden(),), out=tmp_path / "out", cluster=slow_machine(2))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(passes.compilation.compiler, "write_artifact", full)
    with pytest.raises(OutputError, match=r"cannot write .*out: no space left on device"):
        compile_model(case.build(), (hidden(),), out=tmp_path / "out", cluster=slow_machine(4))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


class ReturnsItsState(nn.Module):
    """What a buffer was before the call is read by the second stage, after the first has changed it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("b", torch.ones(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = self.b.expand_as(x)
        self.b = self.b * 0.5 + x[0, 0]
        return before


def test_a_view_of_a_state_is_sent_as_it_was(tmp_path: Path) -> None:
    calls = [Call.of(torch.randn(3, 5, 8)) for _ in range(3)]
    plan = check_artifact(ReturnsItsState().eval(), calls, tmp_path / "out", None, slow_machine(2))
    assert [t.value.type.shape for t in plan.transfers] == [(3, 5, 8)]


def test_weights_keep_their_order_in_memory(tmp_path: Path) -> None:
    """Kernels round differently on channels-last and transposed weights, so a stage must have them so too."""
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten(), nn.Linear(1152, 10)).eval()
    model.to(memory_format=torch.channels_last)
    model[4].weight = nn.Parameter(torch.randn(1152, 10).t())
    calls = [Call.of(torch.randn(n, 3, 16, 16).to(memory_format=torch.channels_last)) for n in (2, 3)]
    check_artifact(model, calls, tmp_path / "out", {"input": {0: "batch"}}, stages=2)
    with safe_open(tmp_path / "out" / "stage_1.safetensors", framework="pt") as file:
        assert "strides" in file.metadata()
