"""What a user names -> the model, its example inputs and its weights."""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ir.capture.dynamic import DynamicShapes
from ir.errors import SourceError
from ir.graph import Graph, Param, at
from ir.interpret import lookup


@dataclass(frozen=True)
class Source:
    """A model as its user brings it."""

    name: str
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    dynamic_shapes: DynamicShapes
    weights: Mapping[str, torch.Tensor]  # by fully qualified name


def read_source(text: str) -> Source:
    """Read `model.py` or `model.py:function`.

    The file defines `model` (a module, or a function that makes one) and `example_inputs` (a tuple, a dict,
    or a function that makes one); optionally `dynamic_shapes` and `checkpoint`.
    Raises SourceError that names the file, the line and what is missing.
    """
    path_text, _, function = text.partition(":")
    path = Path(path_text)
    if path.is_dir():
        raise SourceError(f"{path} is a folder; checkpoint folders cannot be read yet: give a model file that loads it")
    if not path.is_file():
        raise SourceError(f"there is no file {path}; give a model file such as examples/gpt2.py")
    if path.suffix != ".py":
        raise SourceError(f"{path} is not a Python file; give a model file such as examples/gpt2.py")
    with _blaming(path):
        module = _import(path)
    model = _made(module, function or "model", path)
    if not isinstance(model, nn.Module):
        raise SourceError(f"`{function or 'model'}` in {path} is a {type(model).__name__}, not a torch.nn.Module")
    model = uncompiled(model)
    inputs = _made(module, "example_inputs", path)
    if not isinstance(inputs, (tuple, list, Mapping)):
        raise SourceError(
            f"`example_inputs` in {path} is a {type(inputs).__name__}; make it a tuple (positional arguments), a dict "
            "(keyword arguments), or a function that returns one"
        )
    checkpoint = getattr(module, "checkpoint", None)
    named = isinstance(inputs, Mapping)
    return Source(
        name=path.stem,
        model=model,
        args=() if named else tuple(inputs),
        kwargs=dict(inputs) if named else {},
        dynamic_shapes=getattr(module, "dynamic_shapes", None),
        weights=model.state_dict() if checkpoint is None else Checkpoint.open(path.parent / checkpoint),
    )


def check_weights(graph: Graph, weights: Mapping[str, torch.Tensor]) -> None:
    """Raise SourceError where a parameter of the graph is not in the weights, or has another shape there."""
    stored = [v for v in (*graph.params, *graph.states) if isinstance(v, Param) or v.data is None]
    missing = [v.fqns[0] for v in stored if not any(fqn in weights for fqn in v.fqns)]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise SourceError(f"the checkpoint {weights} holds no {', '.join(missing[:5])}{more}")
    if not isinstance(weights, Checkpoint) and any(lookup(weights, v.fqns).is_meta for v in stored):
        raise SourceError("the model's weights are on the meta device, without values; name a `checkpoint`")
    if isinstance(weights, Checkpoint):
        for value in stored:
            shape = weights.shape(next(fqn for fqn in value.fqns if fqn in weights))
            if shape != tuple(at(d, {}) for d in value.type.shape):
                raise SourceError(f"{value.fqns[0]} is {list(shape)} in {weights} and {value.type} in the model")


def uncompiled(model: nn.Module) -> nn.Module:
    """The module inside what torch.compile returns."""
    return getattr(model, "_orig_mod", model)


class Checkpoint(Mapping[str, torch.Tensor]):
    """The tensors of safetensors files, each read when it is asked for."""

    def __init__(self, path: Path, files: Mapping[str, Any]) -> None:
        self._path = path
        self._file_of = files

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        """Open a .safetensors file, or a folder with model.safetensors or a sharded index.

        Raises SourceError with the file that is missing or damaged.
        """
        if path.is_file():
            files = [path]
        elif (index := path / "model.safetensors.index.json").is_file():
            files = [path / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
        elif (path / "model.safetensors").is_file():
            files = [path / "model.safetensors"]
        else:
            raise SourceError(f"there is no checkpoint at {path}; give a .safetensors file, or a folder that holds one")
        opened: dict[str, Any] = {}
        for file in files:
            try:
                handle = safe_open(file, framework="pt")
            except (SafetensorError, OSError) as e:
                raise SourceError(f"cannot read {file}: {e}") from e
            opened |= dict.fromkeys(handle.keys(), handle)
        return cls(path, opened)

    def __getitem__(self, fqn: str) -> torch.Tensor:
        return self._file_of[fqn].get_tensor(fqn)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)

    def __str__(self) -> str:
        return str(self._path)

    def shape(self, fqn: str) -> tuple[int, ...]:
        return tuple(self._file_of[fqn].get_slice(fqn).get_shape())


def _import(path: Path) -> ModuleType:
    """Run a file as a module that others can import by its name, with its neighbours in reach."""
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_model"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.append(str(path.parent.resolve()))  # for good: the model may import when it is made, or run
    spec.loader.exec_module(module)
    return module


def _made(module: ModuleType, name: str, path: Path) -> Any:
    """A value of the file, or what the function of that name makes."""
    if not hasattr(module, name):
        raise SourceError(f"{path} defines no `{name}`; {_HOW}")
    value: Any | Callable[[], Any] = getattr(module, name)
    if isinstance(value, nn.Module) or not callable(value):
        return value
    if inspect.isclass(value) and not issubclass(value, nn.Module):
        return value
    with _blaming(path):
        return value()


_HOW = (
    "a model file has `model` (a torch.nn.Module, or a function that makes one) and `example_inputs` (a tuple, a "
    "dict, or a function that makes one)"
)


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Turn what the user's code raises into a message with the line of the file."""
    try:
        yield
    except (Exception, SystemExit) as e:
        if isinstance(e, SyntaxError):
            line = e.lineno
        else:
            lines = [f.lineno for f in traceback.extract_tb(e.__traceback__) if Path(f.filename) == path.absolute()]
            lines += [f.lineno for f in traceback.extract_tb(e.__traceback__) if f.filename == str(path)]
            line = lines[-1] if lines else None
        place = f"{path}:{line}" if line else str(path)
        raise SourceError(f"{place} raised {type(e).__name__}: {e}") from e
