"""Clusters by name: any number of a common device whose file comes with the package."""

from __future__ import annotations

import re
from pathlib import Path

from ir.errors import SourceError
from ir.machine.cluster import Cluster
from ir.machine.common_devices import FOLDER, device_names


def read_cluster(text: str | Path) -> Cluster:
    """From a file, or from the name and number of a common device: "h200x4".

    Raises SourceError that lists the names there are; for a near miss, such as "h200", with the right spelling.
    """
    path, named = Path(text), re.fullmatch(r"([a-z]+\d*)x([1-9]\d*)", str(text))
    if path.exists() or path.suffix:
        return Cluster.read(path)
    known = device_names()
    if named is None or named[1] not in known:
        raise SourceError(
            f"there is no file {text}, and of devices only {', '.join(known)} are known by name, "
            f"in any number: {_nearest(str(text), known)}"
        )
    return Cluster.read(FOLDER / f"{named[1]}.toml", int(named[2]))


def _nearest(text: str, known: list[str]) -> str:
    """The right spelling of what may have been meant, or an example."""
    for name in known:
        if found := re.search(rf"(?:(\d+)\s*[x*]?\s*)?{name}(?:\s*[x*:]?\s*(\d+))?$", text.lower()):
            return f"did you mean {name}x{int(found[1] or found[2] or 1) or 1}?"
    return f"such as {known[0]}x4"
