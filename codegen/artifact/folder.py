"""The output folder: checked before anything takes time, filled beside its place, and moved there whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from itertools import count
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any

from ir.errors import OutputError
from ir.text.names import listed_names
from runtime.manifest import manifest as m
from runtime.manifest.digests import file_hash, seal_of

BY_NAME = ("passes/[0-9][0-9]-*.txt", "compiled/*", "__pycache__/*.pyc", m.FILE)  # ours without a hash


def check_replaceable(out: Path, *, force: bool = False, inputs: Iterable[Path] = ()) -> Path:
    """The absolute path of the folder `out`, which can be written and whose replacement loses nothing.

    `inputs` are files and folders that the model is read from.  With `force`, files in the way are no hindrance.
    Raises OutputError where it is no folder, cannot be written, holds the working directory or one of the
    `inputs`, or holds files that stagecut did not write or that were edited since, or adapters that were added.
    """
    try:
        place = out.resolve() if out.name in ("", "..") else out.parent.resolve() / out.name
        _check_place(out, place)
        _check_holds(out, place, inputs)
        if not force:
            _check_files(out, place)
        with _made(place), TemporaryDirectory(prefix=".stagecut-", dir=place.parent):
            return place
    except (OSError, ValueError, RuntimeError) as e:  # ValueError: a NUL in the name; RuntimeError: links in a circle
        raise _unwritable(out, e) from e


@contextmanager
def new_folder(out: Path, *, force: bool = False, inputs: Iterable[Path] = ()) -> Iterator[Path]:
    """A folder to write into, which takes the place of `out` at the end; after an error `out` is as it was.

    With `force`, a folder with files in the way is moved aside whole, to `OUT.old` or `OUT.old.2` and so on.
    Raises OutputError as `check_replaceable` does, and where writing fails.
    """
    place = check_replaceable(out, force=force, inputs=inputs)
    fresh = place.with_name(f".stagecut-{token_hex(4)}")
    try:
        with _made(place.parent), _removed(fresh):
            fresh.mkdir()
            yield fresh
            _put(out, fresh, place, force)
    except OSError as e:
        raise _unwritable(out, e) from e


def restamp(file: Path) -> None:
    """Note in the manifest beside `file` that the file is as stagecut wrote it, where the manifest lists it."""
    found = _manifest(file.parent)
    if file.name not in _hashes(found):
        return
    whole = found.get("seal") == seal_of(found)
    found["files"][file.name] = file_hash(file)
    m.write_table(file.parent, {**found, "seal": seal_of(found)} if whole else found)


@dataclass(frozen=True)
class InTheWay:
    """The files of a folder that must not be deleted, by their names in it."""

    ours: bool  # whether the folder has a manifest of stagecut
    foreign: tuple[str, ...] = ()
    edited: tuple[str, ...] = ()
    added: tuple[str, ...] = ()  # adapters that the artifact got since it was compiled

    def __bool__(self) -> bool:
        return bool(self.foreign or self.edited or self.added)

    def __str__(self) -> str:
        foreign = f"holds {listed_names(self.foreign)}, which stagecut did not write"
        edited = f"holds {listed_names(self.edited)}, edited since stagecut wrote it"
        added = f"got {listed_names(self.added)} since it was compiled, which another compilation would lose"
        if not self.ours:
            return f"is a folder that stagecut did not write: it holds {listed_names(self.foreign)}"
        told = (self.edited, edited), (self.foreign, foreign), (self.added, added)
        return " and ".join(text for files, text in told if files)


def in_the_way(folder: Path) -> InTheWay:
    """The files of a folder that stagecut did not write, that were edited since, or that another artifact lacks."""
    table = _manifest(folder)
    written, seal = _hashes(table), seal_of(table)
    foreign, edited = [], []
    for name in sorted(_contents(folder)):
        if name in written:
            if not _unchanged(folder / name, written[name]):
                edited.append(name)
        elif name == m.FILE and table and table.get("seal", seal) != seal:
            edited.append(name)
        elif not (table and any(fnmatch(name, pattern) for pattern in BY_NAME)):
            foreign.append(name)
    return InTheWay(bool(table), tuple(foreign), tuple(edited), tuple(sorted(_adapters(table) & written.keys())))


def _check_place(out: Path, place: Path) -> None:
    if place.is_symlink():
        raise OutputError(f"{out} is a link to {os.readlink(place)}; name the folder itself")
    with suppress(FileNotFoundError):
        place.lstat()  # raises OSError for a name that is too long
    if place.exists() and not place.is_dir():
        raise OutputError(f"{out} is not a folder; name another place")
    if os.path.ismount(place):
        raise OutputError(f"{out} is where a disk is mounted, which cannot be replaced; name a folder in it")


def _check_holds(out: Path, place: Path, inputs: Iterable[Path]) -> None:
    """Raise OutputError where replacing the folder would pull away the working directory, or what is read."""
    if _holds(place, Path.cwd()):
        where = "is the working directory" if place == Path.cwd() else "holds the working directory"
        raise OutputError(f"{out} {where}, which cannot be replaced; name a folder in it, or another one")
    for file in inputs:
        if _holds(place, file.resolve()):
            raise OutputError(f"{out} holds {file}, which the model is read from; name another folder")


def _holds(folder: Path, path: Path) -> bool:
    return folder in (path, *path.parents)


def _check_files(out: Path, place: Path) -> None:
    if place.exists() and (found := in_the_way(place)):
        raise OutputError(f"{out} {found}; name another folder, or use --force to move this one to {_aside(place)}")


def _put(out: Path, fresh: Path, place: Path, force: bool) -> None:
    """Rename `fresh` to `place`; what was there is deleted, or moved aside where files are in the way."""
    if not force:
        _check_files(out, place)  # the user may have written into it meanwhile
    if not place.exists():
        fresh.rename(place)
        return
    keep = bool(in_the_way(place))
    old = _aside(place) if keep else fresh.with_name(f"{fresh.name}.old")
    try:
        place.rename(old)
        fresh.rename(place)
    except BaseException:
        if old.exists() and not place.exists():
            old.rename(place)
        raise
    if not keep:
        shutil.rmtree(old, ignore_errors=True)


def _aside(place: Path) -> Path:
    """The first free name of `OUT.old`, `OUT.old.2`, `OUT.old.3` and so on."""
    names = (place.with_name(f"{place.name}.old{f'.{i}' * (i > 1)}") for i in count(1))
    return next(name for name in names if not os.path.lexists(name))


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """A folder and those above it, made where they are missing, and removed at the end where they are still empty."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in missing:
            with suppress(OSError):
                path.rmdir()


@contextmanager
def _removed(folder: Path) -> Iterator[None]:
    """A folder that is gone at the end."""
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder as plain data, of any schema; empty where there is none of ours."""
    try:
        table = json.loads((folder / m.FILE).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) and _is_ours(table) else {}


def _is_ours(table: Mapping[str, Any]) -> bool:
    """Whether a table reads as a manifest of any schema: a name, and the sha256 of each file."""
    match table:
        case {"schema": int(), "name": str(), "files": dict(files)}:
            return all(isinstance(digest, str) and len(digest) == 64 for digest in files.values())
    return False


def _hashes(table: Mapping[str, Any]) -> dict[str, str]:
    """The sha256 of each file that a manifest lists."""
    return table.get("files", {})


def _adapters(table: Mapping[str, Any]) -> set[str]:
    """The files that added adapters of a manifest have; those of other schemas may be no list of names."""
    names = table.get("adapters")
    return {m.added_adapter(name) for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def _contents(folder: Path) -> Iterator[str]:
    """Files, links and empty folders at any depth, by their names in the folder."""

    def refuse(error: OSError) -> None:
        raise error

    for above, folders, files in os.walk(folder, onerror=refuse):
        links = [name for name in folders if os.path.islink(os.path.join(above, name))]
        for name in (*files, *links):
            yield os.path.relpath(os.path.join(above, name), folder)
        if not folders and not files and above != str(folder):
            yield f"{os.path.relpath(above, folder)}/"


def _unchanged(file: Path, digest: str) -> bool:
    if not file.is_file() or file.is_symlink():
        return False
    found = file.stat()
    return _hash(file, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns) == digest


@lru_cache
def _hash(file: Path, *_stamp: int) -> str:
    """sha256 of a file, read once as long as its inode, size and times stay."""
    return file_hash(file)


def _unwritable(out: Path, error: Exception) -> OutputError:
    what = f"{error.strerror} ({error.filename})" if isinstance(error, OSError) and error.filename else str(error)
    return OutputError(f"cannot write {out}: {what}")
