"""The first run of a stage, on zeros: what it prepares, and what it leaves as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from runtime.device.settings import KEEPS_MODULES
from runtime.manifest.manifest import Manifest, Operator
from runtime.stage.helper_kernels import HelperKernels
from runtime.stage.loader import load_stages
from runtime.stage.rehearsal import rehearse
from runtime.stage.speed import Speed
from runtime.stage.stage import LoadedStage
from tests.support.artifacts.by_hand import Part, write

COMPILED = Speed(compile=True)


@dataclass
class Seen:
    """What a stage's module was called with."""

    run: Callable[..., object]
    calls: list[tuple[torch.Tensor, ...]] = field(default_factory=list)

    def __call__(self, *tensors: torch.Tensor, **sizes: int) -> object:
        self.calls.append(tensors)
        return self.run(*tensors, **sizes)


@pytest.fixture
def loaded(tmp_path: Path) -> tuple[Manifest, LoadedStage, Seen]:
    body = "self.count += 1\nreturn (torch.rand_like(x) / x + self.count,)"
    part = Part(body, {"x": None}, {"y": ((), (0,))}, weights={"count": torch.zeros(1)}, state=("count",))
    path = write(tmp_path, [part])
    manifest = Manifest.read(path)
    (stage,) = load_stages(path, manifest, [torch.device("cpu")], strict=False)
    seen = Seen(stage.programs[0].call)
    return manifest, replace(stage, programs=(replace(stage.programs[0], call=seen),)), seen


def test_it_runs_for_the_sizes_of_the_example(loaded: tuple[Manifest, LoadedStage, Seen]) -> None:
    manifest, stage, seen = loaded
    program = replace(manifest.programs[0], index_ranges={"x": (3, 9)}, layouts=((1, 0),))
    before = torch.get_rng_state()
    rehearse([stage], replace(manifest, programs=(program,)), COMPILED)
    ((x,),) = seen.calls
    assert torch.equal(x, torch.full((program.symbols["batch"].example, 4), 3.0))
    assert x.stride() == (1, len(x))  # as a batch is brought to lie
    assert stage.programs[0].module.get_buffer("count").item() == 0
    assert torch.equal(torch.get_rng_state(), before)


def test_what_has_nothing_to_prepare_or_code_of_the_users_does_not_run(
    loaded: tuple[Manifest, LoadedStage, Seen],
) -> None:
    manifest, stage, seen = loaded
    rehearse([stage], manifest, Speed())  # on a CPU, as it is
    rehearse([stage], replace(manifest, settings={KEEPS_MODULES: "torch.float32"}), COMPILED)
    rehearse([stage], replace(manifest, operators=(Operator("mine::op", "mine", "", "", (0,)),)), COMPILED)
    assert not seen.calls


def test_a_stage_waits_for_kernels_of_the_files_beside_it(tmp_path: Path) -> None:
    path = write(tmp_path, [Part("return (x,)", {"x": None}, {"y": ((), (0,))})])
    text = """
from pathlib import Path
DONE = Path(__file__ + ".done")
kernels_are_compiled, finish_kernels = DONE.exists, DONE.touch
"""
    (path / "fused.py").write_text(text)
    (path / "plain.py").write_text("")
    manifest = replace(Manifest.read(path), helpers=("fused.py", "plain.py"))
    (stage,) = load_stages(path, manifest, [torch.device("cpu")], strict=False, checked=True)
    assert not stage.kernels.are_compiled()
    assert stage.kernels.finish()
    assert stage.kernels.are_compiled()


@pytest.mark.parametrize("before_transfers", [True, False])
def test_kernels_are_compiled_before_transfers_that_their_loading_would_wait_for(
    loaded: tuple[Manifest, LoadedStage, Seen], before_transfers: bool
) -> None:
    manifest, stage, seen = loaded
    finished: list[int] = []
    helper = SimpleNamespace(finish_kernels=lambda: finished.append(len(seen.calls)), kernels_are_compiled=bool)
    stage = replace(stage, kernels=HelperKernels([cast(Any, helper)]))
    rehearse([stage], manifest, COMPILED, before_transfers)
    assert finished == ([1] if before_transfers else [])


def test_a_stage_that_fails_is_left_to_fail_for_a_batch(loaded: tuple[Manifest, LoadedStage, Seen]) -> None:
    manifest, stage, seen = loaded

    def fail(*_: object, **__: object) -> object:
        raise RuntimeError("not for zeros")

    seen.run = fail
    rehearse([stage], manifest, COMPILED)
    assert len(seen.calls) == 1
