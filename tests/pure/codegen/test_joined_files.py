"""Files beside stages that are made of several of ours: they stand alone, and define each name once."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from ruff.__main__ import find_ruff_bin

from codegen.text.joined_files import joined_source
from ir.fused import fused_kernel
from ir.paged import attention
from ir.quantized_linear import column_order, linear

BESIDE_STAGES = (attention, fused_kernel, linear)


@pytest.mark.parametrize("module", BESIDE_STAGES)
def test_a_file_beside_stages_needs_nothing_of_ours(module: ModuleType) -> None:
    source = joined_source(module)
    imported = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ImportFrom)]
    assert not [n.module for n in imported if f"{n.module}".startswith("ir")]
    command = [find_ruff_bin(), "check", "--isolated", "--select=F", "--output-format=concise", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True)
    assert done.stdout.strip() == "All checks passed!"  # every name is defined, every import used


@pytest.mark.parametrize("module", BESIDE_STAGES)
def test_no_name_hides_one_of_another_file(module: ModuleType) -> None:
    body = ast.parse(joined_source(module)).body
    names = [statement.name for statement in body if isinstance(statement, ast.FunctionDef)]
    names += [t.id for s in body if isinstance(s, ast.Assign) for t in s.targets if isinstance(t, ast.Name)]
    assert len(names) == len({*names}) > 5


def test_what_a_file_needs_stands_above_it() -> None:
    names = [n.name for n in ast.parse(joined_source(linear)).body if isinstance(n, ast.FunctionDef)]
    assert names.index("multiply_row") < names.index("one_row") < names.index("quantized_linear")


def test_each_part_stands_below_its_files_name_and_docstring() -> None:
    source = joined_source(linear)
    comments = [line for line in source.splitlines() if line.startswith("# ---- ")]
    assert comments[0] == f"# ---- column_order: {column_order.__doc__}"
    assert comments[-1] == "# ---- linear"
    assert source.count(f"{linear.__doc__}") == source.count(f"{column_order.__doc__}") == 1


def test_a_file_that_needs_no_other_is_copied() -> None:
    assert joined_source(attention) == Path(str(attention.__file__)).read_text()
