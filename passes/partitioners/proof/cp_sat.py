"""OR-tools' CP-SAT within a time limit, in a way that Ctrl-C ends."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from ortools.sat.python import cp_model

from passes.partitioners.clock import Clock

WORKERS = 4


def run(program: cp_model.CpModel, clock: Clock) -> tuple[cp_model.CpSolver, cp_model.CpSolverStatus]:
    """Solve a program; the solver holds the best values and the bound.

    OR-tools takes an interrupt for a wish to stop early, and returns as if nothing had been: it is kept from that,
    and runs beside the main thread, where Python raises KeyboardInterrupt at once.
    """
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = max(clock.left(), 0.01)
    solver.parameters.num_workers = WORKERS
    solver.parameters.catch_sigint_signal = False
    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(solver.solve, program)
        try:
            return solver, running.result()
        except BaseException:
            solver.stop_search()
            raise
