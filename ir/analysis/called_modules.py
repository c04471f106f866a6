"""The modules that a graph calls: their nodes, and those that a cut parts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ir.graph import Graph
from ir.text.names import listed_names

_NUMBERED = re.compile(r"(^|\.)\d+$")


def module_nodes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """The numbers of the nodes that each call of a module runs, those of modules inside it included, by its path."""
    found: dict[str, list[int]] = {}
    for i, node in enumerate(graph.nodes):
        for path in dict.fromkeys(frame.module for frame in node.where.frames):
            found.setdefault(path, []).append(i)
    return {path: tuple(nodes) for path, nodes in found.items()}


def layers(paths: Iterable[str]) -> tuple[str, ...]:
    """The modules that a reader of the model takes for its layers, and those beside them.

    These are the numbered ones (`model.layers.3`) that have none inside them, and the outermost ones that have none
    inside them (`lm_head`).
    """
    known = sorted(paths)
    numbered = [path for path in known if _NUMBERED.search(path)]
    whole = [path for path in known if path and not any(_inside(other, path) for other in numbered)]
    return tuple(path for path in whole if not any(_inside(path, other) for other in whole))


def place_of_cuts(modules: Mapping[str, tuple[int, ...]], stages: Iterable[int]) -> str:
    """The place where the stages of nodes part from each other: "between layers", or "inside model.layers.3"."""
    stage = list(stages)
    parted = [path for path, nodes in modules.items() if len({stage[i] for i in nodes}) > 1]
    innermost = [path for path in parted if path and not any(_inside(other, path) for other in parted)]
    inside = [path for path in innermost if not any(_inside(o, path) and _NUMBERED.search(o) for o in modules)]
    if not inside:
        return "between layers"
    return f"inside {listed_names(inside, 1)}"


def _inside(path: str, other: str) -> bool:
    return path.startswith(f"{other}.") if other else bool(path)
