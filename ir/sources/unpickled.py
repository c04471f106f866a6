"""Safe reading of .pt2 files: no pickled code in them runs."""

from __future__ import annotations

import ast
import json
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import torch

from ir.errors import SourceError


@contextmanager
def without_pickled_code(path: Path) -> Iterator[None]:
    """Let torch.export.load unpickle tensors alone inside the context; anything else raises SourceError."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise SourceError(f"{path} holds pickled objects other than tensors, which are not read: they can run any code")

    def load_tensors(*args: Any, **kwargs: Any) -> Any:
        try:
            return read(*args, **{**kwargs, "weights_only": True})
        except pickle.UnpicklingError:
            refuse()

    read = torch.load
    archive = import_module("torch.export.pt2_archive._package")  # takes a second, which no other source needs
    with ExitStack() as stack:
        stack.enter_context(patch.object(torch, "load", load_tensors))
        stack.enter_context(patch.object(pickle, "loads", refuse))
        stack.enter_context(patch.object(torch._C, "_pickle_load_obj", refuse))
        stack.enter_context(patch.object(archive, "_load_aoti", refuse))
        yield


def require_program(path: Path) -> None:
    """Raise SourceError for an archive of anything else than a program, at which torch prints where it failed."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if not any(name.endswith(_OF_PROGRAMS) for name in names):
        raise SourceError(
            f"{path} is an archive without a program of torch.export; if it holds weights, give a model file that "
            f"makes the model, and these with --checkpoint {path}"
        )


_OF_PROGRAMS = ("archive_format", "serialized_exported_program.json")
"""The ends of names in the archives of torch.export.save, and of its older versions."""


def import_containers(path: Path) -> None:
    """Import the modules of known libraries whose classes hold the arguments and results of a .pt2 file.

    Their import tells torch how such an object is taken apart.  Raises SourceError where a library is not installed.
    """
    with zipfile.ZipFile(path) as archive:
        files = [json.loads(archive.read(name)) for name in archive.namelist() if name.endswith(".json")]
    trees = (text for file in files for text in _texts(file) if text.startswith("[1, {"))
    for cls in sorted({name for tree in trees for name in _CONTAINER.findall(tree)}):
        try:
            import_module(cls.rpartition(".")[0])
        except ImportError as e:
            raise SourceError(f"{path} takes or returns a {cls}, whose library is not here: {e}") from e


_CONTAINER = re.compile(r'"type": "((?:transformers|diffusers)\.[\w.]+)"')


def _texts(node: Any) -> Iterator[str]:
    """All strings in parsed JSON."""
    match node:
        case str():
            yield node
        case dict() | list():
            for child in node.values() if isinstance(node, dict) else node:
                yield from _texts(child)


def check_expressions(path: Path) -> None:
    """Raise SourceError unless the sizes in a .pt2 file are arithmetic: torch evaluates them as Python."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".json"):
                for text in _expressions(json.loads(archive.read(name))):
                    if not is_arithmetic(text):
                        raise SourceError(f"{path} holds a size that is no arithmetic: {text[:80]}")


def _expressions(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("expr_str"), str):
            yield node["expr_str"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _expressions(child)


_CLASS = re.compile(r"[A-Z]\w*|true|false|oo|nan|zoo")
_NODES = (ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.UnaryOp, ast.USub)


def is_arithmetic(text: str) -> bool:
    """Whether a text is nested calls of sympy's classes on numbers, with strings as names of symbols only."""
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        return False
    named = {a for n in ast.walk(tree) if isinstance(n, ast.Call) for a in n.args if _names_something(n)}
    for node in ast.walk(tree):
        if not isinstance(node, _NODES) or (isinstance(node, ast.Name) and not _CLASS.fullmatch(node.id)):
            return False
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in named:
            return False
    return True


def _names_something(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id in ("Symbol", "Float")
