"""Adapters that an artifact gets once it is written: matrices of the sizes of those that it keeps, a file each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from codegen.artifact.manifest import read_manifest
from codegen.artifact.weights import StageTensor, write_copies
from ir.checkpoint.adapters.adapter import Adapter
from ir.checkpoint.adapters.kept import adapter_stacks
from ir.checkpoint.tensors import Held
from ir.errors import OutputError, SourceError
from runtime.manifest.digests import file_hash
from runtime.manifest.manifest import ADAPTER, Manifest, ProgramEntry, added_adapter, is_sealed
from runtime.manifest.promises import promise_of, with_promises


def add_adapter(artifact: Path, adapter: Path, name: str = "") -> str:
    """Add the LoRA adapter of a folder to an artifact that keeps some; returns its name, by default the folder's.

    Raises SourceError where the artifact keeps none, or none of these layers and ranks, and OutputError where it cannot
    be written; it is then as it was.
    """
    manifest = read_manifest(artifact)
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
        _write(artifact, manifest, name, lambda file: write_copies(file, tensors)[0])
    except OSError as e:
        raise OutputError(f"cannot write to {artifact}: {e.strerror}") from e
    return name


def carry_adapters(files: Iterable[Path], artifact: Path) -> list[Path]:
    """Add the files of adapters that were added to another cut of the same graph; returns the new ones.

    Raises OSError.
    """
    for file in files:
        _write(artifact, Manifest.read(artifact), file.stem, partial(_copied, file))
    return [artifact / added_adapter(file.stem) for file in files]


def _copied(file: Path, to: Path) -> str:
    return file_hash(Path(shutil.copy(file, to)))


def _write(artifact: Path, manifest: Manifest, name: str, write: Callable[[Path], str]) -> None:
    """Write the file of an adapter, and then the manifest that has it; the file is gone where one of them fails.

    `write` returns the sha256 of what it wrote.  A manifest that was edited is as much so afterwards: it gets neither a
    new seal nor new promises.
    """
    file = artifact / added_adapter(name)
    sealed = is_sealed(artifact)
    try:
        file.parent.mkdir(exist_ok=True)
        files = {**manifest.files, added_adapter(name): write(file)}
        programs = tuple(map(_with_one_more, manifest.programs))
        more = replace(manifest, files=files, programs=programs, adapters=(*manifest.adapters, name))
        kept = [p.promise in ("", promise_of(manifest, p)) for p in manifest.programs]
        promised = zip(with_promises(more).programs, more.programs, kept, strict=True)
        more = replace(more, programs=tuple(new if whole else old for new, old, whole in promised))
        more.write_sealed(artifact) if sealed else more.write(artifact)
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
