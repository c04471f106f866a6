"""The machine: devices and the links between them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from itertools import permutations
from pathlib import Path
from typing import Any

from ir.errors import SourceError
from ir.units import parse_bytes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]


@dataclass(frozen=True)
class Device:
    """What one device can do."""

    name: str  # as torch spells it: "cuda:0"
    flops: float  # peak, per second
    bandwidth: float  # bytes per second, to its own memory
    memory: float  # bytes; inf where nobody said how many
    launch: float = 0.0  # seconds to start one kernel


@dataclass(frozen=True)
class Link:
    """A way from one device to another."""

    bandwidth: float  # bytes per second
    latency: float  # seconds

    def seconds(self, nbytes: float) -> float:
        return self.latency + nbytes / self.bandwidth


@dataclass(frozen=True)
class Cluster:
    """Devices, and a link for each ordered pair of them."""

    devices: tuple[Device, ...]
    links: Mapping[tuple[int, int], Link]

    @classmethod
    def uniform(cls, devices: tuple[Device, ...], link: Link) -> Cluster:
        return cls(devices, dict.fromkeys(permutations(range(len(devices)), 2), link))

    @classmethod
    def read(cls, path: Path) -> Cluster:
        """Read a TOML file:

            link = { bandwidth = "12GB", latency = 1e-5 }      # every pair of devices, unless said otherwise
            [[device]]
            name = "cuda:0"
            flops = 4e14
            bandwidth = "3.3TB"
            memory = "80GiB"
            launch = 5e-6
            [[link-between]]
            devices = ["cuda:0", "cuda:1"]                     # both ways
            bandwidth = "400GB"
            latency = 5e-6

        Raises SourceError with the file and the entry that is wrong.
        """
        try:
            table = tomllib.loads(path.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
            raise SourceError(f"cannot read the cluster file {path}: {e}") from e
        return _cluster(table, path)


def _cluster(table: Mapping[str, Any], path: Path) -> Cluster:
    rows = table.get("device", [])
    if isinstance(rows, Mapping):
        raise SourceError(f"{path}: [device] stands for one device alone; write [[device]], with two brackets")
    if not rows:
        raise SourceError(f"{path} describes no device; add a [[device]] table with name, flops, bandwidth and memory")
    devices = tuple(_read(Device, row, f"{path}, device {i}") for i, row in enumerate(rows))
    index = {device.name: i for i, device in enumerate(devices)}
    if len(index) < len(devices):
        raise SourceError(f"{path}: two devices have the same name")
    links: dict[tuple[int, int], Link] = {}
    if "link" in table:
        default = _read(Link, table["link"], f"{path}, link")
        links.update((pair, default) for pair in permutations(range(len(devices)), 2))
    for i, row in enumerate(table.get("link-between", [])):
        place = f"{path}, link-between {i}"
        ends = [index[name] for name in row.get("devices", []) if name in index]
        if len(ends) != 2:
            raise SourceError(f"{place}: `devices` must name two of {', '.join(index)}")
        link = _read(Link, {k: v for k, v in row.items() if k != "devices"}, place)
        links[ends[0], ends[1]] = links[ends[1], ends[0]] = link
    for a, b in permutations(range(len(devices)), 2):
        if (a, b) not in links:
            raise SourceError(f"{path}: no link between {devices[a].name} and {devices[b].name}; add `link = {{…}}`")
    return Cluster(devices, links)


def _read(cls: type[Any], row: Mapping[str, Any], place: str) -> Any:
    """A Device or a Link from a TOML table whose quantities are numbers or strings with a unit."""
    known = cls.__dataclass_fields__
    for key in row:
        if key not in known:
            raise SourceError(f"{place}: unknown key {key!r}; known are {', '.join(known)}")
    values: dict[str, Any] = {}
    for key, text in row.items():
        try:
            values[key] = text if key == "name" else parse_bytes(text)
        except ValueError as e:
            raise SourceError(f"{place}: {key}: {e}") from e
    for key, amount in values.items():
        if key != "name" and (amount < 0 or (amount == 0 and key not in ("launch", "latency"))):
            raise SourceError(f"{place}: {key} is {amount}; it must be positive")
    try:
        return cls(**values)
    except TypeError:
        needed = [f.name for f in fields(cls) if f.default is MISSING and f.name not in values]
        raise SourceError(f"{place}: {' and '.join(needed)} must be given") from None
