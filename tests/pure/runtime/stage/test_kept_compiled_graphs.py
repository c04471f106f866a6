"""Compiled graphs that are kept beside an artifact; code written by hand stands in for what torch's compiler writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from runtime.stage.compiling import kept_graphs
from runtime.stage.compiling.compiled_cache import CompiledCache
from runtime.stage.compiling.compiled_stage import CompiledStage
from runtime.stage.compiling.generated_code import KeptKernels, run_code
from runtime.stage.compiling.kept_graphs import KeptGraphs
from runtime.stage.compiling.observed_graph import ObservedGraph
from runtime.stage.stage import shape_key

CODE = """\
import torch
from torch._inductor.async_compile import AsyncCompile
from torch._inductor.codegen.memory_planning import _align as align
from torch._inductor.select_algorithm import extern_kernels
async_compile = AsyncCompile()
async_compile.wait(globals())
del async_compile

class Runner:
    def call(self, args):
        weight, size, x = args
        args.clear()
        assert x.shape[0] == size
        return (x @ weight, x.data_ptr() % 16)

call = Runner().call
"""


class Stage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(4.0).reshape(2, 2))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return x @ self.weight, y, self.weight


@dataclass(frozen=True)
class Written(ObservedGraph):
    """A graph whose code is here, and not in the files of torch's compiler."""

    text: str = CODE
    plain: bool = True

    @property
    def is_plain(self) -> bool:
        return self.plain

    @property
    def code(self) -> str:
        return self.text

    @property
    def aligned(self) -> list[int]:
        return [2]


@dataclass
class Kept:
    """A stage whose batches `x`, `y` are kept in a folder."""

    folder: Path
    stage: Stage = field(default_factory=Stage)
    x: Tensor = field(default_factory=lambda: torch.ones(3, 2))
    y: Tensor = field(default_factory=lambda: torch.zeros(1))

    @property
    def graphs(self) -> KeptGraphs:
        """As another process has them."""
        return KeptGraphs(CompiledCache(self.folder), self.stage)

    def find(self, *tensors: Tensor) -> Callable[..., Any] | None:
        given = tensors or (self.x, self.y)
        return self.graphs.find(shape_key(given, {}), given)

    def keep(self, count: int = 1, sent: object = None, given: Sequence[Any] = (), **written: Any) -> None:
        made = (self.x @ self.stage.weight, 0)
        graph = Written(object(), given or (self.stage.weight, 3, self.x), made, **written)
        sent = (made[0], self.y, self.stage.weight) if sent is None else sent
        self.graphs.keep(shape_key((self.x, self.y), {}), (self.x, self.y), sent, [graph] * count)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.setattr(kept_graphs, "operators_of_torch", lambda code: [])
    with torch.no_grad():
        made = Kept(tmp_path)
        assert made.find() is None
        return made


@pytest.fixture(autouse=True)
def _without_gradients() -> Any:
    with torch.no_grad():
        yield


def test_a_kept_graph_makes_what_the_stage_did(kept: Kept) -> None:
    kept.keep()
    graph = kept.find()
    assert graph is not None
    x, y = torch.full((3, 2), 2.0), torch.full((1,), 7.0)
    made = graph(x, y)
    assert torch.equal(made[0], x @ kept.stage.weight)
    assert made[1] is y
    assert made[2] is kept.stage.weight


def test_tensors_are_copied_to_where_kernels_read_them(kept: Kept) -> None:
    kept.keep(text=CODE.replace("return (x @ weight, x.data_ptr() % 16)", "return (x * (x.data_ptr() % 16 == 0), 0)"))
    graph = kept.find()
    assert graph is not None
    x = torch.ones(7)[1:].view(3, 2)
    assert x.data_ptr() % 16
    assert torch.equal(graph(x, kept.y)[0], x)
    assert torch.equal(graph(x.T.contiguous().T, kept.y)[0], x)


@pytest.mark.parametrize(
    "what",
    [
        {"count": 2},
        {"count": 0},
        {"plain": False},
        {"sent": torch.zeros(3, 2)},
        {"sent": (torch.zeros(3, 2),)},
        {"given": (torch.zeros(2, 2), 3, torch.zeros(3, 2))},
        {"given": (1.5,)},
        {"text": "no code"},
    ],
    ids=str,
)
def test_what_is_not_all_of_a_stage_is_not_kept(kept: Kept, what: dict[str, Any]) -> None:
    kept.keep(**what)
    assert not [*kept.folder.rglob("*.json")]


def test_a_tensor_that_comes_twice_is_not_kept(kept: Kept) -> None:
    kept.y = kept.x
    kept.keep()
    assert not [*kept.folder.rglob("*.json")]


def test_a_graph_is_for_one_shape_module_and_process(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.keep()
    assert kept.find(torch.ones(2, 2), kept.y) is None
    assert kept.find(torch.ones(2, 3).T, kept.y) is None
    assert kept.find(kept.x.double(), kept.y) is None
    with torch.enable_grad():
        assert kept.find() is None
    with monkeypatch.context() as changed:
        changed.setenv("TORCHINDUCTOR_MAX_AUTOTUNE", "1")
        assert kept.find() is None
    with monkeypatch.context() as changed:
        changed.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
        assert kept.find() is not None
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    assert kept.find() is None
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        assert kept.find() is None
    finally:
        torch.use_deterministic_algorithms(False)
    kept.stage.added = nn.Linear(1, 1)
    assert kept.find() is None


def test_a_changed_setting_of_the_compiler_is_another_key(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    class Config:
        def __init__(self, **values: Any) -> None:
            self._values = values
            self._config = {name: Config() for name in values}
            self.default = 0

        def _get_dict(self, ignored_keys: Sequence[str], skip_default: bool) -> dict[str, Any]:
            return {name: value for name, value in self._values.items() if name not in ignored_keys}

    for name in kept_graphs._CONFIGS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    kept.keep()
    monkeypatch.setitem(sys.modules, "torch._inductor.config", Config(freezing=0, compile_threads=4))  # type: ignore[arg-type]
    assert kept.find() is not None
    monkeypatch.setitem(sys.modules, "torch._inductor.config", Config(freezing=1))  # type: ignore[arg-type]
    assert kept.find() is None


@pytest.mark.parametrize("suffix", [".py", ".json"])
def test_a_damaged_graph_is_not_used(kept: Kept, suffix: str) -> None:
    kept.keep()
    (file,) = kept.folder.rglob(f"*{suffix}")
    file.write_text(file.read_text().replace("w", "x", 1))
    with pytest.warns(UserWarning, match="a compiled graph in .* cannot be used, and is made again: "):
        assert kept.find() is None
    assert file.exists() == (suffix == ".json")  # else torch would load a library that it did not write so


def test_a_folder_that_cannot_be_written_keeps_none(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: Path, text: str) -> None:
        raise PermissionError

    monkeypatch.setattr(kept_graphs, "_write", fail)
    kept.keep()
    assert kept.find() is None


def test_graphs_of_other_code_than_the_files_are_not_kept(kept: Kept) -> None:
    class Entry:
        state = ()

    class Module:
        entry, module = Entry, kept.stage

    module: Any = Module
    cache = CompiledCache(kept.folder)
    assert KeptGraphs.of_stage(cache, module) is not None
    assert KeptGraphs.of_stage(None, module) is None
    kept.stage.own = json.decoder.JSONDecoder  # type: ignore[assignment]
    kept.stage.layer = Foreign()
    assert KeptGraphs.of_stage(cache, module) is None
    kept.stage.layer = nn.Linear(1, 1)
    assert KeptGraphs.of_stage(cache, module) is not None
    kept.stage.layer.register_forward_hook(lambda *_: None)
    assert KeptGraphs.of_stage(cache, module) is None
    kept.stage = Stage()
    Entry.state = ("cache",)  # type: ignore[assignment]
    assert KeptGraphs.of_stage(cache, module) is None


class Foreign(nn.Module):
    __module__ = "another.file"


def test_of_the_compiler_only_what_is_used_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "small_compiler"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text("def one(x):\n    return x + 1\n")
    (package / "select_algorithm.py").write_text("class extern_kernels:\n    own = staticmethod(lambda x: x * 10)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("runtime.stage.compiling.generated_code._COMPILER", "small_compiler")
    code = """
from small_compiler import parts
from small_compiler.parts import one
from small_compiler.select_algorithm import extern_kernels
def call(args):
    return {"none": lambda: extern_kernels.neg(2), "own": lambda: extern_kernels.own(2),
            "one": lambda: one(2), "parts": lambda: parts.one(3)}[args[0]]()
"""
    graph: Any = run_code(code, KeptKernels({}), {"neg": lambda x: -x})
    assert graph(["none"]) == -2
    assert "small_compiler" not in sys.modules
    assert [graph([name]) for name in ("one", "parts", "own")] == [3, 4, 20]
    for name in [name for name in sys.modules if name.startswith("small_compiler")]:
        del sys.modules[name]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The batches of a stage that torch.compile, for which code here stands in, has made faster."""

    def compile_nothing(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(x: Tensor, y: Tensor) -> Any:
            seen.append(x)
            return call(x, y)

        return run

    seen: list[Tensor] = []
    monkeypatch.setattr("torch.compile", compile_nothing)
    return seen


@pytest.mark.slow
def test_a_stage_runs_kept_graphs_and_compiles_the_rest(kept: Kept, compiled: list[Tensor]) -> None:
    """The compiler first sees the shapes that ran without it, which tells it what changes."""
    kept.keep()
    stage = CompiledStage(kept.stage, kept=kept.graphs)
    key = shape_key((kept.x, kept.y), {})
    assert not stage.is_prepared(key)
    for _ in range(2):
        made: Any = stage(kept.x, kept.y)
        assert torch.equal(made[0], kept.x @ kept.stage.weight)
    assert stage.is_prepared(key)
    assert not compiled
    for _ in range(3):
        stage(torch.full((5, 2), 7.0), kept.y)
    assert [batch.shape[0] for batch in compiled] == [3, 5, 5, 5]
    assert torch.equal(compiled[0], torch.full((3, 2), 7.0))


@pytest.mark.slow
def test_a_setting_that_changes_has_a_stage_compiled_again(kept: Kept, compiled: list[Tensor]) -> None:
    kept.keep()
    stage, key = CompiledStage(kept.stage, kept=kept.graphs), shape_key((kept.x, kept.y), {})
    stage(kept.x, kept.y)
    torch.use_deterministic_algorithms(True)
    try:
        assert not stage.is_prepared(key)
        stage(kept.x, kept.y)
        assert len(compiled) == 1
    finally:
        torch.use_deterministic_algorithms(False)
    assert not stage.is_prepared(key)
    stage(kept.x, kept.y)
    assert stage.is_prepared(key)
    assert len(compiled) == 1


def negated(x: Tensor) -> Tensor:
    """The numbers of `x`, in a memory that has them with the other sign."""
    return torch.complex(torch.zeros_like(x), -x).conj().imag


@pytest.mark.slow
def test_kernels_are_given_numbers_as_they_are_stored(kept: Kept, compiled: list[Tensor]) -> None:
    """Not those of which torch notes that they are to be negated, or conjugated, once they are read."""
    kept.keep(text=CODE.replace("(x @ weight, ", "(x.new_full((3, 2), x.is_neg()), "))
    stage = CompiledStage(kept.stage, kept=kept.graphs)
    for x in (negated(kept.x), kept.x):
        made: Any = stage(x, kept.y)
        assert not made[0].any()
    assert not compiled
    stage(negated(torch.ones(5, 2)), kept.y)
    assert not any(x.is_neg() for x in compiled)


@pytest.mark.slow
def test_a_kept_graph_that_fails_is_compiled_again(kept: Kept, compiled: list[Tensor]) -> None:
    kept.keep(text=CODE.replace("args.clear()", "raise OSError('no kernel')"))
    stage = CompiledStage(kept.stage, kept=kept.graphs)
    with pytest.warns(
        UserWarning, match="a compiled graph in .* cannot be used, and is made again: OSError: no kernel"
    ):
        made: Any = stage(kept.x, kept.y)
    assert torch.equal(made[0], kept.x @ kept.stage.weight)
    assert len(compiled) == 1
