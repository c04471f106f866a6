"""Options that make a stage faster: torch.compile and CUDA graphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from runtime.device.kinds import kind_of
from runtime.device.settings import KEEPS_MODULES
from runtime.errors import DeviceError
from runtime.manifest.digests import file_hash
from runtime.manifest.manifest import Manifest
from runtime.stage.compiling.compiled_cache import CompiledCache, bytecode_folder
from runtime.stage.compiling.compiler import compiler_imported, warnings_shown
from runtime.stage.compiling.early_launch import start_early
from runtime.stage.compiling.repeated_layers import set_apart
from runtime.stage.compiling.step_graphs import fewer_kernels
from runtime.stage.cuda_graphs import GraphedStage, GraphMemory
from runtime.stage.linear.few_rows import uses_few_rows
from runtime.stage.recurring_shapes import OF_TEXTS, NotCompilable, RecurringShapes, has_room
from runtime.stage.stage import LoadedStage, ShapeKey, StageModule, shape_key


@dataclass(frozen=True)
class Speed:
    """Options for all stages of a pipeline."""

    compile: bool = False  # by torch.compile: fewer and faster kernels
    cuda_graphs: bool | None = False  # one launch for all kernels of a stage; None: once a shape comes again
    folder: Path | None = None  # the artifact, beside which what is compiled is kept; None: nowhere

    def of_artifact(self, folder: Path, manifest: Manifest) -> Speed:
        """The same for an artifact, without graphs recorded by themselves where they could leave out what a stage does.

        That is where a stage holds code of the user's: modules that were kept whole, operators, edits of its file.
        """
        speed = replace(self, folder=folder)
        if self.cuda_graphs is not None:
            return speed
        return replace(speed, cuda_graphs=False) if _holds_code_of_users(folder, manifest) else speed

    def imports_compiler(self, folder: Path, manifest: Manifest) -> bool:
        """Whether torch's compiler may be imported while the stages of an artifact are loaded.

        Code of the user's that imports parts of it at the same time could find them half done.
        """
        return self.compile and not _holds_code_of_users(folder, manifest)

    def preparing(self, folder: Path, manifest: Manifest) -> AbstractContextManager[None]:
        """A block in which stages are loaded, and at whose end they can be made faster."""
        return compiler_imported(bytecode_folder(folder)) if self.imports_compiler(folder, manifest) else nullcontext()

    def require_supported(self, stage: int, device: torch.device) -> None:
        """Raises DeviceError if the device of a stage does not support these options."""
        if self.cuda_graphs and not kind_of(device).graph:
            raise DeviceError(
                f"CUDA graphs need CUDA devices, and stage {stage} is on {device}; run the pipeline without them"
            )

    def apply(self, stage: LoadedStage) -> LoadedStage:
        """The stage with these options.  Raises DeviceError if its device does not support them."""
        self.require_supported(stage.index, stage.device)
        has_graphs = bool(kind_of(stage.device).graph)
        memory = GraphMemory.on(stage.device) if has_graphs and self.cuda_graphs is not False else None
        return replace(stage, programs=tuple(self._faster(program, stage, memory) for program in stage.programs))

    def _faster(self, module: StageModule, stage: LoadedStage, memory: GraphMemory | None) -> StageModule:
        plain = module
        if self.compile:
            whole = CompiledStage(module.call, self._cache(stage), _compile_options(module, stage.device))
            compiled = CompiledSteps(module.call, whole, module.new_tokens) if module.pools else whole
            module = replace(module, call=compiled, is_prepared=compiled.is_prepared)
        if memory is None:
            return module
        kept = [tensor for name, tensor in module.state.items() if name not in module.pools]
        graphed = GraphedStage(module.call, kept, memory, module.addresses)
        has_room_here = partial(has_room, stage.device)
        if self.cuda_graphs:
            return replace(module, call=graphed, is_prepared=graphed.is_prepared, graphs=graphed.graph_of)
        if module.pools:  # a decoder's prefills have many shapes: only what is recorded is compiled
            recurring = RecurringShapes(plain.call, graphed, has_room_here, plain.is_prepared, OF_TEXTS)
        else:
            recurring = RecurringShapes(module.call, graphed, has_room_here, module.is_prepared)
        return replace(module, call=recurring, is_prepared=recurring.is_prepared, graphs=recurring.graph_of)

    def _cache(self, stage: LoadedStage) -> CompiledCache | None:
        return None if self.folder is None else CompiledCache.of_artifact(self.folder, stage.device)


def _holds_code_of_users(folder: Path, manifest: Manifest) -> bool:
    """Whether a stage has modules that were kept whole, operators of the user's, or edits of its file."""
    files = {stage.module for program in manifest.programs for stage in program.stages}
    edited = any(file_hash(folder / name) != manifest.files.get(name) for name in files)
    return KEEPS_MODULES in manifest.settings or bool(manifest.operators) or edited


AS_IT_IS = Speed()
COMPILES = 2  # calls of a shape that may compile: torch takes tensors for others in the second one, inside of operators
EARLY_LAUNCH = (("triton.enable_pdl", True),)  # kernels begin before those before them have ended, as few_rows.py's do
VARIANTS = 128  # of a module: sizes that are 1, others, and all combinations of these


def _compile_options(module: StageModule, device: torch.device) -> Mapping[str, Any]:
    """Those of torch.compile; of a decoder, whose steps have many shapes, layers that are alike are compiled apart."""
    if not module.pools:
        return {}
    early = uses_few_rows(module.module) and start_early()
    options: dict[str, Any] = {"dynamic": True, "options": dict(EARLY_LAUNCH if early else kind_of(device).decoding)}
    options["options"]["post_grad_custom_pre_pass"] = fewer_kernels()
    set_apart(module.module, options)
    return options


class CompiledStage:
    """A stage's module under torch.compile.  A class of repeated layers is compiled once: stage files mark them so."""

    def __init__(
        self, call: Callable[..., object], cache: CompiledCache | None = None, options: Mapping[str, Any] | None = None
    ) -> None:
        """`cache`: where what is compiled is kept; without one, where torch keeps it.  `options`: of torch.compile."""
        self._call = call
        self._cache = cache
        self._options = options or {}
        self._calls: Counter[ShapeKey] = Counter()  # in which something could be compiled

    @cached_property
    def _faster(self) -> Callable[..., object]:
        """The module under torch.compile, made at the first call: the compiler takes seconds to import."""
        return torch.compile(self._call, **self._options)

    def is_prepared(self, key: ShapeKey) -> bool:
        """Whether it has run for these shapes, so that nothing is left to compile."""
        return self._calls[key] >= COMPILES

    def __call__(self, *tensors: torch.Tensor, **sizes: int) -> object:
        """Raises NotCompilable."""
        key = shape_key(tensors, sizes)
        if self.is_prepared(key):
            return self._faster(*tensors, **sizes)
        from torch._dynamo.exc import TorchDynamoException  # takes a second to import

        try:
            with warnings_shown(), _for_many_sizes(), self._cache_used():
                made = self._faster(*tensors, **sizes)
        except TorchDynamoException as e:
            raise NotCompilable(f"it cannot be compiled; run it without compile: {e}") from e
        self._calls[key] += 1
        return made

    def _cache_used(self) -> AbstractContextManager[None]:
        return self._cache.used() if self._cache else nullcontext()


class CompiledSteps:
    """A decoder's module of which steps of one new token a text are compiled, and chunks of prompts run as they are.

    Those are bound by large products, which are the same compiled, and would take as long to compile again.
    """

    def __init__(
        self, call: Callable[..., object], compiled: CompiledStage, new_tokens: tuple[int, int] | None
    ) -> None:
        """`new_tokens`: the place of a tensor, and its dimension that is the number of new tokens of a text."""
        self._call, self._compiled = call, compiled
        self._new_tokens = new_tokens

    def _is_step(self, shapes: Sequence[torch.Size]) -> bool:
        return self._new_tokens is None or shapes[self._new_tokens[0]][self._new_tokens[1]] == 1

    def is_prepared(self, key: ShapeKey) -> bool:
        """Whether nothing is left to compile for these shapes."""
        return self._compiled.is_prepared(key) or not self._is_step([shape for shape, _ in key[0]])

    def __call__(self, *tensors: torch.Tensor, **sizes: int) -> object:
        """Raises NotCompilable."""
        is_step = self._is_step([tensor.shape for tensor in tensors])
        return self._compiled(*tensors, **sizes) if is_step else self._call(*tensors, **sizes)


@contextmanager
def _for_many_sizes() -> Iterator[None]:
    """A block in which a size that equals another one, or a fixed one, by chance may still differ from it later."""
    from torch._dynamo import config
    from torch.fx.experimental import _config

    sizes: Any = _config
    # A float of a module is fixed from the start, or all is traced once more when that shows.
    with config.patch(recompile_limit=VARIANTS, specialize_float=True), sizes.patch(use_duck_shape=False):
        yield
