"""Pipelines in several processes, started by torchrun over gloo."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from runtime import DistributedError, Pipeline
from runtime.manifest.manifest import Manifest
from tests.support.artifacts.by_hand import Part, chain, tensor, write
from tests.support.running.forked_jobs import agent, end_of, run
from tests.support.running.jobs import APART, agents, torchrun

X = torch.arange(8.0).reshape(2, 4)

SKIP = [
    Part("return x + 1, x * 10", {"x": None}, {"a": ((1,), ()), "b": ((2,), ())}),
    Part("return (a * 2,)", {"a": 0}, {"c": ((2,), ())}),
    Part("return (c + b,)", {"b": 0, "c": 1}, {"y": ((), (0,))}),
]


CALLS = """\
import threading

def expected(x):
    return (x + 1) * 2 + x * 10

apart = "found" in globals()
with Pipeline.distributed(OUT, timeout=600) as pipe:
    assert pipe.rank == RANK
    carriers = [thread.name for thread in threading.enumerate() if "control" in thread.name]
    assert bool(carriers) == apart  # within a host no message goes ahead of the tensors
    if RANK == 0:
        assert torch.equal(pipe(X), expected(X))
        batches = [torch.randn(1 + i * 7 % 64, 4) for i in range(200)]
        found = list(pipe.map(batches, in_flight=6))
        assert all(torch.equal(y, expected(x)) for x, y in zip(batches, found, strict=True))
        futures = [pipe.submit(x) for x in batches]
        assert all(torch.equal(f.result(), expected(x)) for x, f in zip(batches, futures, strict=True))
        with pipe.trace(HERE / "trace.json") as trace:
            list(pipe.map(batches[:5]))
        assert [(run.stage, run.batch) for run in trace.runs] == [(i, n) for i in range(3) for n in range(5)]
        assert all(run.sent == (32 - 16 * (run.stage > 0)) * len(batches[run.batch]) for run in trace.runs)
        assert all(0 <= run.arrived <= run.started <= run.ended < 600 for run in trace.runs)
        big = torch.randn(11, 4)
        assert torch.equal(pipe(big, microbatches=4), expected(big))
        assert torch.equal(pipe.run_named({"x": big})["y"], expected(big))
        wanted = pipe.submit(big, outputs=["y[:, -1]", "y[3:5]"]), pipe.submit(big), pipe.submit(X, outputs=["y[0]"])
        parts, whole, row = (future.result() for future in wanted)
        assert torch.equal(parts["y[:, -1]"], whole[:, -1]) and torch.equal(parts["y[3:5]"], whole[3:5])
        assert torch.equal(row["y[0]"], expected(X)[0])
        try:
            pipe(torch.zeros(65, 4))
        except InputError as e:
            os.write(1, f"{e}{os.linesep}".encode())
    else:
        try:
            pipe(X)
        except RuntimeError as e:
            os.write(1, f"{e}{os.linesep}".encode())
"""
ANOTHER = """\
for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
    del os.environ[name]
if RANK == 0:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (HERE / "port.new").write_text(f"127.0.0.1:{port}")
    (HERE / "port.new").rename(HERE / "port")
while not (HERE / "port").exists():
    time.sleep(0.02)
place = {"rank": RANK, "world": 3, "address": (HERE / "port").read_text()}  # in the words of the caller
with Pipeline.distributed(OUT, timeout=600, **place) as pipe:  # another, in the same processes
    if RANK == 0:
        assert torch.equal(pipe(X), expected(X))
        print("done")
"""


@pytest.mark.parametrize("where", ["", APART], ids=["one host", "hosts"])
def test_calls_and_streams_with_a_skip(tmp_path: Path, where: str) -> None:
    write(tmp_path / "out", SKIP)
    ended = run(tmp_path, where + CALLS + ANOTHER, ranks=3)
    assert ended.status == 0, ended.err
    assert sorted(ended.out.splitlines()) == [
        "`batch` is 65 in `x`; expected at most 64",
        "done",
        *["rank 0 makes the calls; put them under `if pipe.rank == 0:`"] * 2,
    ]


def test_several_stages_in_a_process_and_state(tmp_path: Path) -> None:
    counting = "self.count += 1\nreturn (h + self.count,)"
    parts = [
        Part("return (x.t().contiguous().t(),)", {"x": None}, {"g": ((1,), ())}, device="cpu:0"),
        Part("return (g.t().view(-1),)", {"g": 0}, {"h": ((2, 3), ())}, device="cpu:1"),
        Part(counting, {"h": 1}, {"i": ((3,), (1,))}, (), {"count": torch.zeros(1)}, ("count",), "cpu:0"),
        Part("return (i - h, h.sum())", {"h": 1, "i": 2}, {"y": ((), (0,)), "z": ((), (2,))}, device="cpu:1"),
    ]
    flat = [tensor(name, "4*batch") for name in "hiy"]
    write(
        tmp_path / "out",
        parts,
        outputs=[flat[2], flat[1], tensor("z", dtype="float32")],
        returns={"tuple": [{"slot": 0}, {"slot": 1}, {"slot": 2}]},
    )
    shape(tmp_path / "out", {"h": ("4*batch",), "i": ("4*batch",), "z": ()})
    ended = run(
        tmp_path,
        """\
with Pipeline.distributed(OUT, timeout=600) as pipe:
    if RANK == 0:
        for round in range(2):
            for n, (y, i, z) in enumerate(pipe.map([X[: 1 + n % 2] for n in range(20)])):
                x = X[: 1 + n % 2]
                assert torch.equal(y, torch.full((x.numel(),), n + 1.0)), (n, y)
                assert torch.equal(i, x.t().reshape(-1) + n + 1)
                assert z == x.sum()
            pipe.reset()
        print("done")
""",
        ranks=2,
    )
    assert (ended.status, ended.out) == (0, "done\n"), ended.err


def test_a_batch_that_fails_and_those_after_it(tmp_path: Path) -> None:
    parts = [
        Part("if x.sum() == 3:\n    raise KeyError('three')\nreturn (x,)", {"x": None}, {"a": ((1,), ())}),
        Part("return (a if a.sum() != 7 else a.double(),)", {"a": 0}, {"b": ((2,), ())}),
        Part("return (b * 2,)", {"b": 1}, {"y": ((), (0,))}),
    ]
    write(tmp_path / "out", parts)
    ended = run(
        tmp_path,
        APART
        + """\
with Pipeline.distributed(OUT, timeout=600) as pipe:
    if RANK == 0:
        for n, future in enumerate([pipe.submit(torch.full((1, 4), n / 4)) for n in range(20)]):
            try:
                assert torch.equal(future.result(), torch.full((1, 4), n / 2))
            except StageError as e:
                print(n, e.stage, e, type(e.__cause__).__name__)
""",
        ranks=3,
    )
    assert ended.status == 0, ended.err
    wrong = "it sends `b` as float64[1, 4], the manifest says float32[batch, 4] and [1, 4]"
    assert ended.out.splitlines() == [
        "3 0 stage 0 (cpu) raised KeyError: 'three' KeyError",
        f"7 1 stage 1 (cpu) raised TypeError: {wrong} TypeError",
    ]


def test_the_command_line(tmp_path: Path) -> None:
    out, x, y = chain(tmp_path / "out"), tmp_path / "x", tmp_path / "y"
    save_file({"x": X}, x)
    command = torchrun(2, "-m", "runtime.run", out, "--input", x, "--output", y, "--microbatches", 2)
    with agent(tmp_path, command) as process:
        ended = end_of(process, tmp_path)
    assert (ended.status, ended.out) == (0, "y: float32[2, 4]\n"), ended.err
    assert torch.equal(load_file(y)["y"], (X + 1) * 2)
    assert [*(tmp_path / "logs").iterdir()]  # what torchrun leaves is in the folder of the test


def test_two_hosts(tmp_path: Path) -> None:
    """Each torchrun has a process of its own; one of the two is rank 0, and writes the result."""
    out, x, y = chain(tmp_path / "out"), tmp_path / "x", tmp_path / "y"
    save_file({"x": X}, x)
    folders = tmp_path / "0", tmp_path / "1"
    with ExitStack() as running:
        hosts = []
        for folder, command in zip(
            folders, agents(2, "-m", "runtime.run", out, "--input", x, "--output", y), strict=True
        ):
            folder.mkdir()
            hosts.append(running.enter_context(agent(folder, command)))
        ended = [end_of(host, folder) for host, folder in zip(hosts, folders, strict=True)]
    assert [host.status for host in ended] == [0, 0], ended
    assert sorted(host.out for host in ended) == ["", "y: float32[2, 4]\n"], ended
    assert torch.equal(load_file(y)["y"], (X + 1) * 2)


def test_too_many_processes(tmp_path: Path) -> None:
    chain(tmp_path / "out")
    ended = run(tmp_path, "Pipeline.distributed(OUT, timeout=600)", ranks=3)
    assert ended.status == 1
    assert ended.errors() == ["runtime.errors.DeviceError: got 3 processes for 2 stages; start 2 at most"]


def test_without_torchrun(tmp_path: Path) -> None:
    with pytest.raises(DistributedError, match="torchrun starts the processes of a job"):
        Pipeline.distributed(chain(tmp_path / "out"))


def shape(folder: Path, shapes: dict[str, tuple[int | str, ...]]) -> None:
    """Write other shapes of what stages send into the manifest."""
    manifest = Manifest.read(folder)
    known = {name: tensor(name) for name in shapes}
    known = {name: replace(t, shape=shapes[name]) for name, t in known.items()}
    (program,) = manifest.programs
    stages = tuple(
        replace(
            stage,
            receives=tuple(replace(r, tensor=known.get(r.tensor.name, r.tensor)) for r in stage.receives),
            sends=tuple(replace(s, tensor=known.get(s.tensor.name, s.tensor)) for s in stage.sends),
        )
        for stage in program.stages
    )
    replace(manifest, programs=(replace(program, stages=stages),)).write(folder)


pytestmark = pytest.mark.slow
