"""Facts that stand in few files: kinds of devices, the end of processes, and the names of test files."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def files_with(pattern: str, *folders: str) -> set[str]:
    files = (file for folder in folders for file in (ROOT / folder).rglob("*.py"))
    return {file.relative_to(ROOT).as_posix() for file in files if re.search(pattern, file.read_text())}


def test_a_kind_of_device_touches_few_files() -> None:
    known = files_with(
        r"torch\.cuda\b|\.is_cuda\b|[\"']cuda[\"']|ProcessGroupNCCL", "ir", "passes", "codegen", "runtime"
    )
    assert known == {
        "ir/machine/kinds.py",
        "codegen/text/weight_reader.py",  # stage files import nothing of ours
        "ir/fused/fused_kernel.py",  # nor do files beside them, and the bits are those of one kind's kernels
        "runtime/device/kinds.py",
    }


def test_an_objective_touches_four_files() -> None:
    problem = "passes/partitioners/problem"
    assert files_with(r"Objective\.[a-z]", "ir", "passes", "codegen", "runtime") == {
        f"{problem}/objective.py",
        f"{problem}/evaluation.py",
        "passes/partitioners/search/first_cut.py",
        "passes/partitioners/proof/whole/assignment.py",
    }


def test_processes_are_ended_in_one_place() -> None:
    assert files_with(r"os\._exit|SIGKILL|sys\.exit\((?!main\(\)\))", "runtime") == {"runtime/distributed/exit.py"}
    assert files_with(r"(?<!\.)\bkill(_group|_rest_of_group)?\(", "runtime") == {
        "runtime/distributed/exit.py",
        "runtime/distributed/monitor.py",
        "runtime/processes/member.py",
        "runtime/processes/owner.py",
        "runtime/processes/start.py",
        "runtime/processes/watch.py",
        "runtime/serving/engines/engine_process.py",
        "runtime/serving/engines/stopped.py",
    }


def test_two_test_files_of_one_run_have_two_names() -> None:
    names = Counter(file.name for folder in ("e2e", "pure") for file in (ROOT / "tests" / folder).rglob("test_*.py"))
    assert [name for name, files in names.items() if files > 1] == []
