"""Code that torch's compiler has written for a graph, run without that compiler, whose import takes seconds."""

from __future__ import annotations

import builtins
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch

from runtime.stage.compiling.compiler import without_workers

_COMPILER = "torch._inductor"
_KERNEL = "kernel"  # the function of a library
_ADDRESS = "_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR"  # of the environment: by what a library finds a tensor's memory

CompiledGraph = Callable[[list[Any]], Sequence[Any]]  # of the list of its inputs, which it empties


def run_code(code: str, kernels: Any, operators: Mapping[str, Any]) -> CompiledGraph:
    """The graph that generated code defines.

    `kernels`: what loads its kernels in place of torch's AsyncCompile; `operators`: those of the compiler's
    `extern_kernels` that are known.  What else the code takes from the compiler is imported once it is used.
    """
    given = {"AsyncCompile": lambda: kernels, "extern_kernels": _Operators(operators)}

    def import_late(name: str, scope: Any = None, place: Any = None, names: Sequence[str] = (), level: int = 0) -> Any:
        if name.startswith(_COMPILER) and names and "*" not in names:
            return _LateModule(name, given)
        return builtins.__import__(name, scope, place, names, level)

    scope: dict[str, Any] = {"__name__": "generated", "__builtins__": {**vars(builtins), "__import__": import_late}}
    exec(code, scope)
    return scope["call"]


@dataclass(frozen=True)
class KeptKernels:
    """Loads the kernels of a graph: those for CPUs from files, others by torch's AsyncCompile.

    `libraries`: the files, by the digests of the sources.
    """

    libraries: Mapping[str, Path]

    def cpp_pybinding(self, argtypes: Sequence[str], source: str) -> Any:
        """The function of a kernel, without a look at what compilers there are.  Raises KeyError or ImportError."""
        path = self.libraries[source_digest(argtypes, source)]
        guards: Any = torch._C._dynamo.guards  # type: ignore[attr-defined]
        os.environ[_ADDRESS] = str(getattr(guards, _ADDRESS.lower()))  # as torch does, too
        spec = spec_from_file_location(f"{path.stem}.{_KERNEL}", path)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return getattr(module, _KERNEL)

    def wait(self, scope: dict[str, Any]) -> None:
        """Have the kernels of other kinds be loaded, too."""
        if "_others" in vars(self):
            self._others.wait(scope)

    @cached_property
    def _others(self) -> Any:
        return importlib.import_module(f"{_COMPILER}.async_compile").AsyncCompile()

    def __getattr__(self, name: str) -> Any:
        def load(*args: Any, **kwargs: Any) -> Any:
            with without_workers():
                return getattr(self._others, name)(*args, **kwargs)

        return load


def source_digest(argtypes: Sequence[str], source: str) -> str:
    """The digest by which the file of a kernel is found."""
    return sha256("\n".join([*argtypes, source]).encode()).hexdigest()


@dataclass(frozen=True)
class _LateModule:
    """A module of the compiler, of which some things are `given`, and others imported once they are used."""

    _name: str
    _given: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        return self._given[name] if name in self._given else _Late(self._name, name)


@dataclass(frozen=True)
class _Late:
    """An object that a module of the compiler has under a name, or the module of that name in it."""

    _module: str
    _name: str

    def _imported(self) -> Any:
        module = importlib.import_module(self._module)
        if hasattr(module, self._name):
            return getattr(module, self._name)
        return importlib.import_module(f"{self._module}.{self._name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._imported()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._imported(), name)


@dataclass(frozen=True)
class _Operators:
    """The compiler's `extern_kernels`, imported for one that is not known."""

    _known: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        if name in self._known:
            return self._known[name]
        return getattr(importlib.import_module(f"{_COMPILER}.select_algorithm").extern_kernels, name)
