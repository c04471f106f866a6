"""The published instances: read, solved to their known optima with proof, and from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from passes.partitioners import solve
from passes.partitioners.__main__ import main
from passes.partitioners.problem import InvalidProblem, InvalidSplit, Problem, evaluate

INSTANCES = Path(__file__).parents[2] / "data" / "partition"
OPTIMA = {
    "bert24_layer": 17.7899,
    "resnet50_layer": 33.7747,
    "bert3_operator": 27.9186,
    "bert6_operator": 29.5795,
    "bert24_layer_training": 41.7458,
    "bert3_operator_training": 65.3031,
}
ON_ONE_ACCELERATOR = {"bert24_layer": 92.41, "resnet50_layer": 201.45, "bert3_operator": 49.35, "bert6_operator": 77.46}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMA)
def test_the_known_optimum_is_found_and_proven(name: str) -> None:
    problem = Problem.read(INSTANCES / f"{name}.json")
    solution = solve(problem)
    assert solution.value == pytest.approx(OPTIMA[name], rel=1e-4)
    assert solution.lower_bound == pytest.approx(OPTIMA[name], rel=1e-4)
    assert solution.optimal
    assert evaluate(problem, solution.stage_of) == solution.value
    assert set(solution.stage_of) == set(problem.ids)
    assert set(solution.stage_of.values()) <= set(range(len(problem.devices)))


@pytest.mark.parametrize("name", ON_ONE_ACCELERATOR)
def test_everything_on_one_accelerator_costs_its_time(name: str) -> None:
    problem = Problem.read(INSTANCES / f"{name}.json")
    if sum(node.bytes for node in problem.nodes) <= problem.devices[0].memory:
        assert evaluate(problem, dict.fromkeys(problem.ids, 0)) == pytest.approx(ON_ONE_ACCELERATOR[name], abs=0.01)
    else:
        with pytest.raises(InvalidSplit, match=r"device 0 needs .* of its"):
            evaluate(problem, dict.fromkeys(problem.ids, 0))


def test_the_command_line_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    instance, split = INSTANCES / "bert24_layer.json", tmp_path / "split.json"
    assert main([str(instance), "--time-limit", "20", "-o", str(split)]) == 0
    printed = capsys.readouterr().out
    assert "value    17.7899" in printed
    assert "(optimal)" in printed
    assert printed.count("accelerator") == 6
    stage_of = {int(node): stage for node, stage in json.loads(split.read_text())["stage_of"].items()}
    assert evaluate(Problem.read(instance), stage_of) == pytest.approx(17.7899, rel=1e-4)


def test_the_command_line_refuses_what_it_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "odd.json").write_text("{}")
    assert main([str(tmp_path / "odd.json")]) == 2
    assert main([str(tmp_path / "missing.json")]) == 2
    (tmp_path / "empty.json").write_text('{"nodes": [], "edges": []}')
    assert main([str(tmp_path / "empty.json")]) == 2
    errors = capsys.readouterr().err
    assert "odd.json is not a published partitioning instance: it lacks 'nodes'" in errors
    assert "empty.json is not a published partitioning instance: it has no nodes" in errors
    assert "missing.json: No such file or directory" in errors
    with pytest.raises(InvalidProblem):
        Problem.read(tmp_path / "odd.json")
