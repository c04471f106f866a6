"""Modules of which a stage runs only a part: which part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from codegen.structure.regions import modules_around
from ir.graph import Call, Graph


@dataclass(frozen=True)
class PartialModules:
    """The modules of a program that its stages run in part; calls that may be repeated in other stages do not count."""

    graph: Graph  # the whole program

    def of_stage(self, stage: int) -> Mapping[str, str]:
        """ "Start", "Middle", "End" or "Ends" for each module that `stage` does not run as a whole, by path."""
        divided = {path: stages for path, stages in self._stages.items() if stage in stages and len({*stages}) > 1}
        return {path: _PARTS[stages[0] == stage, stages[-1] == stage] for path, stages in divided.items()}

    @cached_property
    def _stages(self) -> Mapping[str, list[int]]:
        """The stages of the calls of each module, in their order."""
        found: dict[str, list[int]] = {}
        for node in self.graph.nodes:
            if isinstance(node, Call) and not node.cheap:
                for path in modules_around(node):
                    found.setdefault(path, []).append(node.stage)
        return found


_PARTS = {(True, False): "Start", (False, False): "Middle", (False, True): "End", (True, True): "Ends"}
