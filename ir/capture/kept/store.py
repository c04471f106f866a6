"""A folder of graphs, each a pickle under its fingerprint.  Only its owner may write there."""

from __future__ import annotations

import inspect
import io
import os
import pickle
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch._ops import HigherOrderOperator
from torch.utils._pytree import TreeSpec

from ir.graph import THIS_DEVICE, Call, Graph, ThisDevice
from ir.objects.named_classes import told_tree, tree_again
from ir.objects.zeros import is_large_zeros, zeros
from ir.operators.higher_order import HigherOrder, behind_key, is_higher_order, key_for
from ir.process.cache_folder import cache_folder

LARGEST_FILE = 256 << 20  # bytes of a graph that is kept
MOST_FILES = 128  # the one that was used longest ago goes first


@dataclass(frozen=True)
class Kept:
    """A graph, and the warnings that were given when it was captured."""

    graph: Graph
    warnings: tuple[str, ...]


_Kind = TypeVar("_Kind")


def folder() -> Path:
    """The folder of kept graphs; it need not exist."""
    return cache_folder() / "graphs"


def find(key: str, kind: type[_Kind]) -> _Kind | None:
    """The object of this kind under a fingerprint; None where there is none, or none that can be read."""
    file = folder() / key
    try:
        if file.stat().st_uid != os.getuid():
            return None
        kept = pickle.loads(file.read_bytes())
        os.utime(file)
    except Exception:  # of another version, damaged, or removed meanwhile
        return None
    return kept if isinstance(kept, kind) else None


def keep(key: str, kept: object) -> None:
    """Keep an object, where it can be written as a file and there is a place for one."""
    buffer = io.BytesIO()
    try:
        _Pickler(buffer).dump(kept)
        if buffer.tell() > LARGEST_FILE:
            return
        place = folder()
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(place / key, buffer.getbuffer())
        for old in sorted(place.iterdir(), key=lambda f: f.stat().st_mtime, reverse=True)[MOST_FILES:]:
            old.unlink()
    except Exception:  # an example or a default that cannot be pickled, a full disk, no home: the next run exports anew
        return


def _write(file: Path, content: memoryview) -> None:
    """Write a file that others read as a whole, or not at all.  Raises OSError."""
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as fresh:
        try:
            fresh.write(content)
            fresh.flush()
            os.replace(fresh.name, file)
        except OSError:  # a part of it would take what room is left
            os.unlink(fresh.name)
            raise


class _Pickler(pickle.Pickler):
    """Writes operators by their names, containers with the names of their classes, and parameters without annotations.

    So what is read imports no library of the model.  Nodes that run functions are written with these, not with the key
    by which only this process knows them.
    """

    def reducer_override(self, obj: Any) -> Any:
        match obj:
            case torch._ops.OpOverload():
                return _operator, (*obj.name().split("::"),)
            case HigherOrderOperator():
                return _higher_order_operator, (obj.name(),)
            case Call() if is_higher_order(obj):
                told = {field.name: getattr(obj, field.name) for field in fields(obj)}
                return _call_of_functions, (behind_key(obj.args[2]), told)
            case torch.Tensor() if is_large_zeros(obj):
                return zeros, (tuple(obj.shape), obj.dtype)
            case ThisDevice():
                return _this_device, ()
            case TreeSpec():
                return tree_again, told_tree(obj)
            case inspect.Parameter():
                return _parameter, (obj.name, obj.kind, obj.default)
        return NotImplemented


def _operator(namespace: str, name: str) -> torch._ops.OpOverload:
    packet, _, overload = name.partition(".")
    return getattr(getattr(getattr(torch.ops, namespace), packet), overload or "default")


def _higher_order_operator(name: str) -> HigherOrderOperator:
    return getattr(torch.ops.higher_order, name)


def _call_of_functions(what: HigherOrder, told: Mapping[str, Any]) -> Call:
    operands, sizes, _ = told["args"]
    return Call(**{**told, "args": (operands, sizes, key_for(what))})


def _this_device() -> ThisDevice:
    return THIS_DEVICE


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, kind, default=default)
