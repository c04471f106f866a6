"""The top of a stage file: its docstring, its imports, and the tables `RECEIVES` and `SENDS`."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from textwrap import wrap

from codegen.lines.classes import FUSED, PAGED, QUANTIZED
from codegen.lines.line import LINE_LENGTH
from codegen.lines.stage_file import StageFile
from codegen.spelling.literals import shape_source
from codegen.text.helpers import files_beside
from codegen.text.weight_reader import imports
from ir.analysis.memory import stored_bytes
from ir.graph import Param, Value
from ir.text.units import format_bytes


def head(file: StageFile, linked: bool, body: str) -> Iterator[str]:
    """The docstring, and the imports that the `body` of the file needs."""
    stage, plan = file.stage, file.plan
    program = f" in the program {file.program}" if file.program else ""
    yield f'"""{file.model}, stage {stage.index} of {len(plan.stages)}{program}, for {stage.device.name}.'
    yield ""
    for value in stage.graph.inputs:
        yield f"takes    {value.name}: {value.type}, {_origin(file.stage.source_of(value))}"
    for value in stage.graph.outputs:
        yield f"returns  {value.name}: {value.type}, {_goal(file, value)}"
    if file.opaque.packages:
        yield f"needs    {', '.join(file.opaque.packages)}, for {', '.join(file.opaque.modules)}"
    yield from (f"needs    {name}, which is beside this file" for name in files_beside(file))
    params = sum(isinstance(v, Param) and not v.buffer for v in stage.stored)
    yield f"holds    {params} parameters, {format_bytes(stored_bytes(stage.stored))}"
    arguments = [*(v.name for v in stage.graph.inputs), *(f"{s}={s}" for s in file.sizes)]
    alone = f'{file.cls}.load("{file.weights}", device="cpu")({", ".join(arguments)})'
    yield from wrap(alone, LINE_LENGTH, initial_indent="alone    ", subsequent_indent=" " * 9)
    yield from ('"""', "")
    yield from _imports(file, linked, body)


def _imports(file: StageFile, linked: bool, body: str) -> Iterator[str]:
    read = {n.id for n in ast.walk(ast.parse(body)) if isinstance(n, ast.Name)}
    own = [*imports(linked), *["import math"] * ("math" in read), *["from typing import Any"] * ("Any" in read)]
    yield from sorted(own, key=lambda line: (line.startswith("from"), line))
    yield from ("", "import torch", "from torch import nn")
    yield from ["from torch.nn import functional as F"] * ("F" in read)
    beside = [f"from {name} import {name}" for name in (FUSED, PAGED, QUANTIZED) if name in read]
    yield from ("", *beside) if beside else ()
    yield from file.opaque.imports()
    yield from _registering(file)
    yield from ["", "aten = torch.ops.aten"] * ("aten" in read)


def _registering(file: StageFile) -> Iterator[str]:
    """Imports of what registers the operators from outside torch, unless this process did so already."""
    for found in file.registrations:
        if found.module:
            namespace, _, name = found.operator.partition("::")
            yield from ("", f'if not hasattr(torch.ops.{namespace}, "{name}"):', f"    import {found.module}")


def _origin(source: int | None) -> str:
    return "an input of the model" if source is None else f"from stage {source}"


def _goal(file: StageFile, value: Value) -> str:
    stages = [f"stage {s}" for s in file.stage.targets_of(value)]
    outputs = [f"output {i} of the model" for i in file.outputs_of(value)]
    return "to " + " and ".join(stages + outputs)


def tables(file: StageFile) -> Iterator[str]:
    """The tables of the values that the stage receives and sends."""
    stage = file.stage
    yield "# name: (from which stage, or None for an input of the model; dtype; shape)"
    sources = {v: f"{file.stage.source_of(v)}" for v in stage.graph.inputs}
    yield from _table("RECEIVES", sources)
    yield from ("", "# name: (to which stages; as which outputs of the model; dtype; shape)")
    targets = {v: f"{list(file.stage.targets_of(v))}, {list(file.outputs_of(v))}" for v in stage.graph.outputs}
    yield from _table("SENDS", targets)


def _table(name: str, ends: Mapping[Value, str]) -> Iterator[str]:
    """A table of values with their ends, dtypes and shapes; one that has a single row is a line."""
    rows = [f'"{v.name}": ({end}, {v.type.dtype}, {_shape(v)})' for v, end in ends.items()]
    if len(rows) == 1 and len(line := f"{name} = {{{rows[0]}}}") <= LINE_LENGTH:
        yield line
        return
    yield f"{name} = {{"
    yield from (f"    {row}," for row in rows)
    yield "}"


def _shape(value: Value) -> str:
    items = [f'"{d}"' if isinstance(d, str) else str(d) for d in shape_source(value.type.shape)]
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
