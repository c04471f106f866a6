"""Modules of which a stage runs only a part: which part."""

from __future__ import annotations

from collections.abc import Mapping

from codegen.structure.regions import modules_around
from ir.graph import Call, Graph


def partial_modules(graph: Graph, stage: int) -> Mapping[str, str]:
    """ "Start", "Middle", "End" or "Ends" for each module that `stage` does not run as a whole, by path.

    Of the calls of `graph`, the whole program; those that may be repeated in other stages do not count.
    """
    here: dict[str, list[bool]] = {}
    for node in graph.nodes:
        if isinstance(node, Call) and not node.cheap:
            for path in modules_around(node):
                here.setdefault(path, []).append(node.stage == stage)
    return {path: _PARTS[found[0], found[-1]] for path, found in here.items() if any(found) and not all(found)}


_PARTS = {(True, False): "Start", (False, False): "Middle", (False, True): "End", (True, True): "Ends"}
