"""The operators in each box of the picture, with their costs and their lines in the stage files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from codegen.picture.boxes import Box
from codegen.picture.dot import boxes_of
from codegen.picture.grouping import MeanSizes
from codegen.report.notes import Notes, StageSource
from ir.analysis.memory import stored_bytes
from ir.graph import Call, Constant, Node, Param, State
from ir.plan import StagePlan
from ir.text.printer import op_name

Row = dict[str, Any]

COLUMNS = ("name", "module", "type", "flops", "seconds", "line", "where")  # of an operator; there are thousands


def parts(plan: StagePlan, sources: Sequence[StageSource], notes: Notes) -> list[Row]:
    """One a box, in the order of the ids in the picture."""
    sizes, lines = MeanSizes(plan.graph), dict(_lines(plan, sources))
    return [_part(box, sizes, lines, notes.seconds) for box in boxes_of(plan)]


def _lines(plan: StagePlan, sources: Sequence[StageSource]) -> Iterator[tuple[Node, int]]:
    """The line of each node of the whole graph, whose stages have copies of its nodes in the same order."""
    for stage, source in zip(plan.stages, sources, strict=False):  # files of other programs follow
        nodes = (n for n in plan.graph.nodes if n.stage == stage.index and isinstance(n, Call))
        for node, copy in zip(nodes, stage.graph.nodes, strict=True):
            if copy in source.lines:
                yield node, source.lines[copy]


def _part(box: Box, sizes: MeanSizes, lines: Mapping[Node, int], seconds: Mapping[Node, float]) -> Row:
    weights = (v for n in box.nodes for v in n.operands if isinstance(v, (Param, Constant, State)))
    return {
        "stage": box.stage,
        "title": box.title,
        "kind": box.kind,
        "weights": stored_bytes(weights),
        "operators": len(box.nodes),
        "flops": sizes.flops(box.nodes),
        "bytes": sum(sizes.at(n.cost.bytes) for n in box.nodes),
        "seconds": sum(seconds.get(n, 0.0) for n in box.nodes),
        "groups": _groups(box, sizes, lines, seconds),
    }


def _groups(box: Box, sizes: MeanSizes, lines: Mapping[Node, int], seconds: Mapping[Node, float]) -> list[Row]:
    """The operators of each module that a box stands for; of neighbours that are alike, those of the first."""
    of_path: dict[str, list[Call]] = {}
    for node in box.nodes:
        of_path.setdefault(_path(node, box.paths), []).append(node)
    known = groupby(of_path.items(), key=lambda item: [_shape(n, sizes) for n in item[1]])
    groups: list[Row] = []
    for _, alike in known:
        paths, nodes = zip(*alike, strict=True)
        rows = [_operator(n, paths[0], sizes, lines, seconds) for n in nodes[0]]
        groups.append({"paths": list(paths), "operators": rows})
    return groups


def _path(node: Call, paths: Sequence[str]) -> str:
    return next((p for p in paths if f"{node.where.module}.".startswith(f"{p}.")), paths[0] if paths else "")


def _shape(node: Call, sizes: MeanSizes) -> tuple[object, ...]:
    """A key that is equal for modules that are alike."""
    return op_name(node), tuple(str(v.type) for v in node.results), sizes.at(node.cost.flops), node.view


def _operator(
    node: Call, path: str, sizes: MeanSizes, lines: Mapping[Node, int], seconds: Mapping[Node, float]
) -> list[Any]:
    """The row of an operator, with the fields of `COLUMNS`."""
    inner = node.where.module.removeprefix(path).removeprefix(".") if path else node.where.module
    where = f"{node.where.file}:{node.where.line}" if node.where.file else ""
    time = float(f"{seconds.get(node, 0.0):.4g}")
    return [
        op_name(node).split(".")[1],
        inner,
        _types(node),
        sizes.at(node.cost.flops),
        time,
        lines.get(node, 0),
        where,
    ]


def _types(node: Call) -> str:
    """`3 × float32[batch, 768]` where all are equal."""
    types = [str(v.type) for v in node.results]
    return f"{len(types)} × {types[0]}" if len(types) > 1 and len(set(types)) == 1 else ", ".join(types)
