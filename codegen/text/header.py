"""The top of a stage file: what the stage is, what comes in and goes out, and how to run it alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from textwrap import wrap

from codegen.lines.stage_file import StageFile
from codegen.spelling.literals import shape_source
from codegen.text.source import LINE_LENGTH, Source
from codegen.text.weight_reader import imports
from ir.graph import Param, Value
from ir.memory import stored_bytes
from ir.units import format_bytes


def emit_head(file: StageFile, src: Source, linked: bool, body: str) -> None:
    """The docstring, and the imports that the body of the file needs."""
    stage, plan = file.stage, file.plan
    src.line(f'"""{file.model}, stage {stage.index} of {len(plan.stages)}, for {stage.device.name}.')
    src.line()
    for value in stage.graph.inputs:
        src.line(f"takes    {value.name}: {value.type}, {_origin(file.stage.source_of(value))}")
    for value in stage.graph.outputs:
        src.line(f"returns  {value.name}: {value.type}, {_goal(file, value)}")
    if file.whole.packages:
        src.line(f"needs    {', '.join(file.whole.packages)}, for {', '.join(file.whole.modules)}")
    params = sum(isinstance(v, Param) and not v.buffer for v in stage.stored)
    src.line(f"holds    {params} parameters, {format_bytes(stored_bytes(stage.stored))}")
    src.line()
    arguments = [*(v.name for v in stage.graph.inputs), *(f"{s}={s}" for s in file.sizes)]
    alone = f'{file.cls}.load("{file.weights}", device="cpu")({", ".join(arguments)})'
    src.lines("\n".join(wrap(alone, LINE_LENGTH, initial_indent="Alone:   ", subsequent_indent=" " * 9)))
    src.line('"""')
    src.line()
    for line in _imports(file, linked, body):
        src.line(line)


def _imports(file: StageFile, linked: bool, body: str) -> Iterator[str]:
    needs = {name: bool(re.search(rf"\b{name}\b", body)) for name in ("math", "Any", "F", "aten")}
    standard = [*imports(linked).splitlines(), *(["import math"] if needs["math"] else [])]
    yield from sorted(standard)
    yield from ["from typing import Any"] if needs["Any"] else []
    yield from ("", "import torch", "from torch import nn")
    yield from ["from torch.nn import functional as F"] if needs["F"] else []
    yield from file.whole.imports()
    yield from ("", "aten = torch.ops.aten") if needs["aten"] else ()


def _origin(source: int | None) -> str:
    return "an input of the model" if source is None else f"from stage {source}"


def _goal(file: StageFile, value: Value) -> str:
    stages = [f"stage {s}" for s in file.stage.targets_of(value)]
    outputs = [f"output {i} of the model" for i in file.outputs_of(value)]
    return "to " + " and ".join(stages + outputs)


def emit_tables(file: StageFile, src: Source) -> None:
    """What the stage receives and sends, as data."""
    stage = file.stage
    src.line()
    src.line("# name: (from which stage, or None for an input of the model; dtype; shape)")
    with src.block("RECEIVES = {"):
        for v in stage.graph.inputs:
            src.line(f'"{v.name}": ({file.stage.source_of(v)}, {v.type.dtype}, {_shape(v)}),')
    src.line("}")
    src.line()
    src.line("# name: (to which stages; as which outputs of the model; dtype; shape)")
    with src.block("SENDS = {"):
        for v in stage.graph.outputs:
            row = f"{list(file.stage.targets_of(v))}, {list(file.outputs_of(v))}, {v.type.dtype}, {_shape(v)}"
            src.line(f'"{v.name}": ({row}),')
    src.line("}")


def _shape(value: Value) -> str:
    items = [f'"{d}"' if isinstance(d, str) else str(d) for d in shape_source(value.type.shape)]
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
