"""Random modules: their stages compute what they do, or a message says why not.  `make fuzz` tries thousands more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.check import check
from tests.fuzz.generator import generate

SEEDS = range(40)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_module(seed: int, tmp_path: Path) -> None:
    program = generate(seed)
    file = tmp_path / f"seed_{seed}.py"
    file.write_text(program.source)
    verdict = check(file, tmp_path / "out")
    assert not verdict.found, f"{verdict.kind}: {verdict.reason}\n{program.source}"
