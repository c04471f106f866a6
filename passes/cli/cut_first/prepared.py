"""A source that is run at once: the artifact that it is, or one that is made of it and kept for the next time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

from ir.errors import SourceError
from ir.process.cache_folder import cache_folder
from stagecut import __file__ as _COMMAND
from stagecut import __version__


def is_artifact(source: str) -> bool:
    """Whether the source is a folder that the compiler wrote."""
    return (Path(source) / "manifest.json").is_file()


def prepared(source: str, flags: Sequence[str]) -> Path:
    """The artifact of a source: the folder itself if it is one, else one in the cache, which is made if need be.

    `flags` are those of `stagecut compile`.  The compiler runs in a process of its own: its progress is seen, and its
    memory is free afterwards.  Raises SourceError, or SystemExit with the status of a compiler that failed.
    """
    path = Path(source)
    if is_artifact(source):
        if flags:
            raise SourceError(f"{source} is cut already, so {flags[0]} says nothing; it is for `stagecut compile`")
        return path
    flags = [*flags, *_defaults(path, flags)]
    out = cache_folder() / "artifacts" / f"{path.resolve().stem}-{_key(path, flags)}"
    if not is_artifact(str(out)):
        out.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        done = subprocess.run([sys.executable, _COMMAND, "compile", source, *flags, "-o", str(out)], stdout=sys.stderr)
        if done.returncode:
            raise SystemExit(done.returncode)
    return out


def _defaults(source: Path, flags: Sequence[str]) -> list[str]:
    """Flags where the user gives none: weights that need no copy are not copied."""
    given = {flag.partition("=")[0] for flag in flags}
    linked = source.is_dir() and any(source.glob("*.safetensors"))
    return ["--weights", "link"] if linked and "--weights" not in given else []


def _key(source: Path, flags: Sequence[str]) -> str:
    """A digest of the files of a source and those that flags name, as the disk has them, the flags and the version."""
    others = [list(_files(Path(flag))) for flag in flags if Path(flag).exists()]  # adapters, checkpoints
    told = [__version__, str(source.resolve()), list(_files(source)), list(flags), others]
    return blake2b(json.dumps(told).encode(), digest_size=8).hexdigest()


def _files(source: Path) -> Iterator[tuple[str, int, int]]:
    for file in sorted(source.iterdir()) if source.is_dir() else [Path(str(source).partition(".py:")[0])]:
        if file.is_file():
            found = file.stat()
            yield file.name, found.st_size, found.st_mtime_ns
