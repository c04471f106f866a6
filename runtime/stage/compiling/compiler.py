"""torch's compiler, which takes seconds to import, imported by a thread of its own while weights are read."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Lock, Thread
from typing import Any

_ENTRY = "torch._dynamo"
_CACHES = "torch._inductor.codecache"
_SETTINGS = "torch._inductor.config"
WHOLE = (_ENTRY, _CACHES, "torch._inductor.compile_fx")  # what its first call imports
OF_KERNELS = ("torch._inductor.async_compile", "torch._inductor.runtime.triton_heuristics")  # what loads compiled ones
_SWITCH = 1e-4  # seconds after which the import lets other threads run: one that reads needs that for each piece
_IMPORTING = Lock()  # held by one import at a time, as it changes settings of the process


@contextmanager
def compiler_imported(bytecode: Path, names: Sequence[str] = WHOLE) -> Iterator[None]:
    """A block at whose end torch's compiler is imported: see `begin_import`."""
    thread = begin_import(bytecode, names)
    try:
        yield
    finally:
        thread.join()


def begin_import(bytecode: Path, names: Sequence[str] = WHOLE) -> Thread:
    """A thread that imports torch's compiler.  No other should import parts of it meanwhile.

    `bytecode`: the folder where Python's compiled files of it are kept, if Python has none of its own; `names`: of the
    modules, `WHOLE` or `OF_KERNELS`.
    """
    thread = Thread(target=_import_compiler, args=(bytecode, names), name="import", daemon=True)
    thread.start()
    return thread


def _import_compiler(bytecode: Path, names: Sequence[str]) -> None:
    """Import all, and compute the keys of its caches, which are hashes of its files.  What fails, fails at its use."""
    with _IMPORTING, suppress(Exception):
        if any(name not in sys.modules for name in names):
            with _in_haste(), _bytecode_kept(bytecode), warnings_shown(), ExitStack() as entered:
                if names == OF_KERNELS:
                    entered.enter_context(without_workers())
                for name in names:
                    importlib.import_module(name)
        caches = sys.modules[_CACHES]
        caches.CacheBase.get_system()
        caches.torch_key()


@contextmanager
def without_workers() -> Iterator[None]:
    """A block in which torch loads kernels on this thread, and starts no processes that could compile some."""
    settings: Any = importlib.import_module(_SETTINGS)
    with settings.patch(compile_threads=1):
        yield


@contextmanager
def _in_haste() -> Iterator[None]:
    """A block without garbage collection, a third of the time of such imports, in which threads take short turns."""
    interval, collects = sys.getswitchinterval(), gc.isenabled()
    sys.setswitchinterval(min(_SWITCH, interval))
    gc.disable()
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        if collects:
            gc.enable()


@contextmanager
def warnings_shown() -> Iterator[None]:
    """The compiler's warnings, such as that float32 products could be faster, are shown and are never errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        yield


@contextmanager
def _bytecode_kept(folder: Path) -> Iterator[None]:
    """A block in which Python reads and writes the compiled files of what it imports in a folder.

    Nothing changes where it has those of the compiler: it then reads them beside the sources, and may write there.
    """
    spec = importlib.util.find_spec(_ENTRY)
    if spec is None or spec.cached is None or Path(spec.cached).exists():
        yield
        return
    before = sys.pycache_prefix, sys.dont_write_bytecode
    sys.pycache_prefix, sys.dont_write_bytecode = str(folder), False
    try:
        yield
    finally:
        sys.pycache_prefix, sys.dont_write_bytecode = before
