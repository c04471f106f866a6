"""OR-tools' CP-SAT solver within a time limit, interruptible by Ctrl-C."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeAlias, Union

from passes.partitioners.deadline import Deadline

if TYPE_CHECKING:
    from ortools.sat.python import cp_model

WORKERS = 4
STEPS_ALONE = 12.0  # of a search by one worker, by the solver's own count: one takes some seconds

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
    """Solve a program by several ways of searching side by side.

    The solver returned holds the values of its best solution and the bound.
    """
    solver = _solver(deadline, WORKERS)
    return solver, Ending.of(_run(solver, program))


def run_in_steps(
    program: cp_model.CpModel, deadline: Deadline, alone_for: float | None = None
) -> tuple[cp_model.CpSolver, Ending]:
    """Solve a program of many booleans as `run_solver` does, but first by one worker that learns clauses alone.

    That takes `alone_for` at most, by default `STEPS_ALONE`, and one core, and its solution and its bound are the same
    on any machine. The solution is kept where the search by several workers finds none in the time that is left.
    """
    alone = _solver(deadline, workers=1)
    alone.parameters.max_deterministic_time = STEPS_ALONE if alone_for is None else alone_for
    alone.parameters.linearization_level = 0
    alone.parameters.cp_model_probing_level = 0
    status = _run(alone, program)
    if status.name in ("OPTIMAL", "INFEASIBLE") or deadline.passed():
        return alone, Ending.of(status)
    solver, ending = run_solver(program, deadline)
    found_alone = Ending.of(status) is Ending.solved and ending is Ending.unknown
    return (alone, Ending.solved) if found_alone else (solver, ending)


def _solver(deadline: Deadline, workers: int) -> cp_model.CpSolver:
    from ortools.sat.python import cp_model

    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = max(deadline.left(), 0.01)
    solver.parameters.num_workers = workers
    solver.parameters.catch_sigint_signal = False
    return solver


def _run(solver: cp_model.CpSolver, program: cp_model.CpModel) -> cp_model.CpSolverStatus:
    """The way in which a solver's search ends.

    Its own handler of SIGINT is off: it would end the search early and return as if nothing had happened.
    So that Python raises KeyboardInterrupt at once, the search runs in a second thread.
    """
    with ThreadPoolExecutor(1) as thread:
        search = thread.submit(solver.solve, program)
        try:
            return search.result()
        except BaseException:
            solver.stop_search()
            raise
