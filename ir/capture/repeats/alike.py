"""The modules of a model that may be of one kind: of the same classes, with tensors of the same types."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

FEWEST = 8  # modules that are worth looking at

_CONTAINERS = (nn.ModuleList, nn.ModuleDict)
_NUMBER = re.compile(r"\b\d+\b")
_PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Alike:
    """A module of a group, with those of its plain attributes that do not merely number the members."""

    path: str
    group: int
    attributes: frozenset[tuple[str, str]]


def alike_modules(model: nn.Module, fewest: int = FEWEST) -> dict[int, Alike]:
    """The outermost modules with at least `fewest` like them, by the id of their attributes.

    That is the same for a module and for what stands for it while torch traces.
    """
    structures = dict(_structures(model, {}))
    counts = Counter(structures.values())
    groups: dict[int, list[tuple[str, nn.Module]]] = {}
    for path, module in _outermost(model, lambda m: counts[structures[m]] >= fewest and _may_be_watched(m)):
        groups.setdefault(structures[module], []).append((path, module))
    found: dict[int, Alike] = {}
    for group, modules in groups.items():
        if len(modules) >= fewest:
            told = _telling([path for path, _ in modules], [_attributes(module) for _, module in modules])
            for (path, module), attributes in zip(modules, told, strict=True):
                found[id(vars(module))] = Alike(path, group, attributes)
    return found


def _structures(module: nn.Module, numbers: dict[Any, int]) -> Iterator[tuple[nn.Module, int]]:
    """Each module with a number that is the same for those of the same classes and types of tensors."""
    known: dict[nn.Module, int] = {}

    def number(m: nn.Module) -> int:
        if m not in known:
            held = tuple((name, _type(t)) for name, t in (*m._parameters.items(), *m._buffers.items()))
            children = tuple((name, number(child)) for name, child in m._modules.items() if child is not None)
            known[m] = numbers.setdefault((type(m), held, children), len(numbers))
        return known[m]

    number(module)
    yield from known.items()


def _type(tensor: torch.Tensor | None) -> Any:
    return tensor if tensor is None else (tuple(tensor.shape), tensor.dtype, tensor.requires_grad, type(tensor))


def _may_be_watched(module: nn.Module) -> bool:
    """Whether a module calls others, from a forward of its class."""
    return bool(module._modules) and not isinstance(module, _CONTAINERS) and "forward" not in vars(module)


def _outermost(model: nn.Module, wanted: Any, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, child in model.named_children():
        inner = f"{path}.{name}".lstrip(".")
        if wanted(child):
            yield inner, child
        else:
            yield from _outermost(child, wanted, inner)


def _attributes(module: nn.Module) -> dict[str, str]:
    """The plain attributes of a module and of those inside it, as text."""
    return {
        f"{path}.{name}": repr(value)
        for path, inner in module.named_modules()
        for name, value in vars(inner).items()
        if isinstance(value, _PLAIN) or (isinstance(value, (tuple, list)) and all(isinstance(x, _PLAIN) for x in value))
    }


def _telling(paths: Sequence[str], attributes: Sequence[Mapping[str, str]]) -> list[frozenset[tuple[str, str]]]:
    """The attributes of each member without those that number the members of a list: the index of a layer.

    The list of a member is the longest of which the paths differ in one number: encoders and decoders count alike.
    """
    lists = [[path[: m.start()] + "#" + path[m.end() :] for m in _NUMBER.finditer(path)] or [path] for path in paths]
    lengths = Counter(name for names in lists for name in names)
    values: dict[str, set[tuple[str, str]]] = {}
    for names, one in zip(lists, attributes, strict=True):
        longest = max(names, key=lambda name: lengths[name])
        for name, value in one.items():
            values.setdefault(name, set()).add((longest if lengths[longest] > 2 else "", value))
    numbering = {name for name, found in values.items() if len(found) == len(attributes)}
    return [frozenset(item for item in one.items() if item[0] not in numbering) for one in attributes]
