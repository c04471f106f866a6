"""Clusters by name: any number of a common device whose file comes with the package."""

from __future__ import annotations

import re
from pathlib import Path

from ir.errors import SourceError
from ir.machine.cluster import Cluster

FOLDER = Path(__file__).with_name("clusters")


def read_cluster(text: str | Path) -> Cluster:
    """The cluster in a file, or of a common device by its name and number: "h200x4".  Raises SourceError."""
    named = re.fullmatch(r"([a-z]+\d*)x([1-9]\d*)", str(text))
    if named is None or Path(text).exists():
        return Cluster.read(Path(text))
    file, known = FOLDER / f"{named[1]}.toml", sorted(file.stem for file in FOLDER.glob("*.toml"))
    if not file.exists():
        raise SourceError(f"there is no file {text}, and of devices only {', '.join(known)} are known by name")
    return Cluster.read(file, int(named[2]))
