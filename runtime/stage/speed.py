"""Options that make a stage faster: torch.compile and CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from runtime.device.kinds import kind_of
from runtime.device.settings import KEEPS_MODULES
from runtime.errors import DeviceError
from runtime.manifest.digests import file_hash
from runtime.manifest.manifest import Manifest
from runtime.stage.callers import CALLERS, Callers
from runtime.stage.compiling.compiled_cache import CompiledCache, bytecode_folder, has_kept_graphs
from runtime.stage.compiling.compiled_stage import CompiledStage
from runtime.stage.compiling.compiler import OF_KERNELS, WHOLE, compiler_imported
from runtime.stage.compiling.early_launch import start_early
from runtime.stage.compiling.kept_graphs import KeptGraphs
from runtime.stage.compiling.repeated_layers import set_apart
from runtime.stage.compiling.step_graphs import fewer_kernels
from runtime.stage.cuda_graphs import GraphedStage, GraphMemory
from runtime.stage.linear.few_rows import uses_few_rows
from runtime.stage.recurring_shapes import OF_BATCHES, OF_TEXTS, Recurrence, RecurringShapes, has_room, random_states
from runtime.stage.stage import LoadedStage, ShapeKey, StageModule


@dataclass(frozen=True)
class Speed:
    """Options for all stages of a pipeline."""

    compile: bool = False  # by torch.compile: fewer and faster kernels
    cuda_graphs: bool | None = False  # one launch for all kernels of a stage; None: once a shape comes again
    folder: Path | None = None  # the artifact, beside which what is compiled is kept; None: nowhere
    recurrence: Recurrence = OF_BATCHES  # the rule by which stages record shapes by themselves
    keeps_graphs: bool = False  # whether graphs of compiled stages are kept there, which then run without the compiler
    beside_callers: bool = False  # whether callers in this process use devices, too, but while they wait for results

    def of_artifact(self, folder: Path, manifest: Manifest, beside_callers: bool = False) -> Speed:
        """The same for an artifact, without graphs recorded by themselves where they could leave out what a stage does.

        That is where a stage holds code of the user's: modules that were kept whole, operators, edits of its file.  All
        stages of a decoder record the same steps, those without pools, too: a step is launched where each has a graph.
        They do so whatever callers in this process do: its steps are many, and slow as long as one is not recorded.
        """
        users = _holds_code_of_users(folder, manifest)
        of_texts = bool(manifest.generation.page)
        return replace(
            self,
            folder=folder,
            cuda_graphs=False if self.cuda_graphs is None and users else self.cuda_graphs,
            recurrence=OF_TEXTS if of_texts else OF_BATCHES,
            keeps_graphs=self.compile and not users,
            beside_callers=beside_callers and not of_texts,
        )

    def imports(self, folder: Path, manifest: Manifest, devices: Mapping[int, torch.device]) -> Sequence[str]:
        """The modules of torch's compiler to be imported while stages of an artifact are loaded to their devices.

        Stages whose graphs are kept need what loads kernels to accelerators.  Code of the user's that imports parts of
        the compiler at the same time could find them half done.
        """
        if not self.compile or _holds_code_of_users(folder, manifest):
            return ()
        if any(not has_kept_graphs(folder, p.stages[i].module) for p in manifest.programs for i in devices):
            return WHOLE
        return OF_KERNELS if any(device.type != "cpu" for device in devices.values()) else ()

    def preparing(
        self, folder: Path, manifest: Manifest, devices: Mapping[int, torch.device]
    ) -> AbstractContextManager[None]:
        """A block in which stages are loaded to their devices, and at whose end they can be made faster."""
        imported = self.imports(folder, manifest, devices)
        return compiler_imported(bytecode_folder(folder), imported) if imported else nullcontext()

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
            cache = self._cache(stage)
            kept = KeptGraphs.of_stage(cache, module) if self.keeps_graphs else None
            whole = CompiledStage(module.call, cache, _compile_options(module, stage.device), kept)
            compiled = CompiledSteps(module.call, whole, module.new_tokens) if module.pools else whole
            module = replace(module, call=compiled, is_prepared=compiled.is_prepared)
        if memory is None:
            return module
        kept = [tensor for name, tensor in module.state.items() if name not in module.pools]
        graphed = partial(GraphedStage, module.call, kept, memory, module.addresses)
        if self.cuda_graphs:
            at_once = graphed(stage.kernels.finish)
            return replace(module, call=at_once, is_prepared=at_once.is_prepared, graphs=at_once.graph_of)
        later = graphed(stage.kernels.are_compiled)
        once = plain if module.pools else module  # a decoder's prefills have many shapes: only recorded ones compile
        recurring = RecurringShapes(
            once.call,
            later,
            partial(_may_record, stage, CALLERS if self.beside_callers else None),
            once.is_prepared,
            self.recurrence,
            partial(random_states, stage.device),
            CALLERS.kept if self.beside_callers else partial(nullcontext, True),
            bool(module.state),
        )
        return replace(module, call=recurring, is_prepared=recurring.is_prepared, graphs=recurring.graph_of)

    def _cache(self, stage: LoadedStage) -> CompiledCache | None:
        return None if self.folder is None else CompiledCache.of_artifact(self.folder, stage.device)


def _may_record(stage: LoadedStage, callers: Callers | None) -> bool:
    allowed = callers is None or callers.may_be_kept  # asked here, too: to record, a stage first waits for all others
    return allowed and stage.kernels.are_compiled() and has_room(stage.device)


def _holds_code_of_users(folder: Path, manifest: Manifest) -> bool:
    """Whether a stage has modules that were kept whole, operators of the user's, or edits of its file."""
    files = {stage.module for program in manifest.programs for stage in program.stages}
    there = [name for name in files if (folder / name).is_file()]  # the loader says which is missing
    edited = any(file_hash(folder / name) != manifest.files.get(name) for name in there)
    return KEEPS_MODULES in manifest.settings or bool(manifest.operators) or edited


AS_IT_IS = Speed()
EARLY_LAUNCH = (("triton.enable_pdl", True),)  # kernels begin before those before them have ended, as few_rows.py's do


def _compile_options(module: StageModule, device: torch.device) -> Mapping[str, Any]:
    """Those of torch.compile; of a decoder, whose steps have many shapes, layers that are alike are compiled apart."""
    if not module.pools:
        return {}
    early = uses_few_rows(module.module) and start_early()
    options: dict[str, Any] = {"dynamic": True, "options": dict(EARLY_LAUNCH if early else kind_of(device).decoding)}
    options["options"]["post_grad_custom_pre_pass"] = fewer_kernels()
    set_apart(module.module, options)
    return options


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
