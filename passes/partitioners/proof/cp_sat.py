"""OR-tools' CP-SAT solver within a time limit, interruptible by Ctrl-C."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeAlias, Union

from passes.partitioners.deadline import Deadline

if TYPE_CHECKING:
    from ortools.sat.python import cp_model

WORKERS = 4

Linear: TypeAlias = Union["cp_model.LinearExpr", int]
"""A linear expression over the variables of a program."""


class Ending(Enum):
    """The way in which a search ended."""

    impossible = auto()  # proven to have no solution
    solved = auto()  # with a solution, the best or not
    unknown = auto()

    @classmethod
    def of(cls, status: cp_model.CpSolverStatus) -> Ending:
        known = {"INFEASIBLE": cls.impossible, "OPTIMAL": cls.solved, "FEASIBLE": cls.solved}
        return known.get(status.name, cls.unknown)


def new_program() -> cp_model.CpModel:
    """An empty program.  OR-tools is imported for it, which takes a while (with pandas), and most plans need none."""
    from ortools.sat.python import cp_model

    return cp_model.CpModel()


def run_solver(program: cp_model.CpModel, deadline: Deadline) -> tuple[cp_model.CpSolver, Ending]:
    """Solve a program; the solver returned holds the values of its best solution and the bound.

    The solver's own handler of SIGINT is off: it would end the search early and return as if nothing had happened.
    So that Python raises KeyboardInterrupt at once, the search runs in a second thread.
    """
    from ortools.sat.python import cp_model

    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = max(deadline.left(), 0.01)
    solver.parameters.num_workers = WORKERS
    solver.parameters.catch_sigint_signal = False
    with ThreadPoolExecutor(1) as thread:
        search = thread.submit(solver.solve, program)
        try:
            return solver, Ending.of(search.result())
        except BaseException:
            solver.stop_search()
            raise
