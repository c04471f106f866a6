"""An export in which layers that are alike are recorded once a kind, beside a full one."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from torch import nn

from ir.capture import capture
from ir.capture.checks import equivalence
from ir.capture.export import recording
from ir.capture.export.recording import Recording
from ir.graph import Graph
from ir.text.printer import print_graph

NEVER = 1_000_000  # layers alike, of which no model has as many
_NUMBER = re.compile(r"#\d+'")  # of a module that is kept whole, counted through all exports of a process


@dataclass(frozen=True)
class Exported:
    """The graph of a model, and how many calls of layers were left out of its export."""

    graph: Graph
    left_out: int


def exported(
    model: nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    shapes: Any = None,
    *,
    fewest: int,
    soft: bool = False,
    fix: Collection[str] = (),
) -> Exported:
    """An export in which `fewest` layers alike, or more, are recorded once a kind."""
    left_out = [0]
    members, full = recording.alike_modules, Recording.full

    def noted(recorded: Recording) -> Recording:
        left_out.append(len(recorded.repeats.instances) if recorded.repeats else 0)
        return full(recorded)

    with (
        patch.object(recording, "alike_modules", lambda model: members(model, fewest)),
        patch.object(equivalence, "alike_modules", lambda model: members(model, fewest)),
        patch.object(Recording, "full", noted),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of state that no stage has
        return Exported(capture(model, args, kwargs, dynamic_shapes=shapes, soft=soft, fix=fix), left_out[-1])


def differences(one: Graph, other: Graph) -> list[str]:
    """The facts in which two graphs differ, notes aside."""
    facts = {
        "nodes": [_NUMBER.sub("'", print_graph(replace(graph, notes=()))) for graph in (one, other)],
        "places": [[node.where for node in graph.nodes] for graph in (one, other)],
        "variables": [[v.variables for node in graph.nodes for v in node.results] for graph in (one, other)],
        "modules": [list(graph.modules.items()) for graph in (one, other)],
        "constants": [[(c.fqn, c.data.dtype, c.data.tolist()) for c in graph.constants] for graph in (one, other)],
    }
    return [name for name, (first, second) in facts.items() if first != second]
