"""The boxes of a picture: portions of a program with their captions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from textwrap import wrap

from codegen.picture.grouping import MeanSizes, Portion, asides, group_modules, operators
from ir.analysis.memory import stored_bytes
from ir.graph import Call, Constant, Param, State
from ir.plan import StagePlan
from ir.text.printer import op_name, print_node
from ir.text.units import format_bytes

_WIDTH = 44  # letters in a line
_ASIDE = "masks and positions"


@dataclass(frozen=True, eq=False)
class Box:
    """Nodes of one stage that a picture shows as one."""

    name: str  # unique in the picture
    stage: int
    nodes: tuple[Call, ...]
    label: str
    title: str  # in one line
    kind: str = ""  # the class of the module, if it is one
    paths: tuple[str, ...] = ()  # of the modules that it stands for
    tooltip: str = ""
    within: str = ""  # the module in whose frame the box stands, if any
    aside: bool = False  # drawn so that it does not draw the eye


def words(first: str, *others: str) -> str:
    """A label, which Graphviz reads as HTML: the first line bold, the others small, all centred."""
    return f"<{'<br/>'.join(_lines(first, others, 10))}>"


def caption(first: str, *others: str, size: int = 11) -> str:
    """A label that starts at the left."""
    end = '<br align="left"/>'
    return f"<{end.join(_lines(first, others, size))}{end}>"


def _lines(first: str, others: Iterable[str], size: int) -> list[str]:
    bold = [f"<b>{_plain(first)}</b>"] if first else []
    return bold + [f'<font point-size="{size}">{_plain(line)}</font>' for line in others if line]


def _plain(text: str) -> str:
    """Text that stands for itself in a label: no tags, and no \\N for the name of the node."""
    return escape(text).replace("\\", "\\\\")


def identifier(text: str) -> str:
    """A name for a node; a colon would start the name of a port."""
    return text.replace(":", "_")


def module_boxes(plan: StagePlan, sizes: MeanSizes) -> tuple[Box, ...]:
    """One a part of each stage, and one for all that is cheap in it."""
    graph = plan.graph
    total = sizes.flops(n for n in graph.nodes if isinstance(n, Call))
    used: dict[str, int] = {}
    boxes: list[Box] = []
    for stage, nodes in _aside(plan):
        label = words(_ASIDE, f"{len(nodes)} operator{'s' if len(nodes) > 1 else ''}")
        boxes.append(Box(f"{stage}/{_ASIDE}", stage, nodes, label, _ASIDE, aside=True))
    for part in group_modules(graph, sizes):
        kind = graph.modules.get(part.paths[0], "")
        what = " + ".join(operators(part.nodes)) if part.own else part.name or kind
        name = identifier(f"{part.stage}/{what}")
        used[name] = used.get(name, 0) + 1
        name = f"{name} ({used[name]})" if used[name] > 1 else name
        label = _own(part) if part.own else _module(part, kind, _amounts(part, sizes, total))
        place = str(part.nodes[0].where)
        boxes.append(Box(name, part.stage, part.nodes, label, what, kind, part.paths, tooltip=place))
    return tuple(boxes)


def operator_boxes(plan: StagePlan, sizes: MeanSizes) -> tuple[Box, ...]:
    """One a node, framed by the modules that the picture of modules shows."""
    aside = [_operator(n, stage, _ASIDE) for stage, nodes in _aside(plan) for n in nodes]
    parts = group_modules(plan.graph, sizes)
    return (*aside, *(_operator(n, part.stage, _home(n, part)) for part in parts for n in part.nodes))


def stage_boxes(plan: StagePlan, sizes: MeanSizes) -> tuple[Box, ...]:
    """One a stage, with the names of its parts."""
    parts = group_modules(plan.graph, sizes)
    boxes: list[Box] = []
    for stage in range(len(plan.stages)):
        nodes = tuple(n for n in plan.graph.nodes if n.stage == stage and isinstance(n, Call))
        names = [part.name for part in parts if part.stage == stage and not part.own]
        boxes.append(Box(f"stage {stage}", stage, nodes, words("", *_wrap(", ".join(names))), f"stage {stage}"))
    return tuple(boxes)


def _aside(plan: StagePlan) -> list[tuple[int, tuple[Call, ...]]]:
    nodes = asides(plan.graph)
    return [(stage, tuple(n for n in nodes if n.stage == stage)) for stage in sorted({n.stage for n in nodes})]


def _module(part: Portion, kind: str, amounts: str) -> str:
    kind = f"{len(part.paths)} × {kind}" if len(part.paths) > 1 else kind
    return words(part.name or kind, kind if part.name else "", *_wrap(part.which), amounts)


def _own(part: Portion) -> str:
    return words("", *_wrap(", ".join(operators(part.nodes))))


def _operator(node: Call, stage: int, within: str) -> Box:
    title = op_name(node).split(".")[1]
    name, place = node.results[0].name, f"{print_node(node)}\n{node.where}"
    return Box(name, stage, (node,), words("", title), title, tooltip=place, within=within, aside=within == _ASIDE)


def _home(node: Call, part: Portion) -> str:
    """The module of a folded part that a node belongs to."""
    if part.own:
        return ""
    modules = (p for p in part.paths if not p or f"{node.where.module}.".startswith(f"{p}."))
    return next(modules, "")


def _amounts(part: Portion, sizes: MeanSizes, total: int) -> str:
    """`27.0 MiB · 8 % of flops`, without what there is none of."""
    weights = stored_bytes(v for n in part.nodes for v in n.operands if isinstance(v, (Param, Constant, State)))
    share = sizes.flops(part.nodes) / total if total else 0
    texts = [format_bytes(weights)] if weights else []
    return " · ".join([*texts, f"{share:.0%} of flops"] if share >= 0.005 else texts)


def _wrap(text: str, most: int = 3) -> list[str]:
    lines = wrap(text, _WIDTH)
    return lines if len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1]} …"]
