"""Clusters: devices and the links between them, as a cluster file describes them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from itertools import permutations
from math import inf
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ir.errors import SourceError
from ir.text.units import parse_bytes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]


Unit: TypeAlias = Literal[
    "product", "unaligned_product", "convolution", "unaligned_convolution", "attention", "biased_attention"
]
Rates: TypeAlias = "float | tuple[tuple[str, float], ...]"
"""Flops per second: one number for all dtypes, or pairs of dtype and number."""

_FALLBACK: Mapping[Unit, Unit] = {  # the unit whose rate is used where a file gives none
    "unaligned_product": "product",
    "convolution": "product",
    "unaligned_convolution": "convolution",
    "attention": "product",
    "biased_attention": "attention",
}
DTYPES = ("float64", "float32", "bfloat16", "float16", "float8_e4m3fn", "int8")


@dataclass(frozen=True)
class Device:
    """The speeds and the memory of one device.  Rates are those that programs reach, less than vendors print.

    A kernel takes `launch` plus about the longest of three times: its arithmetic, its memory traffic and, if it cannot
    stream through memory, its elements one by one.  Meanwhile the host needs `dispatch` to start it: a stage takes the
    device's time for all of its kernels, or the host's if that is longer.
    """

    name: str  # as torch spells it: "cuda:0"
    flops: Rates  # per second, of large matrix products
    bandwidth: float  # bytes per second, to its own memory
    memory: float  # bytes; inf for no limit
    launch: float = 0.0  # seconds of the device for a kernel that does nothing
    dispatch: float = 0.0  # seconds of the host for a kernel; 0 where the device does not run ahead of the host
    fill: float = 0.0  # seconds that any contraction takes besides, whatever its size
    unaligned_product: Rates = ()  # if rows are no multiple of 16 bytes; (): as of other products
    convolution: Rates = ()  # (): as of products
    unaligned_convolution: Rates = ()  # if channels are no multiple of 16 bytes; (): as of others
    attention: Rates = ()  # of fused attention; (): as of products
    biased_attention: Rates = ()  # with a bias for each head; (): as without
    elements: float = inf  # per second, of kernels that broadcast, reduce, cast, or copy parts
    cache: float = 0.0  # bytes: a kernel that moves less works in the cache
    cache_bandwidth: float = inf  # bytes per second, from the cache
    threads: int = 0  # of a CPU, that the numbers hold for; 0: unknown

    @property
    def kind(self) -> Device:
        """The device without name and memory: equal for devices of equal speed."""
        return replace(self, name="", memory=0)

    def rate(self, unit: Unit, dtype: str) -> float:
        """Flops per second.  For a dtype that has no rate: that of the other 16-bit dtype, or the least of all."""
        rates: Rates = self.flops if unit == "product" else getattr(self, unit)
        if rates == ():
            return self.rate(_FALLBACK[unit], dtype)
        if not isinstance(rates, tuple):
            return rates
        known = dict(rates)
        alike = {"bfloat16": "float16", "float16": "bfloat16"}.get(dtype, dtype)
        return known.get(dtype) or known.get(alike) or min(known.values())

    def speed(self, nbytes: float) -> float:
        """Bytes per second of a kernel that moves `nbytes`."""
        return self.bandwidth if nbytes > self.cache else max(self.cache_bandwidth, self.bandwidth)


@dataclass(frozen=True)
class Link:
    """A connection from one device to another."""

    bandwidth: float  # bytes per second
    latency: float  # seconds

    def seconds(self, nbytes: float) -> float:
        """Seconds of a transfer."""
        return self.latency + nbytes / self.bandwidth


@dataclass(frozen=True)
class Cluster:
    """Devices, and a link for each ordered pair of them."""

    devices: tuple[Device, ...]
    links: Mapping[tuple[int, int], Link]

    @classmethod
    def uniform(cls, devices: tuple[Device, ...], link: Link) -> Cluster:
        """Devices with the same link between all."""
        return cls(devices, dict.fromkeys(permutations(range(len(devices)), 2), link))

    @classmethod
    def read(cls, path: Path, copies: int = 0) -> Cluster:
        """Read a TOML file.  If `copies` is not 0, the file has one device, which is repeated that many times.

            link = { bandwidth = "12GB", latency = 1e-5 }      # every pair of devices, unless said otherwise
            [[device]]
            name = "cuda:0"
            flops = { float32 = 5e13, bfloat16 = 7e14 }        # or one number for all dtypes
            bandwidth = "3.3TB"
            memory = "80GiB"
            launch = 2e-6
            dispatch = 6e-6
            [[link-between]]
            devices = ["cuda:0", "cuda:1"]                     # both ways
            bandwidth = "400GB"
            latency = 5e-6

        Raises SourceError with the file and the entry at fault.
        """
        try:
            table = tomllib.loads(path.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
            raise SourceError(f"cannot read the cluster file {path}: {e}") from e
        if copies:
            (row,) = table["device"]
            table |= {"device": [row | {"name": f"{row['name']}:{i}"} for i in range(copies)]}
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
    values = {key: text if key == "name" else _amount(key, text, place) for key, text in row.items()}
    try:
        return cls(**values)
    except TypeError:
        needed = [f.name for f in fields(cls) if f.default is MISSING and f.name not in values]
        raise SourceError(f"{place}: {' and '.join(needed)} must be given") from None


_RATES = ("flops", *_FALLBACK)  # keys that may be a table by dtype
_MAY_BE_ZERO = ("launch", "latency", "dispatch", "fill", "cache", "threads")


def _amount(key: str, text: Any, place: str) -> Any:
    """A positive quantity, or one for each dtype."""
    if isinstance(text, Mapping) and key in _RATES:
        for dtype in text:
            if dtype not in DTYPES:
                raise SourceError(f"{place}: {key}: unknown dtype {dtype!r}; known are {', '.join(DTYPES)}")
        if not text:
            raise SourceError(f"{place}: {key} names no dtype; write {{ float32 = … }}, or one number for all")
        return tuple((dtype, _amount(f"{key}.{dtype}", rate, place)) for dtype, rate in text.items())
    try:
        amount = parse_bytes(text if isinstance(text, (int, float)) else str(text))
    except ValueError as e:
        raise SourceError(f"{place}: {key}: {e}") from e
    if amount < 0 or (amount == 0 and key not in _MAY_BE_ZERO):
        raise SourceError(f"{place}: {key} is {amount}; it must be positive")
    return amount
