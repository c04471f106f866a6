"""Partitioners: cut a weighted DAG into pipeline stages, as well as can be proven.  No torch in here.

In the order in which a problem meets them:

    problem/    a problem, a solution, and the value of a split
    solver      from a problem to its solution, and to a plainer one: the other files in their order
    deadline    the time limit
    sharing     searches side by side
    rivals      splits better than a given one, and the proof that there are none
    condense    units: nodes that no stage boundary can separate
    units       the problem as arrays over units
    search/     a good cut at once
    proof/      a better cut, or the proof that there is none
    one_batch/  both at once where the time of one batch counts
    shortage    the error where nothing fits

`python -m passes.partitioners INSTANCE.json` solves a published instance.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from passes.partitioners.solver import check_capacity as check_capacity
    from passes.partitioners.solver import given as given
    from passes.partitioners.solver import plainest as plainest
    from passes.partitioners.solver import solve as solve

__all__ = ["check_capacity", "given", "plainest", "solve"]


def __getattr__(name: str) -> Any:
    """`solve` is imported when it is asked for: the command line's help lists objectives without OR-tools."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("passes.partitioners.solver"), name)
