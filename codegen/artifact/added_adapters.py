"""Adapters that an artifact gets once it is written: matrices of the sizes of those that it keeps, a file each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from codegen.artifact.weights import StageTensor, write_copies
from ir.checkpoint.adapters import Adapter
from ir.checkpoint.kept_adapters import adapter_stacks
from ir.checkpoint.tensors import Held
from ir.errors import OutputError, SourceError
from runtime.errors import ManifestError
from runtime.manifest.manifest import ADAPTER, Manifest, ProgramEntry, added_adapter, with_promises


def add_adapter(artifact: Path, adapter: Path, name: str = "") -> str:
    """Add the LoRA adapter of a folder to an artifact that keeps some; returns its name, by default the folder's.

    Raises SourceError where the artifact keeps none, or none of these layers and ranks, and OutputError where it cannot
    be written; it is then as it was.
    """
    try:
        manifest = Manifest.read(artifact)
    except ManifestError as e:
        raise SourceError(str(e)) from e
    name = name or adapter.resolve().name
    if not manifest.adapters:
        raise SourceError(
            f"{artifact} keeps no adapters: compile it with one, as in --adapter {adapter} --adapter keep"
        )
    if Path(name).name != name:
        raise SourceError(f"{artifact} cannot have an adapter {name!r}: a name has no folders")
    if name in manifest.adapters:
        raise SourceError(f"{artifact} cannot have an adapter {name!r}: {', '.join(manifest.adapters)} are there")
    stacks = adapter_stacks(Adapter.open(adapter), _shapes(manifest))
    tensors = {name: StageTensor(Held(stack), stack.dtype) for name, stack in stacks.items()}
    try:
        _write(artifact, manifest, name, tensors)
    except OSError as e:
        raise OutputError(f"cannot write to {artifact}: {e.strerror}") from e
    return name


def _write(artifact: Path, manifest: Manifest, name: str, tensors: Mapping[str, StageTensor]) -> None:
    """Write the file of an adapter, and then the manifest that has it; the file is gone where one of them fails."""
    file = artifact / added_adapter(name)
    try:
        file.parent.mkdir(exist_ok=True)
        digest, _ = write_copies(file, tensors)
        files = {**manifest.files, added_adapter(name): digest}
        programs = tuple(map(_with_one_more, manifest.programs))
        more = replace(manifest, files=files, programs=programs, adapters=(*manifest.adapters, name))
        with_promises(more).write_sealed(artifact)
    except Exception:  # not an interrupt, which may come once the manifest has it
        with suppress(OSError):
            file.unlink(missing_ok=True)
            file.parent.rmdir()
        raise


def _shapes(manifest: Manifest) -> Mapping[str, tuple[int, ...]]:
    """The shapes of the tensors that stages hold, by name."""
    held = (stage.holds for program in manifest.programs for stage in program.stages)
    return {name: tuple(map(int, tensor.shape)) for of_one in held for name, tensor in of_one.items()}


def _with_one_more(program: ProgramEntry) -> ProgramEntry:
    """A program whose rows may choose an adapter more, if they choose any."""
    if (known := program.index_ranges.get(ADAPTER)) is None:
        return program
    return replace(program, index_ranges={**program.index_ranges, ADAPTER: (known[0] - 1, known[1] + 1)})
