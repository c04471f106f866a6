"""OR-tools' CP-SAT solver within a time limit, interruptible by Ctrl-C."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from ortools.sat.python import cp_model

from passes.partitioners.deadline import Deadline

WORKERS = 4

Linear: TypeAlias = cp_model.LinearExpr | int
"""A linear expression over the variables of a program."""


def run_solver(program: cp_model.CpModel, deadline: Deadline) -> tuple[cp_model.CpSolver, cp_model.CpSolverStatus]:
    """Solve a program; the solver returned holds the values of its best solution and the bound.

    The solver's own handler of SIGINT is off: it would end the search early and return as if nothing had happened.
    So that Python raises KeyboardInterrupt at once, the search runs in a second thread.
    """
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = max(deadline.left(), 0.01)
    solver.parameters.num_workers = WORKERS
    solver.parameters.catch_sigint_signal = False
    with ThreadPoolExecutor(1) as thread:
        search = thread.submit(solver.solve, program)
        try:
            return solver, search.result()
        except BaseException:
            solver.stop_search()
            raise
