"""Paths of modules and of source files, as a user knows them."""

from __future__ import annotations

import contextlib
import os
import re
import sysconfig
from functools import cache

import torch


@cache
def clean(path: str) -> str:
    """`m.layers.0@1` -> `layers.0`: no wrapper, no call count."""
    return re.sub(r"@\d+", "", re.sub(r"^m(\.|$)", "", path))


def is_inside(path: str, module: str) -> bool:
    """Whether a path is that of a module or of one inside it."""
    return f"{path}.".startswith(f"{module}.")


_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_DECODER = os.path.join(_HERE, "sources", "decoder", "")
_STEP = os.path.join(_DECODER, "step.py")
_TORCH = os.path.join(os.path.dirname(torch.__file__), "")


@cache  # called for every frame of every question about a size
def is_torch_file(path: str) -> bool:
    """Whether a source file is torch's, or this package's, which calls the model inside of contexts."""
    return path.startswith((_TORCH, "<")) or path == contextlib.__file__ or is_own_file(path)


@cache
def in_torch(path: str) -> str:
    """The path of a source file inside torch's package, as `nn/functional.py`; empty for others."""
    return path.removeprefix(_TORCH).replace(os.sep, "/") if path.startswith(_TORCH) else ""


def is_own_file(path: str) -> bool:
    """Whether a source file is this package's; a decoder's step counts as the user's."""
    return path.startswith(_HERE) and not path.startswith(_DECODER)


_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_LIBRARY_MARKS = ("/site-packages/", "/dist-packages/")


@cache
def in_library(path: str) -> bool:
    """Whether a source file is of Python's own library, or of an installed one."""
    return any(mark in path for mark in _LIBRARY_MARKS) or path.startswith(_LIBRARIES)


@cache
def short_path(path: str) -> str:
    """A path that reads the same on every machine."""
    path = path.replace(os.sep, "/")
    if "site-packages/" in path:
        return path.rpartition("site-packages/")[2]
    relative = os.path.relpath(path)
    return os.path.basename(path) if relative.startswith("..") else relative


def is_step_file(file: str) -> bool:
    """Whether a file is that of a decoder's step, whose `forward` is around that of the model's class."""
    return file == _STEP
