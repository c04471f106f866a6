"""Pipelines over CUDA devices; with one device, both stages share it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from runtime import Pipeline, StageError
from runtime.manifest.manifest import Symbol
from tests.support.artifacts.by_hand import Part, chain, tensor, write
from tests.support.artifacts.programs import GRIDS, WIDTH, Grid, write_grids
from tests.support.running.jobs import APART, run

pytestmark = pytest.mark.gpu

SIZE = 512


WAYS = [{"processes": False}, {"processes": True}, {"cuda_graphs": True}, {"cuda_graphs": True, "compile": True}]


@pytest.fixture(params=WAYS, ids=str)
def pipe(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pipeline]:
    """early = x·w + count, late = (early·early)·scale: long enough kernels to show a missing wait."""
    weights = {"weight": torch.eye(SIZE) * 2, "count": torch.zeros(1)}
    parts = [
        Part(
            "self.count.add_(1)\nfor _ in range(8): x = x @ self.weight / 2\nreturn (x @ self.weight + self.count,)",
            {"x": None},
            {"early": ((1,), (0,))},
            weights=weights,
            state=("count",),
        ),
        Part("return (early @ early * scale,)", {"early": 0, "scale": None}, {"late": ((), (1,))}),
    ]
    last = torch.cuda.device_count() - 1
    x = tensor("x", SIZE, SIZE)
    path = write(
        tmp_path,
        parts,
        inputs=[x, tensor("scale", 1)],
        outputs=[tensor("early", SIZE, SIZE), tensor("late", SIZE, SIZE)],
        returns={"tuple": [{"slot": 0}, {"slot": 1}]},
        symbols={},
    )
    with Pipeline.load(path, devices=["cuda:0", f"cuda:{last}"], **request.param) as pipe:
        yield pipe


def check(outputs: tuple[torch.Tensor, torch.Tensor], i: int, count: int) -> None:
    early = torch.eye(SIZE) * 2 * i + count
    assert torch.allclose(outputs[0].cpu(), early)
    assert torch.allclose(outputs[1].cpu(), early @ early * 3, rtol=1e-4)


@pytest.mark.parametrize("device", ["cpu", "cuda:0", "cuda"])
def test_outputs_are_on_the_device_of_the_inputs(pipe: Pipeline, device: str) -> None:
    scale = torch.full((1,), 3.0, device=device)
    inputs = [(torch.eye(SIZE, device=device) * i, scale) for i in range(40)]
    for i, outputs in enumerate(pipe.map(inputs, in_flight=6)):
        assert {tensor.device for tensor in outputs} == {scale.device}
        check(outputs, i, count=i + 1)


def test_outputs_stay_where_they_are_made_for_inputs_from_several_devices(pipe: Pipeline) -> None:
    early, late = pipe(torch.eye(SIZE, device="cuda:0"), torch.full((1,), 3.0))
    assert early.device == torch.device("cuda:0")
    assert late.device == torch.device("cuda", torch.cuda.device_count() - 1)
    check((early, late), 1, count=1)


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_parts_of_outputs_are_taken_where_they_are_made(pipe: Pipeline, device: str) -> None:
    scale = torch.full((1,), 3.0, device=device)
    asked = ["late[-1]", "early[:, :2]"]
    futures = [pipe.submit(torch.eye(SIZE, device=device) * i, scale, outputs=asked) for i in range(20)]
    for i, future in enumerate(futures):
        parts, early = future.result(), torch.eye(SIZE) * 2 * i + i + 1
        assert {tensor.device for tensor in parts.values()} == {scale.device}
        assert torch.allclose(parts["early[:, :2]"].cpu(), early[:, :2])
        assert torch.allclose(parts["late[-1]"].cpu(), (early @ early * 3)[-1], rtol=1e-4)


def test_state_is_reset_on_the_device(pipe: Pipeline) -> None:
    for _ in range(3):
        for i in range(3):
            check(pipe(torch.eye(SIZE) * i, torch.full((1,), 3.0)), i, count=i + 1)
        pipe.reset()


@pytest.mark.parametrize("speed", [{}, {"cuda_graphs": True}, {"cuda_graphs": True, "compile": True}], ids=str)
def test_programs_share_weights_and_state_on_the_device(tmp_path: Path, speed: dict[str, Any]) -> None:
    model = Grid().eval()
    write_grids(model, tmp_path / "out", 2)
    last = torch.cuda.device_count() - 1
    grids = [torch.tensor(grid) for grid in GRIDS.values()]
    with Pipeline.load(tmp_path / "out", devices=["cuda:0", f"cuda:{last}"], **speed) as pipe, torch.no_grad():
        for _ in range(2):
            for grid in (*grids, *grids):  # each recorded, then replayed, over one state
                x = torch.randn(3, 12, WIDTH)
                found, wanted = pipe(x, grid), model(x, grid)
                assert all(torch.allclose(found[key], wanted[key], atol=1e-4) for key in wanted)
            pipe.reset()
            model.total.zero_()


@pytest.mark.parametrize("processes", [False, True])
def test_a_second_load_runs_what_was_compiled_without_the_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: bool
) -> None:
    """It makes the same bits, and so do graphs that are recorded of it."""
    out, batches = chain(tmp_path), [torch.randn(n, 4, device="cuda") for n in (3, 3, 3, 3, 5, 2, 3)]
    last = f"cuda:{torch.cuda.device_count() - 1}"
    with Pipeline.load(out, devices=["cuda:0", last], compile=True, processes=processes) as pipe:
        first = [*pipe.map(batches)]
    assert [*(out / "compiled").glob("*/graphs/stage_0-*.json")]
    monkeypatch.delattr("torch.compile")
    with Pipeline.load(out, devices=["cuda:0", last], compile=True, processes=processes) as pipe:
        for y, again in zip(first, pipe.map(batches), strict=True):
            assert torch.equal(y, again)


def test_a_trace_has_the_times_of_the_device(tmp_path: Path) -> None:
    """Also while the host is ahead of it: a launch returns at once, its kernel takes a while."""
    spin = "torch.cuda._sleep(50_000_000)\nreturn (x + 1,)"
    parts = [
        Part(spin, {"x": None}, {"h": ((1,), ())}),
        Part(spin.replace("x", "h"), {"h": 0}, {"y": ((), (0,))}),
    ]
    last = torch.cuda.device_count() - 1
    with Pipeline.load(write(tmp_path, parts), devices=["cuda:0", f"cuda:{last}"]) as pipe:
        pipe(torch.ones(1, 4))
        with pipe.trace() as trace:
            started = time.perf_counter()
            list(pipe.map([torch.ones(1, 4, device="cuda")] * 5))
            torch.cuda.synchronize()
            took = time.perf_counter() - started
    runs = {(run.stage, run.batch): run for run in trace.runs}
    assert len(runs) == 10
    assert all(run.ended - run.started > 0.01 for run in trace.runs)
    assert all(runs[1, batch].arrived >= runs[0, batch].ended for batch in range(5))
    assert all(runs[stage, batch].ended <= runs[stage, batch + 1].arrived for stage in range(2) for batch in range(4))
    assert max(run.ended for run in trace.runs) == pytest.approx(took, rel=0.2)


def test_a_stage_that_runs_out_of_memory_leaves_the_pipeline_usable(tmp_path: Path) -> None:
    body = "if x[0, 0] == 7: torch.empty(1 << 50, device=x.device)\nreturn (x,)"
    path = write(tmp_path, [Part(body, {"x": None}, {"y": ((), (0,))})])
    with Pipeline.load(path, devices=["cuda"]) as pipe:
        with pytest.raises(StageError, match=r"stage 0 \(cuda:0\) raised OutOfMemoryError"):
            pipe(torch.full((1, 4), 7.0))
        assert torch.equal(pipe(torch.ones(1, 4)), torch.ones(1, 4))


def test_a_stream_is_right_whatever_the_host_is_ahead(tmp_path: Path) -> None:
    """Memory of transfers is used anew while kernels are late: a missing wait would mix batches."""
    spin = "torch.cuda._sleep(3_000_000)\n"
    parts = [
        Part(spin + "return (x * 2, x + 1)", {"x": None}, {"double": ((1,), ()), "skip": ((2,), ())}),
        Part(spin + "return (double.cumsum(0),)", {"double": 0}, {"sums": ((2,), ())}),
        Part(spin + "return (sums + skip,)", {"sums": 1, "skip": 0}, {"y": ((), (0,))}),
    ]
    shape = ("batch", 1000)
    path = write(
        tmp_path,
        parts,
        inputs=[tensor("x", *shape)],
        outputs=[tensor("y", *shape)],
        symbols={"batch": Symbol(1, 4096, 2)},
    )
    last = torch.cuda.device_count() - 1
    with Pipeline.load(path, devices=["cuda:0", f"cuda:{last}", "cuda:0"]) as pipe:
        sizes = [1 + 397 * i % 2000 for i in range(60)]
        batches = [torch.randint(9, (n, 1000)).float() for n in sizes]
        wanted = [(x * 2).cumsum(0) + x + 1 for x in batches]
        for home in ("cpu", "cuda:0", f"cuda:{last}"):
            stream = (x.to(home) for x in batches)  # let go of at once: only the stages hold them
            for y, want in zip(pipe.map(stream, in_flight=7), wanted, strict=True):
                assert torch.equal(y.cpu(), want)


def test_a_result_is_done_when_its_future_is(tmp_path: Path) -> None:
    body = "torch.cuda._sleep(200_000_000)\nreturn (x + 1,)"
    with Pipeline.load(write(tmp_path, [Part(body, {"x": None}, {"y": ((), (0,))})]), devices=["cuda"]) as pipe:
        futures = [pipe.submit(torch.full((1, 4), float(i), device="cuda")) for i in range(3)]
        assert not any(future.done() for future in futures)  # the host does not wait
        other = torch.cuda.Stream()
        for i, future in enumerate(futures):
            with torch.cuda.stream(other):
                assert future.result()[0, 0].item() == i + 1


def test_a_device_that_hangs_is_given_up(tmp_path: Path) -> None:
    body = "torch.cuda._sleep(10_000_000_000)\nreturn (x,)"
    parts = [
        Part("return (x + 1,)", {"x": None}, {"h": ((1,), ())}),
        Part(body.replace("x", "h"), {"h": 0}, {"y": ((), (0,))}),
    ]
    with Pipeline.load(write(tmp_path, parts), devices=["cuda"] * 2, timeout=1) as pipe:
        started = time.monotonic()
        with pytest.raises(StageError, match=r"stage 1 \(cuda:0\) raised TimeoutError"):
            pipe(torch.ones(1, 4))
        assert time.monotonic() - started < 4
    torch.cuda.synchronize()


def test_what_cannot_be_recorded_says_so(tmp_path: Path) -> None:
    body = "if x.sum() > 0: x = x + 1\nreturn (x,)"
    path = write(tmp_path, [Part(body, {"x": None}, {"y": ((), (0,))})])
    with (
        Pipeline.load(path, devices=["cuda"], cuda_graphs=True) as pipe,
        pytest.raises(StageError, match="cannot be recorded as a CUDA graph; run it without cuda_graphs"),
    ):
        pipe(torch.ones(1, 4))


def test_without_flags_what_cannot_be_recorded_runs_as_it_is(tmp_path: Path) -> None:
    body = "if x.sum() > 0: x = x + 1\nreturn (x,)"
    path = write(tmp_path, [Part(body, {"x": None}, {"y": ((), (0,))})])
    with Pipeline.load(path, devices=["cuda"]) as pipe:
        for i in range(-3, 4):
            assert torch.equal(pipe(torch.full((1, 4), float(i))), torch.full((1, 4), float(i + (i > 0))))
    assert torch.ones(1, device="cuda").item() == 1


def test_random_numbers_are_those_of_the_callers_generator(tmp_path: Path) -> None:
    body = "return (x + torch.nn.functional.dropout(torch.ones_like(x)),)"
    path = write(tmp_path, [Part(body, {"x": None}, {"y": ((), (0,))})])
    x = torch.zeros(8, 4, device="cuda")
    with Pipeline.load(path, devices=["cuda"]) as pipe:
        torch.cuda.manual_seed(0)
        drawn = [pipe(x) for _ in range(6)]
    torch.cuda.manual_seed(0)
    assert all(torch.equal(y, torch.nn.functional.dropout(torch.ones_like(x))) for y in drawn)


LONG = Part("for _ in range(300): x = x + 1\nreturn (x,)", {"x": None}, {"y": ((), (0,))})


def test_a_caller_may_wait_for_the_device_between_results(tmp_path: Path) -> None:
    """A call that would fail, on any thread, while a stage is recorded."""
    with Pipeline.load(write(tmp_path, [LONG]), devices=["cuda"]) as pipe:
        for rows in range(1, 9):
            for y in pipe.map([torch.zeros(rows, 4)] * 6, in_flight=4):
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
                assert torch.equal(y, torch.full((rows, 4), 300.0))


def test_other_threads_may_use_the_device_while_stages_are_recorded(tmp_path: Path) -> None:
    done, errors, turns = Event(), list[BaseException](), 0

    def use() -> None:
        nonlocal turns
        try:
            while not done.is_set():
                x = torch.ones(1 << 20).cuda()
                assert x.sum().item() == 1 << 20
                assert (x @ x).cpu() == 1 << 20
                turns += 1
        except BaseException as e:
            errors.append(e)

    user = Thread(target=use)
    user.start()
    try:
        with Pipeline.load(write(tmp_path, [LONG]), devices=["cuda"]) as pipe:
            for rows in range(1, 9):
                for _ in range(4):
                    assert torch.equal(pipe(torch.zeros(rows, 4)), torch.full((rows, 4), 300.0))
    finally:
        done.set()
        user.join()
    assert not errors
    assert turns > 10


def test_a_graph_that_was_let_go_is_recorded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.stage.cuda_graphs.KEPT", 1)
    batches = [torch.randn(n, 4) for n in (1, 2, 1, 2, 2, 1)]
    with Pipeline.load(chain(tmp_path), devices=["cuda"], cuda_graphs=True) as pipe:
        for x, y in zip(batches, pipe.map(batches), strict=True):
            assert torch.equal(y, (x + 1) * 2)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("flags", ["", "--cuda-graphs"])
def test_two_processes_under_torchrun(tmp_path: Path, flags: str) -> None:
    parts = [
        Part("return (x * 2,)", {"x": None}, {"h": ((1,), ())}, device="cuda:0"),
        Part("return (h + scale,)", {"h": 0, "scale": None}, {"y": ((), (0,))}, device="cuda:1"),
    ]
    path = write(tmp_path / "out", parts, inputs=[tensor("x"), tensor("scale", 1)])
    x = torch.randn(6, 4)
    save_file({"x": x, "scale": torch.ones(1)}, tmp_path / "x.safetensors")
    command = f"-m torch.distributed.run --standalone --nproc-per-node 2 -m runtime.run {path} {flags} --microbatches 1"
    files = ["--input", str(tmp_path / "x.safetensors"), "--output", str(tmp_path / "y.safetensors")]
    done = subprocess.run([sys.executable, *command.split(), *files], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert torch.equal(load_file(tmp_path / "y.safetensors")["y"], x * 2 + 1)


@pytest.mark.parametrize("processes", [False, True])
def test_outputs_stay_where_they_are_made(tmp_path: Path, processes: bool) -> None:
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    devices = ["cuda:0", str(last)]
    with Pipeline.load(chain(tmp_path), devices, processes=processes, outputs="stay") as pipe:
        y = pipe(torch.ones(2, 4, device="cuda:0"))
    assert y.device == last
    assert torch.equal(y.cpu(), torch.full((2, 4), 4.0))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_processes_over_nccl(tmp_path: Path) -> None:
    parts = [
        Part("return (x * 2,)", {"x": None}, {"h": ((1,), ())}, device="cuda:0"),
        Part("return (h + 1,)", {"h": 0}, {"y": ((), (0,))}, device="cuda:1"),
    ]
    write(tmp_path / "out", parts)
    script = """\
with Pipeline.distributed(OUT, timeout=60) as pipe:
    if RANK == 0:
        for n, y in enumerate(pipe.map([X + n for n in range(20)])):
            assert torch.equal(y.cpu(), (X + n) * 2 + 1)
        print("done")
"""
    ended = run(tmp_path, APART + script, ranks=2)
    assert (ended.status, ended.out) == (0, "done\n"), ended.err
