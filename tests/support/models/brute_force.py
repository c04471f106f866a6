"""The best split of a small problem, by trying all of them."""

from __future__ import annotations

from itertools import product
from math import inf

from passes.partitioners.problem import InvalidSplit, Problem, evaluate


def optimum(problem: Problem) -> float:
    """The least value of any split, inf if there is none."""
    best = inf
    for stages in product(range(len(problem.devices)), repeat=len(problem.nodes)):
        try:
            best = min(best, evaluate(problem, stages))
        except InvalidSplit:
            continue
    return best
