"""Partitioners: cut a weighted DAG into pipeline stages, as well as can be proven.  No torch in here.

In the order in which a problem meets them:

    problem/    a problem, a solution, and the value of a split
    solve       from a problem to its solution: the other files in their order
    deadline    the time limit
    condense    units: nodes that no stage boundary can separate
    units       the problem as arrays over units
    search/     a good cut at once
    proof/      a better cut, or the proof that there is none
    shortage    the error where nothing fits

`python -m passes.partitioners INSTANCE.json` solves a published instance.
"""

from passes.partitioners.solve import solve

__all__ = ["solve"]
