"""The kinds of values that options take; the flag of an option, and its line of help."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from ir.text.units import parse_bytes
from passes.options.completions import Completions, clusters, none_known, passes_and, these
from passes.options.sizes import read_shapes, read_workload


@dataclass(frozen=True)
class ValueKind:
    """The values that an option takes: `read` returns one, or raises ValueError or TypeError for anything else."""

    what: str  # "a whole number of 1 or more"
    metavar: str  # of the flag's value, as the help shows it
    read: Callable[[Any], Any]
    parse: Callable[[str], Any] = str  # the command line's text -> the same value in Python
    completions: Completions = none_known  # by the shell
    many: bool = False  # whether the flag may be given more than once


def _instance(*classes: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, classes):
            raise TypeError
        return value

    return read


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError
    return value


def _seconds(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= 0:  # nan is not
        raise ValueError
    return value


def _share(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 1:
        raise ValueError
    return float(value)


def _parse_share(text: str) -> float:
    return float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)


def _devices(value: Any) -> int | list[str]:
    """The number of devices, or their names."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        return _count(value)
    if not value or not all(isinstance(name, str) and name for name in value):
        raise ValueError
    return list(value)


def _bytes(value: Any) -> int:
    """Bytes of a number, or of a text with a unit: who says `--memory 16` does not mean 16 bytes."""
    without_unit = isinstance(value, str) and not value.strip()[-1:].isalpha()
    if isinstance(value, bool) or without_unit or not parse_bytes(value) > 0:
        raise ValueError
    return int(parse_bytes(value))


def _texts(value: Any) -> tuple[str, ...]:
    given = (value,) if isinstance(value, str) else tuple(value)
    return tuple(map(_instance(str), given))


def _paths(value: Any) -> tuple[Path, ...]:
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return tuple(Path(_instance(str, Path)(one)) for one in (value if several else (value,)))


def _cluster(value: Any) -> Any:
    if not isinstance(value, (str, Path)) and not hasattr(value, "devices"):
        raise TypeError
    return value


def _all_of(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several values, or one of them alone."""

    def read_all(value: Any) -> tuple[Any, ...]:
        several = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
        return tuple(map(read, value if several else (value,)))

    return read_all


def _listed(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: [parse(item.strip()) for item in text.split(",")]


COUNT = ValueKind("a whole number of 1 or more", "N", _count, int)
SECONDS = ValueKind("a number of seconds, 0 or more", "S", _seconds, float)
SHARE = ValueKind("a share such as 3% (0.03 in Python), 0 or more and less than 100%", "SHARE", _share, _parse_share)
SWITCH = ValueKind("True or False", "", _instance(bool))
PASS = ValueKind("the name of a pass, or export", "PASS", _instance(str), completions=passes_and("export"))
PASS_OR_ALL = ValueKind(
    "the name of a pass, export or all", "PASS", _instance(str), completions=passes_and("export", "all")
)
PATH = ValueKind("a path", "PATH", lambda value: Path(_instance(str, Path)(value)))
FOLDERS = ValueKind("paths of folders", "FOLDER", _paths, many=True)
PREFIX = ValueKind("the start of names, such as ema.", "PREFIX", _instance(str))
VARIANT = ValueKind("a part of file names, such as fp16", "VARIANT", _instance(str))
BYTES = ValueKind("an amount such as 16GiB or 512MB", "BYTES", _bytes)
DEVICES = ValueKind(
    "how many there are, or a list of their names, such as ['cuda:0', 'cuda:1']",
    "A,B",
    _devices,
    _listed(str),
)
CLUSTER = ValueKind(
    "a Cluster, the path of a cluster file, or a name such as h200x4", "FILE|NAME", _cluster, completions=clusters
)
CLUSTERS = ValueKind(
    "a list of Clusters, of paths of cluster files, or of names such as h200x4", "A,B", _all_of(_cluster), _listed(str)
)
COUNTS = ValueKind("a list of whole numbers of 1 or more", "N,M", _all_of(_count), _listed(int))
SIZES = ValueKind(
    "dynamic shapes as torch.export takes them, or texts such as input_ids:0=batch,1=seq",
    "INPUT:DIM=SIZE",
    _instance(Mapping, list, tuple),
    many=True,
)
MODULES = ValueKind("dotted paths of modules", "MODULE", _texts, many=True)
INPUTS = ValueKind("names of inputs, or texts such as grid=1x28x42", "INPUT[=VALUES]", _texts, many=True)
WORKLOAD = ValueKind(
    "sizes such as batch=1,seq=4096, or several with weights: batch=1,seq=4096:0.7;batch=32,seq=512:0.3",
    "SIZE=N[:WEIGHT;…]",
    read_workload,
)
SHAPES = ValueKind(
    "shapes of inputs, each once, such as input_ids=1x4096 ({'input_ids': (1, 4096)} in Python)",
    "INPUT=NxN",
    read_shapes,
    many=True,
)
PASS_OPTIONS = ValueKind("texts such as split-stages{time-limit=20}", "PASS{NAME=VALUE}", _texts, many=True)


def one_of(cls: type[Enum]) -> ValueKind:
    """The members of an enum, or their values; `torch.float16` counts as "float16"."""
    choices = tuple(str(member.value) for member in cls)
    *first, last = choices
    read = partial(_member, cls)
    return ValueKind(f"{', '.join(first)} or {last}", "|".join(choices), read, completions=these(*choices))


def _member(cls: type[Enum], value: Any) -> Enum:
    return value if isinstance(value, cls) else cls(str(value).removeprefix("torch."))


# ---- flags


@dataclass(frozen=True)
class Flag:
    """An option on the command line: its names, its kind and its line of `--help`."""

    kind: ValueKind
    help: str
    group: str
    names: tuple[str, ...]  # () is the field's own name
    turns_off: bool  # whether the flag sets the option to False
    command_only: bool  # whether it means something on the command line alone


def option(
    default: Any,
    kind: ValueKind,
    group: str,
    help: str,
    *names: str,
    turns_off: bool = False,
    command_only: bool = False,
) -> Any:
    return field(default=default, metadata={"flag": Flag(kind, help, group, names, turns_off, command_only)})
