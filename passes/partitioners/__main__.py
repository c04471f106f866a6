"""The solver of published instances: `python -m passes.partitioners INSTANCE.json [--time-limit S] [-o split.json]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from passes.partitioners.problem.errors import Infeasible, InvalidProblem
from passes.partitioners.problem.model import Problem, Solution
from passes.partitioners.problem.objective import DEFAULT_OBJECTIVE, Objective
from passes.partitioners.solver import solve


def main(arguments: Sequence[str] | None = None, prog: str = "python -m passes.partitioners") -> int:
    """The exit status: 0, or 2 where the instance cannot be read or has no solution."""
    options = parser(prog).parse_args(arguments)
    try:
        problem = Problem.read(options.instance, options.objective)
    except (OSError, InvalidProblem) as error:
        return _fail(f"cannot read {options.instance}: {error.strerror}" if isinstance(error, OSError) else str(error))
    if options.output and (options.output.is_dir() or not options.output.absolute().parent.is_dir()):
        return _fail(f"cannot write {options.output}: it is a folder, or in a folder that is missing")
    begun = perf_counter()
    try:
        solution = solve(problem, options.time_limit)
    except Infeasible as error:
        return _fail(str(error))
    print("\n".join(_lines(problem, solution, perf_counter() - begun)))
    if options.output:
        options.output.write_text(json.dumps(_document(solution), indent=1) + "\n")
    return 0


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds >= 0:  # nan, too
        raise ValueError
    return seconds


def parser(prog: str) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog=prog,
        description="Cut a published instance into the best stages.",
        epilog=f"Example: {prog} instance.json --time-limit 20 -o split.json",
    )
    options.add_argument("instance", type=Path, metavar="INSTANCE.json")
    options.add_argument(
        "--objective",
        choices=[objective.value for objective in Objective],
        default=DEFAULT_OBJECTIVE.value,
        help=f"the quantity to make small ({DEFAULT_OBJECTIVE.value})",
    )
    options.add_argument("--time-limit", type=_seconds, default=60.0, metavar="S", help="seconds (60)")
    options.add_argument("-o", "--output", type=Path, metavar="split.json", help="write the stage of each node here")
    return options


def _lines(problem: Problem, solution: Solution, seconds: float) -> list[str]:
    proof = "optimal" if solution.optimal else "not proven"
    head = [
        f"value    {solution.value:.6g}",
        f"bound    {solution.lower_bound:.6g}",
        f"gap      {solution.gap:.2%} ({proof})",
        f"seconds  {seconds:.2f}",
        "",
        "device        nodes     load  compute  receive     send    bytes",
    ]
    held = list(solution.stage_of.values())
    for number, (device, load) in enumerate(zip(problem.devices, solution.loads, strict=True)):
        name = f"{number} {'cpu' if device.free_transfers else 'accelerator'}"
        nodes = sum(problem.device_of(stage) == number for stage in held)
        head.append(
            f"{name:<13}{nodes:>6}{load.seconds(problem.overlap):>9.4g}{load.compute:>9.4g}"
            f"{load.receive:>9.4g}{load.send:>9.4g}{load.memory:>9.3g}"
        )
    return head


def _document(solution: Solution) -> dict[str, object]:
    return {
        "value": solution.value,
        "lower_bound": solution.lower_bound,
        "optimal": solution.optimal,
        "stage_of": {str(node): stage for node, stage in solution.stage_of.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
