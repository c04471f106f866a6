"""Stages made faster; what concerns CUDA graphs alone is in test_runtime_gpu."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._dynamo.exc import BackendCompilerFailed

from runtime import DeviceError, Pipeline, StageError
from runtime.device.settings import KEEPS_MODULES
from runtime.manifest.manifest import Manifest, Operator
from runtime.run import main
from runtime.stage.loader import load_stages
from runtime.stage.shared_lock import SharedLock
from runtime.stage.speed import Speed
from tests.support.artifacts.by_hand import chain

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"  # that names the folder of torch's compiler


@pytest.mark.slow
def test_compiled_stages_return_the_same_for_every_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while one of them compiles and another has batches to run, and at the next load, which compiles nothing."""
    batches = [torch.randn(n, 4) for n in (3, 3, 1, 5, 2, 7, 3)]
    out = chain(tmp_path)
    with Pipeline.load(out, compile=True) as pipe:
        first = [*pipe.map(batches)]
    for x, y in zip(batches, first, strict=True):
        assert torch.allclose(y, (x + 1) * 2)
    monkeypatch.delattr("torch.compile")
    with Pipeline.load(out, compile=True) as pipe:
        for y, again in zip(first, pipe.map(batches), strict=True):
            assert torch.equal(y, again)


def test_what_cannot_be_compiled_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: torch.Tensor) -> None:
        raise BackendCompilerFailed(print, RuntimeError("no compiler found"), None)

    monkeypatch.setattr("torch.compile", lambda _: fail)
    message = r"stage 0 \(cpu\) raised NotCompilable: it cannot be compiled; run it without compile: .*\n.*no compiler"
    with Pipeline.load(chain(tmp_path), compile=True) as pipe, pytest.raises(StageError, match=message):
        pipe(torch.ones(1, 4))


def test_what_compiles_with_a_warning_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def warned(call: Callable[..., object]) -> Callable[..., object]:
        def compiled(*tensors: torch.Tensor) -> object:
            warnings.warn("products of float32 could be faster", stacklevel=1)
            return call(*tensors)

        return compiled

    monkeypatch.setattr("torch.compile", warned)
    with Pipeline.load(chain(tmp_path), compile=True) as pipe, pytest.warns(UserWarning, match="could be faster"):
        assert torch.equal(pipe(torch.ones(1, 4)), torch.full((1, 4), 4.0))


def test_cuda_graphs_need_a_cuda_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chain(tmp_path / "out")
    message = "CUDA graphs need CUDA devices, and stage 0 is on cpu; run the pipeline without them"
    with monkeypatch.context() as patched:
        patched.delattr("runtime.stage.loader._load_modules")  # no weights are read
        with pytest.raises(DeviceError, match=message):
            Pipeline.load(tmp_path / "out", cuda_graphs=True)
    x, y = str(tmp_path / "x.safetensors"), str(tmp_path / "y.safetensors")
    save_file({"x": torch.ones(2, 4)}, x)
    assert main([str(tmp_path / "out"), "--input", x, "--output", y, "--cuda-graphs"]) == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert main([str(tmp_path / "out"), "--input", x, "--output", y]) == 0
    assert torch.equal(load_file(y)["y"], torch.full((2, 4), 4.0))


@pytest.mark.parametrize("own", ["", "operators", "modules"])
def test_the_compiler_is_imported_while_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    """Unless code of the user's, which may import parts of it, runs at the same time."""
    folder, begun = chain(tmp_path), []
    operators = (Operator("aten::add", "", "", "", (0,)),) if own == "operators" else ()
    settings = {KEEPS_MODULES: "torch.float32"} if own == "modules" else {}
    manifest = replace(Manifest.read(folder), operators=operators, settings=settings)
    monkeypatch.setattr("runtime.stage.speed.compiler_imported", lambda at, names: begun.append(at) or nullcontext())
    for speed in (Speed(), Speed(compile=True)):
        load_stages(folder, manifest, [torch.device("cpu")] * 2, strict=False, speed=speed)
    assert begun == ([] if own else [folder / "compiled" / "python"])


def test_many_share_the_lock_and_a_writer_holds_it_alone() -> None:
    lock, alone, late = SharedLock(), Event(), Event()

    def run_alone() -> None:
        with lock.hold(exclusive=True):
            alone.set()

    def run_late() -> None:
        with lock.hold(exclusive=False):
            assert alone.is_set()
            late.set()

    with lock.hold(exclusive=False), lock.hold(exclusive=False):
        threads = [Thread(target=run_alone)]
        threads[0].start()
        while not lock._exclusive:  # it waits from then on
            time.sleep(0.001)
        assert not alone.wait(0.1)
        threads.append(Thread(target=run_late))
        threads[1].start()
        assert not late.wait(0.1)
    for thread in threads:
        thread.join()
    assert late.is_set()


def test_what_is_compiled_is_kept_beside_the_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch is not asked to compile here: where it would look, and keep what it made, counts."""

    def compiled(call: Callable[..., object]) -> Callable[..., object]:
        def run(*tensors: torch.Tensor) -> object:
            folder = Path(os.environ[VARIABLE])
            found.append(len([*folder.iterdir()]))
            (folder / f"kernel{len([*folder.iterdir()])}").touch()
            return call(*tensors)

        return run

    found: list[int] = []
    monkeypatch.setattr("torch.compile", compiled)
    monkeypatch.setenv(VARIABLE, "mine")
    out = chain(tmp_path / "out")

    def run() -> list[int]:
        """The number of files that torch finds for the first stage, and for the second."""
        found.clear()
        with Pipeline.load(out, compile=True) as pipe:
            assert torch.equal(pipe(torch.ones(1, 4)), torch.full((1, 4), 4.0))
        assert os.environ[VARIABLE] == "mine"
        return found

    assert run() == [0, 1]
    assert run() == [2, 3]
    assert len([*(out / "compiled").glob("*/kernel*")]) == 4
    monkeypatch.setattr("runtime.stage.compiling.compiled_cache.model_name", lambda device: "another device")
    assert run() == [0, 1]
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with Pipeline.load(out, compile=True) as pipe, pytest.raises(StageError, match=r"FileNotFoundError.*mine"):
        pipe(torch.ones(1, 4))
