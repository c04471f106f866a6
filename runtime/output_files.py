"""Files that a command writes: whether they can be written, before anything takes time, and what they would replace."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from tempfile import gettempdir

from runtime.errors import InputError, ManifestError
from runtime.manifest import manifest as m
from runtime.manifest.manifest import Manifest

WRITTEN = ".stagecut-files.json"  # the sha256 of each file that was written into a folder, by its path in it


def require_writable(file: Path) -> None:
    """Raise InputError for a file that cannot be written: a folder, or one in a folder that is missing or closed."""
    folder = file.absolute().parent
    if not folder.is_dir():
        raise InputError(f"cannot write {file}: {file.parent} is no folder")
    if file.is_dir():
        raise InputError(f"cannot write {file}: it is a folder")
    if not os.access(file if file.exists() else folder, os.W_OK):
        raise InputError(f"cannot write {file}: permission denied")


def require_apart(file: Path, folder: Path, given: Path) -> None:
    """Raise InputError for a file that lies in an artifact's `folder`, or that is the `given` one, which is read."""
    place = file.resolve()
    if place.parent == folder.resolve() and place.name in (m.FILE, *_listed(folder)):
        raise InputError(f"{file} is a file of the artifact; name another to write")
    if place == given.resolve():
        raise InputError(f"{file} is what the inputs are read from; name another file to write")


def _listed(folder: Path) -> Collection[str]:
    """The files of an artifact by its manifest; none where it cannot be read, as whoever loads it says."""
    try:
        return Manifest.read(folder).files.keys()
    except ManifestError:
        return ()


def replace_file(file: Path, write: Callable[[Path], object]) -> None:
    """Have `write` write a file, which is then there as a whole, or as it was where that fails.

    What a link leads to is written, and the link stays; so does a device or a pipe, which gets the bytes.  A file that
    is replaced keeps its mode.  Raises InputError where the file cannot be written.
    """
    place = file.resolve()
    is_special = place.exists() and not place.is_file()
    folder = Path(gettempdir()) if is_special else place.parent
    fresh = folder / f".{place.name}.new-{os.getpid()}"
    try:
        fresh.touch()  # with the mode that files have here
        mode = (place if place.is_file() else fresh).stat().st_mode
        write(fresh)
        fresh.chmod(mode)
        if is_special:
            with fresh.open("rb") as content, place.open("wb") as out:
                shutil.copyfileobj(content, out)
        else:
            fresh.replace(place)
    except OSError as e:
        raise InputError(f"cannot write {file}: {e.strerror or e}") from e
    finally:
        fresh.unlink(missing_ok=True)


def write_files(out: Path, texts: Mapping[str, str], force: bool) -> list[Path]:
    """Write texts to the files of their names in `out`, and return these files.

    A file that is not as an earlier call wrote it is not touched; with `force` it is moved aside, to `FILE.old` or
    `FILE.old.2` and so on.  Raises InputError that lists such files, OSError.
    """
    written = _written(out)
    others = [name for name, text in texts.items() if _is_others(out / name, written.get(name, ""), text)]
    if others and not force:
        raise InputError(
            f"{out} holds {', '.join(others)}, which stagecut did not write, or which was edited since",
            "name another folder, or use --force to move files aside",
        )
    for name in others:
        (out / name).rename(_aside(out / name))
    written |= {name: _digest(text.encode()) for name, text in texts.items()}
    for name, text in (*texts.items(), (WRITTEN, json.dumps(written, indent=1) + "\n")):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        replace_file(out / name, partial(Path.write_text, data=text, encoding="utf-8"))
    return [out / name for name in texts]


def _written(out: Path) -> dict[str, str]:
    try:
        found = json.loads((out / WRITTEN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_others(file: Path, digest: str, text: str) -> bool:
    """Whether there is something else than a file of this digest, or of this text."""
    if not os.path.lexists(file):
        return False
    return not file.is_file() or _digest(file.read_bytes()) not in (digest, _digest(text.encode()))


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def _aside(file: Path) -> Path:
    """The first free name of `FILE.old`, `FILE.old.2` and so on."""
    names = (file.with_name(f"{file.name}.old{f'.{i}' * (i > 1)}") for i in count(1))
    return next(name for name in names if not os.path.lexists(name))
