"""An artifact folder -> stages in memory."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from threading import RLock
from types import ModuleType

import torch
from torch import nn

from runtime.caller import warn_caller
from runtime.device.kinds import kind_of
from runtime.errors import ManifestError, text_of
from runtime.manifest.digests import file_hash, sample_hash
from runtime.manifest.manifest import FILE, CheckpointFile, Manifest, Operator, ProgramStage, is_sealed
from runtime.stage.added_adapters import added_files, with_added
from runtime.stage.helper_kernels import HelperKernels
from runtime.stage.linear.column_blocks import use_blocks
from runtime.stage.linear.few_rows import use_few_rows
from runtime.stage.linear.merged_linear import merge_linear
from runtime.stage.linear.packed_linear import pack_linear
from runtime.stage.linear.quantized_layout import lay_out_quantized
from runtime.stage.speed import AS_IT_IS, Speed
from runtime.stage.stage import LoadedStage, StageModule
from runtime.stage.uninitialized import Uninitialized

_IMPORTING = RLock()  # held while a file is imported, as this changes the path and the modules of the process


def load_stages(
    folder: Path,
    manifest: Manifest,
    devices: Sequence[torch.device],
    *,
    strict: bool,
    speed: Speed = AS_IT_IS,
    indices: Collection[int] | None = None,
    checked: bool = False,
) -> tuple[LoadedStage, ...]:
    """Load each stage, or those with the `indices`, onto its device, as many at once as there are devices.

    A stage file or a manifest that was edited runs with a warning.  `strict` refuses it, and reads every weights file
    once more to compare it with its hash.  Files of a checkpoint are compared by length and a sample of their bytes,
    since they can have 100 GB and more.  `devices`: one for each stage of the manifest.  `checked`: whether this
    process, or another one, has called `check_stages`.

    Raises ManifestError for a file that is missing, damaged or, if `strict`, changed; DeviceError if a device does
    not support `speed`.
    """
    chosen = range(len(manifest.stages)) if indices is None else sorted(indices)
    for index in chosen:
        speed.require_supported(index, devices[index])
    if not checked:
        check_stages(folder, manifest, chosen, strict)
    helpers = {Path(name).stem: import_file(folder / name) for name in manifest.helpers}
    files = {
        i: [import_file(folder / program.stages[i].module, helpers) for program in manifest.programs] for i in chosen
    }
    adapters = added_files(folder, manifest)

    def load(index: int) -> LoadedStage:
        weights, device = folder / manifest.stages[index].weights, devices[index]
        entries, sizes = [program.stages[index] for program in manifest.programs], manifest.generation.sizes
        modules = _load_modules(files[index], entries, weights, device, sizes, adapters)
        if manifest.generation.page:
            _make_linear_faster(modules, folder, manifest, device, speed)
        if kind_of(device).blocks_linear and not speed.compile:
            use_blocks([program.module for program in modules])
        stage = LoadedStage.from_modules(index, device, modules)
        return replace(stage, kernels=HelperKernels([*helpers.values()]))

    workers = len({devices[i] for i in chosen})
    preparing = speed.preparing(folder, manifest, {i: devices[i] for i in chosen})
    with preparing, ThreadPoolExecutor(workers, thread_name_prefix="load") as pool:
        loaded = [*pool.map(load, chosen)]
    return tuple(map(speed.apply, loaded))


def _edited(folder: Path, manifest: Manifest, modules: Sequence[StageModule]) -> bool:
    files = [module.entry.module for module in modules]
    return any(file_hash(folder / name) != manifest.files.get(name) for name in files)


def _make_linear_faster(
    modules: Sequence[StageModule], folder: Path, manifest: Manifest, device: torch.device, speed: Speed
) -> None:
    """Give the linear layers of a decoder's stage the form that is fastest on its device."""
    if kind_of(device).packs_linear and not speed.compile:
        pack_linear([program.module for program in modules])
    if kind_of(device).merges_linear and not _edited(folder, manifest, modules):
        _merge_linear(modules, manifest, device)
    use_few_rows([program.module for program in modules])


def _merge_linear(modules: Sequence[StageModule], manifest: Manifest, device: torch.device) -> None:
    """Merge linear layers of a decoder of one program: several would hold each its own copies of the weights."""
    if len(modules) == 1:
        module, entry, nodes = modules[0].module, modules[0].entry, manifest.programs[0].nodes
        merge_linear(module, entry, nodes)
        lay_out_quantized(module, entry, nodes)
        if device.type != "cpu":
            torch.get_device_module(device).empty_cache()  # what the parts took, before others look for room


def check_stages(folder: Path, manifest: Manifest, chosen: Sequence[int], strict: bool) -> None:
    """Raise ManifestError, or warn, as `load_stages` does, of the manifest and the files of the chosen stages."""
    if manifest.seal and not is_sealed(folder):  # one that was written by hand has none
        _tell_edited(f"{FILE} differs from its seal", strict)
    for name in manifest.helpers:
        _require_file(folder / name)
        _check_hash(folder, name, manifest, strict)
    for file in added_files(folder, manifest):
        _require_file(file)
        _check_hash(folder, str(file.relative_to(folder)), manifest, strict)
    for i in chosen:
        weights, modules = manifest.stages[i].weights, [program.stages[i].module for program in manifest.programs]
        for name in (*modules, weights):
            _require_file(folder / name)
        for name in (*modules, *[weights] * strict):
            _check_hash(folder, name, manifest, strict)
    for operator in manifest.operators:
        if not set(chosen).isdisjoint(operator.stages):
            _require_operator(folder, operator)
    for link in manifest.links:
        if not set(chosen).isdisjoint(link.stages):
            _check_link(folder, link)


def _require_operator(folder: Path, operator: Operator) -> None:
    """Raises ManifestError unless an operator from outside torch is registered, or a stage file can have it be."""
    namespace, _, name = operator.name.partition("::")
    if hasattr(getattr(torch.ops, namespace), name):
        return
    runs = f"{', '.join(f'stage_{i}' for i in operator.stages)} runs the operator {operator.name}"
    if not operator.module:
        raise ManifestError(f"{runs}; import what registers it first")
    top = operator.module.partition(".")[0]
    if importlib.util.find_spec(top) is None and not ((folder / f"{top}.py").is_file() or (folder / top).is_dir()):
        of = f"{operator.library} {operator.version}" if operator.library else operator.module
        raise ManifestError(f"{runs} of {of}, which is not installed here")


def _check_link(folder: Path, link: CheckpointFile) -> None:
    """Raises ManifestError unless a file of the checkpoint is as it was when the stages were cut."""
    path, readers = folder / link.path, ", ".join(f"stage_{i}" for i in link.stages)
    if not path.is_file():
        raise ManifestError(
            f"{path} is missing, where the weights of {readers} lie; put the checkpoint back, or compile again"
        )
    if path.stat().st_size != link.nbytes or sample_hash(path) != link.sample:
        raise ManifestError(
            f"{path}, where the weights of {readers} lie, has changed since they were cut; compile the model again"
        )


def _check_hash(folder: Path, name: str, manifest: Manifest, strict: bool) -> None:
    if file_hash(folder / name) == manifest.files.get(name):
        return
    _tell_edited(f"{name} differs from the manifest", strict)


def _tell_edited(fault: str, strict: bool) -> None:
    if strict:
        raise ManifestError(f"{fault}: it was edited; load it without strict to run it")
    warn_caller(f"{fault}: it was edited")


def _load_modules(
    files: Sequence[ModuleType],
    programs: Sequence[ProgramStage],
    weights: Path,
    device: torch.device,
    sizes: Mapping[str, int],
    adapters: Sequence[Path],
) -> list[StageModule]:
    """The modules of one stage, with pools of the `sizes`, and the added `adapters` behind those that it has.

    Each takes the tensors that those before it hold, and reads the others.
    """
    modules: list[StageModule] = []
    held: dict[str, torch.Tensor] = {}
    for file, program in zip(files, programs, strict=True):
        module = _load_module(file, program.cls, weights, device, held, sizes)
        with_added(module, adapters, held)
        held.update(module.named_parameters(remove_duplicate=False))
        held.update(module.named_buffers(remove_duplicate=False))
        modules.append(StageModule(program, module, module))
    return modules


def _load_module(
    file: ModuleType,
    name: str,
    weights: Path,
    device: torch.device,
    held: Mapping[str, torch.Tensor],
    sizes: Mapping[str, int],
) -> nn.Module:
    cls = getattr(file, name, None)
    if cls is None:
        raise ManifestError(f"{file.__file__} has no class {name}")
    try:
        taken = {name: size for name, size in sizes.items() if name in inspect.signature(cls.load).parameters}
        with Uninitialized():
            return cls.load(weights, device, held, **taken) if held else cls.load(weights, device, **taken)
    except Exception as e:  # the file may be edited, and its weights be anything
        why = f"{type(e).__name__}: {text_of(e)}"
        raise ManifestError(
            f"{Path(str(file.__file__)).name} cannot read {weights}: {why}; compile the model again"
        ) from e


def import_file(path: Path, helpers: Mapping[str, ModuleType] | None = None) -> ModuleType:
    """The module of a file of an artifact, under a name unique to the path.

    `helpers` are what it imports by their names, whatever modules of these names there are: each artifact has its own.
    Raises ManifestError if it cannot be imported.

    Without importlib's file loader, which leaves a bytecode cache in the folder that may hide an edit made in the
    same second.
    """
    name = f"stagecut_{sha256(str(path.resolve()).encode()).hexdigest()[:12]}_{path.stem}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # where dataclasses, inspect and pickle look for it
    with _IMPORTING, _patched(sys.modules, helpers or {}):
        sys.path.append(str(path.parent))  # for files of the user whose classes a stage uses unchanged
        try:
            exec(compile(path.read_bytes(), path, "exec"), vars(module))
        except Exception as e:
            del sys.modules[name]
            raise ManifestError(f"cannot import {path}: {type(e).__name__}: {text_of(e)}") from e
        finally:
            sys.path.remove(str(path.parent))
    return module


@contextmanager
def _patched(table: dict[str, ModuleType], entries: Mapping[str, ModuleType]) -> Iterator[None]:
    """A block in which a table has these entries; what it had under their names is back at the end."""
    before = {name: table[name] for name in entries if name in table}
    table.update(entries)
    try:
        yield
    finally:
        for name in entries:
            del table[name]
        table.update(before)


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise ManifestError(f"{path} is missing; compile the model again")
