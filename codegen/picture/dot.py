"""Pictures of a plan, as Graphviz source."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import graphviz

from codegen.picture.boxes import Box, caption, identifier, module_boxes, operator_boxes, stage_boxes, words
from codegen.picture.detail import Detail
from codegen.picture.grouping import MeanSizes
from codegen.picture.palette import GREY, colours
from ir.analysis.memory import peak_bytes, stored_bytes
from ir.graph import Call, Node, Value
from ir.objects.signature import output_names
from ir.plan import Stage, StagePlan
from ir.text.call_sizes import format_mix
from ir.text.units import format_bytes, format_seconds

_BOXES = {Detail.modules: module_boxes, Detail.operators: operator_boxes, Detail.stages: stage_boxes}

_FONT = {"fontname": "Helvetica,Arial,sans-serif", "fontcolor": "#222222"}
_PAGE = _FONT | {"fontsize": "16", "labelloc": "t", "labeljust": "l", "pad": "0.3", "nodesep": "0.3", "ranksep": "0.4"}
_NODE = _FONT | {"fontsize": "11", "shape": "box", "style": "rounded,filled", "margin": "0.14,0.07", "height": "0.3"}
_EDGE = _FONT | {"fontsize": "10", "color": "#888888", "penwidth": "0.8", "arrowsize": "0.6"}
_QUICK = {"splines": "line", "nslimit": "0.2", "nslimit1": "0.2", "mclimit": "0.1"}  # minutes become seconds
_MANY = 500  # boxes


def boxes_of(plan: StagePlan, detail: Detail = Detail.modules) -> tuple[Box, ...]:
    """The boxes that `draw` shows of a plan; in the SVG, the n-th has the id `box-n`."""
    return _BOXES[detail](plan, MeanSizes(plan.graph))


def draw(plan: StagePlan, detail: Detail = Detail.modules, title: str = "") -> str:
    """The source of a picture with a cluster for each stage; values on cuts have their type and bytes.

    In the SVG, what belongs to a stage has the class `stage-N`, for a page that has colours of its own.
    With a title, there is a heading that says what the picture is of, and for which sizes its numbers hold.
    """
    sizes = MeanSizes(plan.graph)
    boxes = boxes_of(plan, detail)
    ids = {box: f"box-{i}" for i, box in enumerate(boxes)}
    box_of: dict[Node, Box] = {node: box for box in boxes for node in box.nodes}
    outputs = dict(zip(output_names(plan.graph.signature), plan.graph.outputs, strict=True))
    dot = graphviz.Digraph("plan")
    dot.attr("graph", label=_heading(plan, title, sizes) if title else "", bgcolor="white", **_PAGE)
    if len(boxes) > _MANY:
        dot.attr("graph", **_QUICK)
    dot.attr("node", color=GREY.line, fillcolor="white", **_NODE)
    dot.attr("edge", **_EDGE)
    for stage in plan.stages:
        dot.subgraph(_cluster(plan, stage, {box: ids[box] for box in boxes if box.stage == stage.index}))
    for name, value in outputs.items():
        shown = identifier(f"output {name}")
        dot.node(shown, label=words(name, str(value.type)), shape="ellipse")
        dot.edge(box_of[plan.graph.producer[value]].name, shown)
    _flow(dot, plan, box_of)
    points = _cuts(dot, plan, box_of, sizes)
    _arrange(dot, plan, box_of, points)
    return dot.source


def to_svg(dot_source: str, limit: float = 60.0) -> str:
    """Have Graphviz draw a picture; "" where its program `dot` is not installed, or not done in `limit` seconds.

    Takes less than a second but for thousands of operators, where it can take hours.
    """
    try:
        drawn = subprocess.run(
            ["dot", "-Tsvg"], input=dot_source, capture_output=True, check=True, encoding="utf-8", timeout=limit
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return drawn.stdout


def render(dot_source: str, svg: Path) -> bool:
    """Write a picture to a file; False where it could not be drawn."""
    text = to_svg(dot_source)
    if text:
        svg.write_text(text, encoding="utf-8")
    return bool(text)


def _heading(plan: StagePlan, title: str, sizes: MeanSizes) -> str:
    """The heading of a picture: the model, and the sizes for which its bytes and seconds hold."""
    split = plan.graph.split
    facts = [f"{len(plan.stages)} stages on {len(set(plan.graph.placement))} devices"]
    if split.value:
        facts.append(f"{format_seconds(split.value)} a batch")
    facts.append(f"{format_bytes(sum(sizes.at(t.value.type.nbytes) for t in plan.transfers))} over cuts")
    if plan.graph.hints:
        facts.append("at " + format_mix([(call.sizes, call.share) for call in plan.graph.mix]))
    return caption(title, " · ".join(facts))


def _cluster(plan: StagePlan, stage: Stage, boxes: Mapping[Box, str]) -> graphviz.Digraph:
    """The boxes of a stage, with their ids, in its frame; those of one module in a frame of their own."""
    look, known_as = colours(stage.index), {"class": f"stage stage-{stage.index}"}
    frame = graphviz.Digraph(f"cluster_{stage.index}")
    frame.attr(label="", style="rounded,filled", color=look.line, fillcolor=look.fill, margin="12", **known_as)
    heading = {"shape": "plain", "fillcolor": "transparent", "fontsize": "14", "class": "heading"}
    frame.node(_name(stage), label=_title(plan, stage), **heading)
    for i, within in enumerate(dict.fromkeys(box.within for box in boxes)):
        inner = graphviz.Digraph(f"cluster_{stage.index}_{i}") if within else frame
        for box in (box for box in boxes if box.within == within):
            shade = {"color": GREY.line, "fillcolor": GREY.fill} if box.aside else {"color": look.line}
            called = {"id": boxes[box], "class": "box aside" if box.aside else f"box stage-{stage.index}"}
            inner.node(box.name, label=box.label, tooltip=graphviz.escape(box.tooltip), **shade, **called)
        if within:
            inner.attr(label=caption("", within), style="rounded,dashed", color=look.line, fontsize="11", **known_as)
            frame.subgraph(inner)
    return frame


def _title(plan: StagePlan, stage: Stage) -> str:
    """The title of a stage: its device, its seconds, and whether it fits.

    It is the label of a node, as lines run around nodes but straight across the label of a cluster.
    """
    held = (
        f"weights {format_bytes(stored_bytes(stage.stored))}",
        f"activations {format_bytes(peak_bytes(stage.graph))}",
    )
    return caption(f"stage {stage.index} · {stage.device.name}", *_seconds(plan, stage.index), *held)


def _seconds(plan: StagePlan, stage: int) -> list[str]:
    """The predicted time of a stage's device; nothing before the stages were split."""
    loads, placement = plan.graph.split.loads, plan.graph.placement
    if not loads:
        return []
    own = loads[placement[stage]]
    share = f"{own / (sum(loads) or 1):.0%} of all"
    slowest = ", the slowest" if own == max(loads) and len(set(loads)) > 1 else ""
    others = [str(i) for i, device in enumerate(placement) if device == placement[stage] and i != stage]
    shared = [f"with stage {', '.join(others)}"] if others else []
    return [f"{format_seconds(own)} a batch", *shared, share + slowest]


def _flow(dot: graphviz.Digraph, plan: StagePlan, box_of: Mapping[Node, Box]) -> None:
    """Thin lines for what enters the model and what stays in a stage."""
    lines: dict[tuple[str, str], Mapping[str, str]] = {}
    for node, box in box_of.items():
        for value in node.operands:
            maker = plan.graph.producer.get(value)
            if value in plan.graph.inputs:
                dot.node(_input(value, box.stage), label=words(value.name, str(value.type)), shape="ellipse")
                lines[_input(value, box.stage), box.name] = {"style": "dashed"}
            elif isinstance(maker, Call) and box_of[maker] is not box:
                lines[box_of[maker].name, box.name] = {"style": "dashed"} if box_of[maker].aside else {"weight": "8"}
    for (tail, head), look in lines.items():
        dot.edge(tail, head, **look)


def _cuts(dot: graphviz.Digraph, plan: StagePlan, box_of: Mapping[Node, Box], sizes: MeanSizes) -> dict[str, int]:
    """Bold lines for what crosses stages, one for all that goes the same way.

    What several boxes of a stage read arrives there once, at a point.  Returns the points, each with its stage.
    """
    points: dict[str, int] = {}
    ways: dict[tuple[Box, tuple[Box, ...]], list[Value]] = {}
    for transfer in plan.transfers:
        readers = dict.fromkeys(box_of[node] for node in plan.graph.users.get(transfer.results[0], ()))
        maker = box_of[plan.graph.producer[transfer.value]]
        ways.setdefault((maker, tuple(readers)), []).append(transfer.value)
    nbytes = {way: sum(sizes.at(v.type.nbytes) for v in values) for way, values in ways.items()}
    for (tail, readers), values in ways.items():
        line, stage = colours(tail.stage).line, readers[0].stage
        known_as = {"class": f"cut stage-{tail.stage}"}
        look = {"color": line, "fontcolor": line, "weight": "8" if stage == tail.stage + 1 else "1", **known_as}
        look["penwidth"] = f"{1.2 + 2 * (nbytes[tail, readers] / (max(nbytes.values()) or 1)) ** 0.5:.1f}"
        label = caption("", *(_crossing(value, sizes) for value in values), size=10)
        if len(readers) == 1:
            dot.edge(tail.name, readers[0].name, label=label, **look)
            continue
        point = f"{values[0].name} in stage {stage}"
        points[point] = stage
        frame = graphviz.Digraph(f"cluster_{stage}")
        small = {"shape": "point", "width": "0.08", "height": "0.08"}
        frame.node(point, label="", color=line, fillcolor=line, **small, **known_as)
        dot.subgraph(frame)
        dot.edge(tail.name, point, label=label, **look)
        for reader in readers:
            dot.edge(point, reader.name, color=line, **known_as)
    return points


def _arrange(dot: graphviz.Digraph, plan: StagePlan, box_of: Mapping[Node, Box], points: Mapping[str, int]) -> None:
    """Invisible lines that put stages under one another, and the title of each beside its first box."""
    producer = plan.graph.producer
    for stage in plan.stages:
        boxes = list(dict.fromkeys(box for box in box_of.values() if box.stage == stage.index))
        asides = [box for box in boxes if box.aside]
        tails = list(dict.fromkeys(box_of[producer[t.value]].name for t in stage.recvs))
        if not boxes:  # nothing but copies
            continue
        first = next((box for box in boxes if not (box.aside and tails)), boxes[0])
        hanging = [_name(stage)] if first.within else [box.name for box in asides]
        if not first.within:
            read = {producer.get(value) for node in first.nodes for value in node.operands}
            dot.subgraph(_row(stage, [*(box.name for box in asides if read & set(box.nodes)), first.name]))
        hanging += [point for point, stage_of_point in points.items() if stage_of_point == stage.index]
        for tail in tails:
            for name in hanging:
                dot.edge(tail, name, style="invis")


def _row(stage: Stage, names: list[str]) -> graphviz.Digraph:
    """The title of a stage and some of its boxes beside one another."""
    frame, row = graphviz.Digraph(f"cluster_{stage.index}"), graphviz.Digraph(f"row_{stage.index}")
    row.attr(rank="same")
    row.edge(_name(stage), names[0], style="invis")
    for name in names:
        row.node(name)
    frame.subgraph(row)
    return frame


def _crossing(value: Value, sizes: MeanSizes) -> str:
    """The caption of a value, with room at its end: browsers may have wider letters than Graphviz measures."""
    return f"\u00a0{value.name} {value.type} · {format_bytes(sizes.at(value.type.nbytes))}" + 4 * "\u00a0"


def _input(value: Value, stage: int) -> str:
    return f"input {value.name} to stage {stage}"


def _name(stage: Stage) -> str:
    return f"title of stage {stage.index}"
