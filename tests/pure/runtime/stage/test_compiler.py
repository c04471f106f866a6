"""The import of torch's compiler while weights are read; a small package stands in for it."""

from __future__ import annotations

import gc
import importlib
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from runtime.manifest.manifest import Manifest
from runtime.stage.compiling import compiler
from runtime.stage.compiling.compiler import OF_KERNELS, begin_import, compiler_imported
from runtime.stage.speed import Speed
from tests.support.artifacts.by_hand import chain

WHOLE = ("small_compiler", "small_compiler.codecache", "small_compiler.compile_fx")
CACHES = """\
import sys
switch, prefix = sys.getswitchinterval(), sys.pycache_prefix
called = []

class CacheBase:
    @staticmethod
    def get_system():
        called.append("system")

def torch_key():
    called.append("key")
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the package, which is not imported, and has no compiled files."""
    folder = tmp_path / "site" / "small_compiler"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "codecache.py").write_text(CACHES)
    (folder / "compile_fx.py").write_text(
        "import gc\nfrom small_compiler import codecache\ncollects = gc.isenabled()\n"
    )
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setattr(compiler, "_ENTRY", "small_compiler")
    monkeypatch.setattr(compiler, "_CACHES", "small_compiler.codecache")
    yield folder
    for name in [name for name in sys.modules if name.startswith("small_compiler")]:
        del sys.modules[name]


def test_the_compiler_is_imported_at_the_end_of_the_block(package: Path, tmp_path: Path) -> None:
    before = sys.getswitchinterval(), sys.dont_write_bytecode
    with compiler_imported(tmp_path / "kept", WHOLE):
        pass
    caches, last = sys.modules["small_compiler.codecache"], sys.modules["small_compiler.compile_fx"]
    assert caches.called == ["system", "key"]
    assert caches.switch < before[0]
    assert not last.collects
    assert gc.isenabled()
    assert (sys.getswitchinterval(), sys.dont_write_bytecode) == before
    assert sys.pycache_prefix is None


def test_compiled_files_are_kept_where_python_has_none(package: Path, tmp_path: Path) -> None:
    begin_import(tmp_path / "kept", WHOLE).join()
    kept = [*(tmp_path / "kept").rglob("*.pyc")]
    assert {file.name.partition(".")[0] for file in kept} == {"__init__", "codecache", "compile_fx"}
    assert not [*package.rglob("*.pyc")]
    written = {file: file.stat().st_mtime_ns for file in kept}
    for name in [name for name in sys.modules if name.startswith("small_compiler")]:
        del sys.modules[name]
    begin_import(tmp_path / "kept", WHOLE).join()
    assert {file: file.stat().st_mtime_ns for file in kept} == written


def test_compiled_files_of_pythons_own_are_used(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    importlib.import_module("small_compiler")
    del sys.modules["small_compiler"]
    begin_import(tmp_path / "kept", WHOLE).join()
    assert sys.modules["small_compiler.codecache"].prefix is None
    assert not (tmp_path / "kept").exists()


def test_what_cannot_be_imported_fails_at_its_use(package: Path, tmp_path: Path) -> None:
    (package / "compile_fx.py").write_text("raise RuntimeError('no compiler')")
    with compiler_imported(tmp_path / "kept", WHOLE):
        pass
    assert gc.isenabled()
    assert sys.pycache_prefix is None
    with pytest.raises(RuntimeError, match="no compiler"):
        importlib.import_module("small_compiler.compile_fx")


@pytest.mark.filterwarnings("default:old:DeprecationWarning")
def test_what_warns_is_imported(package: Path, tmp_path: Path) -> None:
    """Also where warnings are errors: what is imported by halves may fail the second time."""
    (package / "compile_fx.py").write_text("import warnings\nwarnings.warn('old', DeprecationWarning)\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        begin_import(tmp_path / "kept", WHOLE).join()
    assert "small_compiler.compile_fx" in sys.modules


def test_kernels_are_loaded_without_other_processes(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "config.py").write_text("workers = []\n")
    (package / "kernels.py").write_text("from small_compiler import config, codecache\nfound = [*config.workers]\n")

    @contextmanager
    def without() -> Iterator[None]:
        workers = importlib.import_module("small_compiler.config").workers
        workers.append("none")
        yield
        workers.clear()

    monkeypatch.setattr(compiler, "OF_KERNELS", ("small_compiler.kernels",))
    monkeypatch.setattr(compiler, "without_workers", without)
    begin_import(tmp_path / "kept", compiler.OF_KERNELS).join()
    assert sys.modules["small_compiler.kernels"].found == ["none"]
    assert "small_compiler.compile_fx" not in sys.modules


def test_what_is_imported_ahead(tmp_path: Path) -> None:
    """Nothing beside code of the user's, which may import parts of it; little for stages whose graphs are kept."""
    manifest, here, far = Manifest.read(chain(tmp_path)), torch.device("cpu"), torch.device("cuda")
    compiled = Speed(compile=True)
    graphs = tmp_path / "compiled/0/graphs"
    graphs.mkdir(parents=True)
    (graphs / "stage_0-0.json").touch()
    assert compiled.imports(tmp_path, manifest, {0: here}) == ()
    assert compiled.imports(tmp_path, manifest, {0: far}) == OF_KERNELS
    assert compiled.imports(tmp_path, manifest, {0: here, 1: here}) == compiler.WHOLE
    assert Speed().imports(tmp_path, manifest, {1: here}) == ()
    file = tmp_path / "stage_1.py"
    file.write_text(f"import torch._inductor.config\n{file.read_text()}")
    assert compiled.imports(tmp_path, manifest, {1: here}) == ()
