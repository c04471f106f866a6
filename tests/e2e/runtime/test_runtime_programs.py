"""Artifacts of several programs: which one a call runs, and what they share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from runtime import InputError, ManifestError, Pipeline
from runtime.check.artifact import faults
from runtime.manifest.manifest import Manifest
from runtime.stage.loader import load_stages
from runtime.stage.stage import LoadedStage
from stagecut import compile_model
from tests.faults.inject import inject
from tests.faults.sample import Sample
from tests.support.artifacts.programs import (
    GRIDS,
    WIDTH,
    Encoder,
    Grid,
    Scorer,
    write_encoder_and_scorer,
    write_grids,
)
from tests.support.running.forked_jobs import run

SMALL, WIDE = (torch.tensor(grid) for grid in GRIDS.values())


@pytest.fixture(scope="module")
def model() -> Grid:
    torch.manual_seed(0)
    return Grid().eval()


@pytest.fixture(scope="module")
def grids(model: Grid, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs") / "grids"
    write_grids(model, folder, 2)
    return folder


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder().eval()


@pytest.fixture(scope="module")
def scorer(encoder: Encoder) -> Scorer:
    return Scorer(encoder).eval()


@pytest.fixture(scope="module")
def two_models(encoder: Encoder, scorer: Scorer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs") / "two_models"
    write_encoder_and_scorer(encoder, scorer, folder, 3)
    return folder


@pytest.fixture
def pipe(grids: Path) -> Iterator[Pipeline]:
    with Pipeline.load(grids, strict=True) as pipe:
        yield pipe


def x(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 12, WIDTH)


def loaded(folder: Path) -> tuple[LoadedStage, ...]:
    manifest = Manifest.read(folder)
    return load_stages(folder, manifest, [torch.device("cpu")] * len(manifest.stages), strict=True)


def test_a_call_runs_the_program_that_it_fits(pipe: Pipeline, model: Grid) -> None:
    alone = deepcopy(model)
    batches = [(x(n), grid) for n, grid in ((3, SMALL), (2, WIDE), (5, WIDE), (1, SMALL))]
    for batch, found in zip(batches, pipe.map(batches, in_flight=3), strict=True):
        expected = alone(*batch)  # the state goes on from batch to batch, whatever their programs
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_reset_restores_the_state_of_all_programs(pipe: Pipeline) -> None:
    batch = x()
    first = pipe(batch, WIDE)["y"]
    pipe(batch, SMALL)
    pipe.reset()
    assert torch.equal(pipe(batch, WIDE)["y"], first)


def test_sizes_are_prepared_in_all_programs(pipe: Pipeline, model: Grid) -> None:
    with pipe.trace() as trace:
        pipe.prepare(batch=2)
    assert [run.program for run in trace.runs if run.stage == 0] == ["small"] * 3 + ["wide"] * 3
    batch = x()
    assert torch.equal(pipe(batch, WIDE)["y"], deepcopy(model)(batch, WIDE)["y"]), "state begins anew"
    with pytest.raises(InputError, match="no program has all the sizes rows; the sizes that may change are batch"):
        pipe.prepare(rows=2)
    with pytest.raises(InputError, match="`batch` is 0 in what is prepared; expected at least 1"):
        pipe.prepare(batch=0)


def test_a_call_that_fits_no_program_is_told_why(pipe: Pipeline) -> None:
    with pytest.raises(InputError) as raised:
        pipe(x(), torch.tensor([1, 1]))
    fixed = "as its values decide shapes; got [1, 1] (int64[2])"
    assert str(raised.value) == (
        "none of the 2 programs takes this call:\n"
        f"  small: argument `grid` is fixed at [2, 2] (int64[2]), {fixed}\n"
        f"  wide: argument `grid` is fixed at [3, 4] (int64[2]), {fixed}"
    )


def test_fixed_inputs_are_not_guessed(pipe: Pipeline) -> None:
    missing = r"small: input `grid` is missing; the model takes x, grid\n  wide: input `grid` is missing"
    with pytest.raises(InputError, match=missing):
        pipe.run_named({"x": x()})


def test_names_and_traces(pipe: Pipeline, grids: Path) -> None:
    assert repr(pipe) == f"<Pipeline model from {grids}: programs small, wide; stages 0-1 on cpu; open>"
    with pipe.trace() as trace:
        sent = [pipe.run_named({"x": x(), "grid": grid})["rows"].nbytes for grid in (SMALL, WIDE)]
    assert sent == [3 * n * WIDTH * 4 for n in (4, 12)]
    assert [(run.stage, run.batch) for run in trace.runs] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [run.program for run in trace.runs] == ["small", "wide"] * 2


@pytest.mark.parametrize("folder", ["grids", "two_models"])
def test_a_stage_holds_each_tensor_once(folder: str, request: pytest.FixtureRequest) -> None:
    out: Path = request.getfixturevalue(folder)
    assert [*faults(out)] == []
    for index, stage in enumerate(loaded(out)):
        modules = [program.module for program in stage.programs]
        tensors = [{**dict(m.named_parameters()), **dict(m.named_buffers())} for m in modules]
        names = {name for module in tensors for name in module}
        assert load_file(out / f"stage_{index}.safetensors").keys() == names
        for name in names:
            assert len({module[name].data_ptr() for module in tensors if name in module}) == 1
            assert not any(module[name].is_meta for module in tensors if name in module)


@pytest.mark.parametrize("weights", ["link", "strides"])
def test_weights_that_are_linked_or_strided_are_held_once(weights: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Flatten(), nn.LazyLinear(8)).eval()
    x = torch.randn(2, 4, 5, 5)
    model(x)
    options: dict[str, Any] = {}
    if weights == "link":
        save_file(model.state_dict(), tmp_path / "model.safetensors")
        options = {"weights": "link", "checkpoint": tmp_path / "model.safetensors"}
    model = model.to(memory_format=torch.channels_last) if weights == "strides" else model  # type: ignore[call-overload]
    variants = {"three": (torch.randn(3, 4, 5, 5),)}
    compile_model(model, (x,), out=tmp_path / "out", variants=variants, stages=1, **options)
    (stage,) = loaded(tmp_path / "out")
    first, second = (program.module.state_dict() for program in stage.programs)
    assert {name: t.data_ptr() for name, t in first.items()} == {name: t.data_ptr() for name, t in second.items()}
    assert all(
        torch.equal(first[name], t) and first[name].stride() == t.stride() for name, t in model.state_dict().items()
    )


def test_stages_without_a_part_in_a_program(two_models: Path, encoder: Encoder, scorer: Scorer) -> None:
    score = Manifest.read(two_models).programs[1]
    assert [] in [[*stage.runs] for stage in score.stages]
    tokens, ids = torch.randint(WIDTH, (5, 7)), torch.randint(WIDTH, (4,))
    with Pipeline.load(two_models) as pipe, torch.no_grad():
        for parts in (1, 2):
            assert torch.allclose(pipe(tokens=tokens, microbatches=parts), encoder(tokens))
            found = pipe(ids=ids, microbatches=parts)
            assert all(torch.allclose(a, b) for a, b in zip(found, scorer(ids), strict=True))
        with pytest.raises(InputError, match=r"`seq` is 0 in `tokens`(?s:.*)score: got an unexpected keyword argument"):
            pipe(tokens=tokens[:, :0])


def test_several_processes(
    grids: Path, model: Grid, two_models: Path, encoder: Encoder, scorer: Scorer, tmp_path: Path
) -> None:
    shutil.copytree(grids, tmp_path / "out")
    shutil.copytree(two_models, tmp_path / "two_models")
    tokens, ids = torch.randint(WIDTH, (5, 7)), torch.randint(WIDTH, (4,))
    torch.save((tokens, encoder(tokens), ids, scorer(ids)), tmp_path / "two_models.pt")
    batches = [(x(n), grid) for n, grid in ((3, SMALL), (2, WIDE), (5, WIDE), (1, SMALL))]
    alone = deepcopy(model)
    torch.save([(batch, alone(*batch)) for batch in batches], tmp_path / "cases.pt")
    ended = run(
        tmp_path,
        """\
cases = torch.load(HERE / "cases.pt")
with Pipeline.distributed(OUT, timeout=600) as pipe:
    if RANK == 0:
        with pipe.trace() as trace:
            for (_, wanted), found in zip(cases, pipe.map(batch for batch, _ in cases), strict=True):
                assert all(torch.equal(found[key], wanted[key]) for key in wanted)
        assert [(run.stage, run.batch) for run in trace.runs] == [(i, n) for i in range(2) for n in range(4)]
        assert [run.program for run in trace.runs] == ["small", "wide", "wide", "small"] * 2
        pipe.reset()
        (batch, wanted), *_ = cases
        assert torch.equal(pipe(*batch)["y"], wanted["y"])
with Pipeline.distributed(HERE / "two_models", timeout=600) as pipe:  # some stages have no part in a program
    if RANK == 0:
        tokens, encoded, ids, scored = torch.load(HERE / "two_models.pt")
        for _ in range(3):
            assert torch.allclose(pipe(tokens=tokens, microbatches=2), encoded)
            assert all(torch.allclose(a, b) for a, b in zip(pipe(ids=ids), scored, strict=True))
        print("done")
""",
        ranks=2,
    )
    assert (ended.status, ended.out) == (0, "done\n"), ended.err


def test_programs_that_disagree_are_found(grids: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(grids, tmp_path / "copy"))
    manifest = Manifest.read(folder)
    small, wide = manifest.programs
    first, *others = wide.stages
    name, held = next(iter(first.holds.items()))
    other = replace(first, holds={**first.holds, name: replace(held, crc32="00000000")})
    replace(manifest, programs=(small, replace(wide, stages=(other, *others)))).write_sealed(folder)
    assert "stage 0: its programs hold" in "\n".join(faults(folder))
    replace(manifest, programs=(small, replace(wide, stages=(first,)))).write_sealed(folder)
    with pytest.raises(ManifestError, match=r"manifest.json is damaged \(program wide has 1 stages of 2\); compile"):
        Pipeline.load(folder)


def test_faults_of_any_program_are_found(model: Grid, tmp_path: Path) -> None:
    sample = Sample(tmp_path / "out", write_grids(model, tmp_path / "out", 3), model)
    outcomes = [inject(sample, number, tmp_path) for number in range(200, 224) if number % 8]
    assert [outcome for outcome in outcomes if not outcome.found] == []


def test_a_fault_names_its_program(grids: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(grids, tmp_path / "copy"))
    (folder / "stage_1_wide.py").unlink()
    found = [*faults(folder)]
    assert found[0] == "stage_1_wide.py: the file is missing"
    assert found[1].startswith("program wide: stage_1_wide.py: it cannot be read")


pytestmark = pytest.mark.slow
