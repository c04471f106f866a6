"""The cuts that people make today: a stage for each node of a program."""

from __future__ import annotations

import logging
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from math import inf

from accelerate import infer_auto_device_map
from accelerate.utils import get_balanced_memory

from passes.partitioners.problem import evaluate
from tests.benchmarks.cuts.models import MODELS
from tests.benchmarks.cuts.programs import Program

logging.getLogger("accelerate").setLevel(logging.ERROR)  # it warns that the devices are not here


class NoCut(Exception):
    """There is no such cut of this program."""


def equal_layers(program: Program, stages: int) -> list[int]:
    """As many layers in each stage; what comes before goes with the first, what comes after with the last."""
    units = _units(program)
    layers = max(units) - 1
    if layers < stages:
        raise NoCut(f"{layers} layers")
    return [min(max(unit - 1, 0), layers - 1) * stages // layers for unit in units]


def equal_parameters(program: Program, stages: int) -> list[int]:
    """Runs of whole layers, the largest of which has as few bytes of parameters as can be.

    The head and the embedding count as layers, as for DeepSpeed's `partition_method="parameters"`.
    """
    units = _units(program)
    size = [0.0] * (max(units) + 1)
    for weight in program.problem.weights:
        for unit in {units[node] for node in weight.readers}:
            size[unit] += weight.bytes
    if len(size) < stages:
        raise NoCut(f"{len(size)} layers")
    starts = _balanced(size, stages)
    return [bisect_right(starts, unit) - 1 for unit in units]


def accelerate_map(program: Program, stages: int) -> list[int]:
    """The device map that accelerate infers, with its balanced memory, for a model whose layers stay whole.

    Stages must not run back. Where the map does (the head with its tied embedding; modules that are listed in
    another order than they run), either what would run back moves on, or what ran ahead waits: as is better.
    """
    entry = MODELS[program.name]
    model, _ = entry.make()
    whole = sorted({type(m).__name__ for name, m in model.named_modules() if re.fullmatch(entry.layer, name)})
    unlimited = dict.fromkeys(range(stages), 1 << 60)
    memory = get_balanced_memory(model, unlimited, no_split_module_classes=whole)
    devices = _devices(program.modules, infer_auto_device_map(model, memory, no_split_module_classes=whole))
    waiting = [*accumulate(reversed(devices), min)][::-1]
    return min(_forward(devices), waiting, key=lambda cut: bottleneck(program, stages, cut))


BASELINES: Mapping[str, Callable[[Program, int], list[int]]] = {
    "equal layers": equal_layers,
    "equal parameters": equal_parameters,
    "accelerate": accelerate_map,
}


def bottleneck(program: Program, stages: int, cut: Sequence[int]) -> float:
    """Seconds of the slowest stage; these cuts may leave devices empty."""
    return evaluate(replace(program.onto(stages), every_device=False), cut)


def _units(program: Program) -> list[int]:
    """0 before the first layer, i in the i-th layer and up to the next one, one more behind the last layer."""
    layer = re.compile(rf"(?:{MODELS[program.name].layer})(?=\.|$)")
    names = [found[0] if (found := layer.match(module)) else "" for module in program.modules]
    number = {name: i for i, name in enumerate(dict.fromkeys(filter(None, names)), start=1)}
    last = max(i for i, name in enumerate(names) if name)
    inside = [number.get(name, 0) for name in names[: last + 1]]
    return _forward(inside + [len(number) + 1] * (len(names) - last - 1))


def _forward(numbers: Sequence[int]) -> list[int]:
    """The same numbers, where none is less than one before: program order is an order of execution."""
    return list(accumulate(numbers, max))


def _devices(modules: Sequence[str], device_of: Mapping[str, int]) -> list[int]:
    """The device of each module or of the one around it; what has none goes with the node before it."""
    devices: list[int] = []
    for module in modules:
        around = accumulate(module.split("."), lambda path, part: f"{path}.{part}")
        before = devices[-1] if devices else 0
        devices.append(next((device_of[path] for path in around if path in device_of), before))
    return devices


def _balanced(size: Sequence[float], parts: int) -> list[int]:
    """Where the runs start that cover a row of sizes and of which the largest is as small as can be."""
    until = [0.0, *accumulate(size)]
    best = [(total, [0]) for total in until]  # for the first i sizes in one run: its size, and its start
    for part in range(1, parts):
        best = [
            min(((max(best[j][0], total - until[j]), [*best[j][1], j]) for j in range(part, i)), default=(inf, []))
            for i, total in enumerate(until)
        ]
    return best[-1][1]
