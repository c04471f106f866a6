"""The compiled graphs of a stage that are kept beside the artifact: the next load runs them without the compiler."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from runtime.device.settings import torch_settings
from runtime.manifest.digests import digest_of, file_hash
from runtime.stage.compiling.compiled_cache import CompiledCache
from runtime.stage.compiling.kept_graph import GraphRecord, KeptGraph, Operand
from runtime.stage.compiling.observed_graph import ObservedGraph, kernel_files, operators_of_torch
from runtime.stage.stage import ShapeKey, StageModule

_FORMAT = 1  # of these files
_DECIDE = ("TORCHINDUCTOR_", "TORCHDYNAMO", "TORCH_COMPILE", "TRITON_")  # variables that change what is compiled
_PLACES = ("_DIR", "_PATH")  # ends of those that only say where files lie
_CONFIGS = ("torch._inductor.config", "torch._functorch.config")
_OF_TORCH = "compile_threads"  # a setting of these that torch itself makes
_ATTENTION = ("flash_sdp_enabled", "mem_efficient_sdp_enabled", "math_sdp_enabled", "cudnn_sdp_enabled")


@dataclass(frozen=True)
class KeptGraphs:
    """The kept graphs of a stage's module, one for each shape of batches."""

    cache: CompiledCache
    module: nn.Module
    _found: dict[ShapeKey, KeptGraph | None] = field(default_factory=dict)
    _kept: dict[ShapeKey, Any] = field(default_factory=dict)  # torch's graphs that are kept by now

    @classmethod
    def of_stage(cls, cache: CompiledCache | None, module: StageModule) -> KeptGraphs | None:
        """None for a stage that has state, or runs code that is neither its file's nor torch's: graphs are not kept."""
        if cache is None or module.entry.state or not _is_all_written(module.module):
            return None
        return cls(cache, module.module)

    def find(self, key: ShapeKey, tensors: Sequence[Tensor]) -> KeptGraph | None:
        """The graph for batches of a shape, as `tensors` are, if there is one.  Warns of one that is damaged."""
        if key not in self._found:
            self._found[key] = None
            file = self._file(key, tensors)
            if file.is_file() and not torch.is_grad_enabled():
                try:
                    with self.cache.used():
                        self._found[key] = GraphRecord.read(file, self._folder).load(self._folder, self._weights)
                except Exception as e:  # the code may be of any version of torch
                    self.forget(key, e)
        return self._found[key]

    def look_again(self) -> None:
        """Forget which graphs were found: settings have changed, which decide that."""
        self._found.clear()

    def forget(self, key: ShapeKey, why: Exception) -> None:
        """Have a graph that failed not be found again, and warn of it."""
        self._found[key] = None
        what = f"a compiled graph in {self.cache.folder} cannot be used, and is made again"
        warnings.warn(f"{what}: {type(why).__name__}: {why}", stacklevel=2)

    def keep(self, key: ShapeKey, tensors: Sequence[Tensor], sent: object, graphs: Sequence[ObservedGraph]) -> None:
        """Keep the graph that made what the stage sent for `tensors`, unless several did, or other code, too."""
        if len(graphs) != 1 or torch.is_grad_enabled() or self._kept.get(key) is graphs[0].graph:
            return
        with suppress(Exception), self.cache.used():  # the folder may be read alone, and torch be of any version
            file = self._file(key, tensors)
            record = self._record(file.with_suffix(".py"), tensors, sent, graphs[0])
            if record is not None:
                _write(file, record.text())
                self._kept[key] = graphs[0].graph

    def _record(self, file: Path, tensors: Sequence[Tensor], sent: object, graph: ObservedGraph) -> GraphRecord | None:
        """None if an input is none of the stage's, or what it sent is neither a result of the graph nor such an input.

        `file`: for the code.
        """
        known = _operands(self._weights, tensors)
        made = {id(tensor): ("result", i) for i, tensor in enumerate(graph.made)}
        inputs = [("size", one) if type(one) is int else known.get(id(one)) for one in graph.given]
        outputs = [(known | made).get(id(one)) for one in sent] if isinstance(sent, tuple) else [None]
        if not graph.is_plain or None in (*inputs, *outputs):
            return None
        _write(file, graph.code)
        libraries = {digest: self._name(path) for digest, path in kernel_files(graph.code).items()}
        return GraphRecord(
            self._name(file),
            [one for one in inputs if one],
            [one for one in outputs if one],
            graph.aligned,
            operators_of_torch(graph.code),
            libraries,
            {name: file_hash(self._folder / name) for name in (self._name(file), *libraries.values())},
        )

    def _file(self, key: ShapeKey, tensors: Sequence[Tensor]) -> Path:
        shape = [[[*size], [*stride]] for size, stride in key[0]], [[*number] for number in key[1]]
        kinds = [[str(tensor.dtype), str(tensor.device)] for tensor in tensors]
        return self.cache.graph_file(self._module, digest_of([_FORMAT, self._described, shape, kinds, _settings()]))

    def _name(self, path: Path) -> str:
        """Raises ValueError for a file that is not of the cache."""
        return str(path.resolve().relative_to(self._folder))

    @property
    def _folder(self) -> Path:
        return self.cache.folder.resolve()

    @cached_property
    def _weights(self) -> dict[str, Tensor]:
        return {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}

    @cached_property
    def _module(self) -> str:
        """The name of the module's file."""
        return Path(str(sys.modules[type(self.module).__module__].__file__)).name

    @cached_property
    def _described(self) -> Any:
        """The classes and tensors of the module.  What else there is of it, its file says, which the cache is for."""
        classes = [[name, type(module).__qualname__] for name, module in self.module.named_modules()]
        return [self._module, classes, {name: _kind(tensor) for name, tensor in self._weights.items()}]


def _kind(tensor: Tensor) -> Any:
    return [[*tensor.shape], [*tensor.stride()], str(tensor.dtype), str(tensor.device)]


def _is_all_written(stage: nn.Module) -> bool:
    """Whether all modules of a stage are of its file's classes, or torch's, without hooks."""
    own = type(stage).__module__
    return all(
        (type(module).__module__ == own or type(module).__module__.startswith("torch.nn."))
        and not (module._forward_hooks or module._forward_pre_hooks)
        for module in stage.modules()
    )


def _operands(weights: Mapping[str, Tensor], tensors: Sequence[Tensor]) -> dict[int, Operand]:
    """The operands that tensors are, by their ids; not those that the stage receives twice, which are ambiguous."""
    known: dict[int, Operand] = {id(tensor): ("weight", name) for name, tensor in weights.items()}
    ids = [id(tensor) for tensor in tensors]
    return known | {id(tensor): ("tensor", i) for i, tensor in enumerate(tensors) if ids.count(id(tensor)) == 1}


def _settings() -> Any:
    """All of this process that decides what is compiled, as it is now: a cache is for the settings of the load."""
    variables = {
        name: value for name, value in os.environ.items() if name.startswith(_DECIDE) and not name.endswith(_PLACES)
    }
    attention = [getattr(torch.backends.cuda, name)() for name in _ATTENTION]
    others = [sys.version, torch.get_num_threads(), torch.backends.mkldnn.enabled, torch.is_autocast_enabled("cpu")]
    return [*others, torch_settings(), attention, variables, [_changed(config) for config in _CONFIGS]]


def _changed(config: str) -> list[str]:
    """The settings of a part of torch's compiler that are not the default ones: none before it is imported."""
    module: Any = sys.modules.get(config)
    if module is None:
        return []
    values = module._get_dict(ignored_keys=[_OF_TORCH], skip_default=True).items()
    return sorted(f"{name} = {value}" for name, value in values if value != module._config[name].default)


def _write(file: Path, text: str) -> None:
    """Write a file that others read as a whole, or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    written = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        written.write_text(text)
        os.replace(written, file)
    except OSError:  # a part of it would take what room is left
        written.unlink(missing_ok=True)
        raise
