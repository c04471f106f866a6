"""Pipelines over processes of which one is that of the caller, as of decoders on several accelerators; here on CPUs."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import transformers as t

from passes.compilation.api import compile_model
from runtime import Pipeline, PipelineClosed, StageError, StageLost
from runtime.errors import ManifestError
from tests.support.artifacts.by_hand import Part, tensor, write
from tests.support.patience import PATIENCE
from tests.support.seeds import made_once

LIMIT = 3.0  # seconds without a sign of life, or for a batch

FIRST = """\
import os, time
if x[0, 0] == 5:
    raise KeyError("five")
while x[0, 0] == 7 and not os.path.exists(os.environ["GO_ON"]):
    time.sleep(0.01)
self.count += 1
return x + self.count, x * 10"""
SECOND = """\
import os, signal
if b[0, 0] == 60:
    os.kill(os.getpid(), signal.SIGKILL)
self.other += 1
return (a * 2 + b + self.other,)"""


def chained(folder: Path) -> Path:
    parts = [
        Part(
            FIRST,
            {"x": None},
            {"a": ((1,), (1,)), "b": ((1,), ())},
            weights={"count": torch.zeros(1)},
            state=("count",),
            device="cpu:0",
        ),
        Part(
            SECOND,
            {"a": 0, "b": 0},
            {"y": ((), (0,))},
            weights={"other": torch.zeros(1)},
            state=("other",),
            device="cpu:1",
        ),
    ]
    returns = {"tuple": [{"slot": 0}, {"slot": 1}]}
    return write(folder, parts, outputs=[tensor("y"), tensor("a")], returns=returns)


@pytest.fixture(autouse=True)
def _first_stage_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.running_stages.processes_of", lambda manifest, *_: (0, 1))
    monkeypatch.setattr("runtime.processes.owner.reach_next", lambda devices: True)


@pytest.fixture
def pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    monkeypatch.setenv("GO_ON", str(tmp_path / "go on"))
    before = psutil.Process().children()
    with Pipeline.load(chained(tmp_path / "out"), timeout=LIMIT) as pipe:
        yield pipe
        (tmp_path / "go on").touch()
    assert {*psutil.Process().children()} <= {*before}


def batch(value: float, rows: int = 2) -> torch.Tensor:
    return torch.full((rows, 4), float(value))


def expected(x: torch.Tensor, count: int) -> torch.Tensor:
    return (x + count) * 2 + x * 10 + count


def check(pipe: Pipeline, count: int) -> None:
    """A stream from this state on, of which stages have counted `count` batches."""
    batches = [torch.randn(1 + i * 7 % 16, 4) for i in range(20)]
    for n, (x, (y, a)) in enumerate(zip(batches, pipe.map(batches, in_flight=9), strict=True)):
        assert torch.equal(a, x + (count + n + 1))
        assert torch.allclose(y, expected(x, count + n + 1))


def test_one_process_is_the_callers(pipe: Pipeline, tmp_path: Path) -> None:
    assert [*pipe.pids.values()] == [(1,)]
    assert os.getpid() not in pipe.pids
    check(pipe, 0)
    with pipe.trace(tmp_path / "trace.json") as trace:
        list(pipe.map([batch(1)] * 3))
    assert [(run.stage, run.batch) for run in trace.runs] == [(i, n) for i in range(2) for n in range(3)]
    check(pipe, 23)
    with pytest.raises(StageError, match=r"^stage 0 \(cpu\) raised KeyError: 'five'$"):
        pipe(batch(5))
    pipe.reset()
    check(pipe, 0)


def test_another_process_is_lost_and_started_again(pipe: Pipeline) -> None:
    check(pipe, 0)
    (before,) = pipe.pids
    with pytest.raises(StageLost, match=rf"^stage 1 \(cpu\) raised ConnectionError: process {before}, which ran it"):
        pipe(batch(6))
    with pytest.raises(PipelineClosed, match="this pipeline is closed, as stage 1"):
        pipe(batch(1))
    for _ in range(2):  # the second time, nothing was lost
        pipe.restart()
        check(pipe, 0)
    assert before not in pipe.pids


def test_a_stage_of_the_caller_is_released(pipe: Pipeline) -> None:
    check(pipe, 0)
    assert pipe._stages.processes is not None
    ((program,),) = (stage.programs for stage in pipe._stages.processes._own)
    module = weakref.ref(program.module)
    del program
    pipe.close()
    gc.collect()
    assert module() is None
    with pytest.raises(PipelineClosed):
        pipe.restart()


def test_a_stage_of_the_caller_that_hangs_is_given_up(pipe: Pipeline, tmp_path: Path) -> None:
    check(pipe, 0)
    with pytest.raises(StageError, match=r"^stage 0 \(cpu\) raised TimeoutError: it is busy with one batch for more"):
        pipe(batch(7))
    with pytest.raises(StageLost, match=r"it does not come to an end, and runs in the process that loaded the pipe"):
        pipe.restart()
    (tmp_path / "go on").touch()
    for thread in pipe._stages.engine._threads:
        thread.join(PATIENCE)
    pipe.restart()
    check(pipe, 0)


def test_a_stage_of_the_caller_that_cannot_be_loaded_ends_the_processes(tmp_path: Path) -> None:
    path, before = chained(tmp_path / "out"), psutil.Process().children()
    (path / "stage_0.safetensors").write_bytes(b"")
    with pytest.raises(ManifestError, match=r"stage_0\.safetensors"):
        Pipeline.load(path)
    assert {*psutil.Process().children()} <= {*before}


SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 64}
HEADS: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
PROMPTS, NEW = [[5] * 2, [7] * 11, [3] * 5], [22, 9, 17]


@made_once
def decoder() -> Any:
    return t.LlamaForCausalLM(t.LlamaConfig(**SIZES, **HEADS, eos_token_id=None)).eval()


def test_texts_are_those_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    compile_model(decoder(), out=out, stages=2, generate=True, max_length=40, sequences=3, page=4)

    def written(pipe: Pipeline) -> list[list[int]]:
        begun = [pipe.start(p, max_new_tokens=new, temperature=0.0) for p, new in zip(PROMPTS, NEW, strict=True)]
        return [text.result(timeout=PATIENCE) for text in begun]

    with Pipeline.load(out) as pipe:
        assert [*pipe.pids.values()] == [(1,)]
        found = written(pipe)
        pipe.restart()
        assert written(pipe) == found
    alone = Pipeline.load(out).start(PROMPTS[0], max_new_tokens=NEW[0], temperature=0.0)
    gc.collect()  # nobody has the pipeline but its text
    assert alone.result(timeout=PATIENCE) == found[0]
    del alone
    monkeypatch.undo()
    with Pipeline.load(out, processes=False) as pipe:
        assert written(pipe) == found
