"""A graph that torch's compiler has made, observed as it runs: its code and files, its inputs and its results."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from runtime.stage.compiling.generated_code import run_code, source_digest

_OPERATOR = re.compile(r"\bextern_kernels\.(\w+)")
_HELD = ("constants", "frozen_param_names", "torchbind_constants", "opaque_value_type_classes")
_CHANGED = ("mutated_inputs", "mutated_input_idxs")


@dataclass(frozen=True)
class ObservedGraph:
    """A compiled graph that has run."""

    graph: Any  # torch's CompiledFxGraph
    given: Sequence[Any]
    made: Sequence[Any]

    @property
    def is_plain(self) -> bool:
        """Whether its code is all of it: it holds nothing, and changes none of its inputs."""
        return not any(getattr(self.graph, name, None) for name in (*_HELD, *_CHANGED))

    @property
    def code(self) -> str:
        from torch._inductor.codecache import get_path  # takes a second to import, unless graphs ran

        return Path(get_path(self.graph.cache_key, "py")[2]).read_text()

    @property
    def aligned(self) -> list[int]:
        """The places of the inputs that its kernels take to be aligned."""
        return [*self.graph.inputs_to_check]


@contextmanager
def graphs_observed() -> Iterator[list[ObservedGraph]]:
    """A block in which graphs, as they have run in any thread, are added to a list."""
    from torch._inductor.output_code import CompiledFxGraph  # takes a second to import

    graphs: Any = CompiledFxGraph
    run, observed = graphs.__call__, list[ObservedGraph]()

    def observe(graph: Any, inputs: Sequence[Any]) -> Any:
        given = [*inputs]  # the graph empties its own
        made = run(graph, inputs)
        observed.append(ObservedGraph(graph, given, [*made] if isinstance(made, list | tuple) else [made]))
        return made

    graphs.__call__ = observe
    try:
        yield observed
    finally:
        graphs.__call__ = run


def kernel_files(code: str) -> dict[str, Path]:
    """The files of the kernels for CPUs that generated code loads, by the digests of their sources."""
    found = _KernelFiles()
    run_code(code, found, {})
    return found.paths


@dataclass(frozen=True)
class _KernelFiles:
    """Takes the place of torch's AsyncCompile."""

    paths: dict[str, Path] = field(default_factory=dict)

    def cpp_pybinding(self, argtypes: Sequence[str], source: str) -> Any:
        from torch._inductor.codecache import CppPythonBindingsCodeCache  # takes a second to import, unless graphs ran

        kernel = CppPythonBindingsCodeCache.load_pybinding([*argtypes], source)
        self.paths[source_digest(argtypes, source)] = Path(kernel.__self__.__file__)
        return kernel

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None  # loads kernels for other devices, which torch finds by their sources


def operators_of_torch(code: str) -> list[str]:
    """Those operators that code has from the compiler's `extern_kernels`, and that are torch's under the same names."""
    from torch._inductor.select_algorithm import extern_kernels  # takes a second to import, unless graphs ran

    names = sorted({*_OPERATOR.findall(code)})
    return [
        name for name in names if hasattr(torch, name) and getattr(extern_kernels, name, None) is getattr(torch, name)
    ]
