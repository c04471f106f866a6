"""A split that obeys all rules of a small problem, or the proof that there is none."""

from __future__ import annotations

from passes.partitioners.deadline import Deadline
from passes.partitioners.proof.cp_sat import Ending, run_solver
from passes.partitioners.proof.whole.held import held_terms
from passes.partitioners.proof.whole.placement import MOST_TERMS, Placement, size
from passes.partitioners.search.first_cut import Cut, judged
from passes.partitioners.shortage import shortage
from passes.partitioners.units import Core

_TRIES = 100  # solutions that break a rule which the program leaves out, as it rounds bytes down


def is_small(core: Core) -> bool:
    """Whether a program of all rules is small enough."""
    return size(core) + held_terms(core.problem) <= MOST_TERMS


def any_split(core: Core, deadline: Deadline) -> Cut:
    """A cut that obeys all rules.  Raises Infeasible if there is none, or none is found in time.

    The units of the core must be so small that no split parts one.
    """
    if size(core) > MOST_TERMS:
        raise shortage(core, proven=False)
    placement = Placement(core, peaks=is_small(core))
    for _ in range(_TRIES):
        solver, ending = run_solver(placement.program, deadline)
        if ending is not Ending.solved:
            raise shortage(core, proven=ending is Ending.impossible)
        stages = placement.placed(solver)
        if cut := judged(core, stages):
            return cut
        placement.program.add_bool_or(row[stage].negated() for row, stage in zip(placement.x, stages, strict=True))
    raise shortage(core, proven=False)
