"""Random modules: their stages compute what they do, or a message says why not.  `make fuzz` tries thousands more."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.fuzz.check import Expected, Fault, Given, check, same_results
from tests.fuzz.generator import generate

SEEDS = [  # 24 modules that take little time, the first four of which were once wrong
    *(400907, 402065, 402102, 403595, 12, 15, 19, 22, 23, 24, 28, 30, 32, 33, 34, 35, 36, 39, 40, 41),
    *(44, 48, 49, 50),
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_module(seed: int, tmp_path: Path) -> None:
    program = generate(seed)
    file = tmp_path / f"seed_{seed}.py"
    file.write_text(program.source)
    verdict = check(file, tmp_path / "out")
    assert not verdict.found, f"{verdict.kind}: {verdict.reason}\n{program.source}"


def test_a_step_after_rounding_is_no_difference() -> None:
    call = Given("transposed inputs", (), {}, exact=False)
    wanted = Expected(torch.tensor([0.0, 5.0]), (), moved=(torch.tensor([1.0, 5.0]),))
    same_results(call, wanted, torch.tensor([1.0, 5.0]))
    with pytest.raises(Fault, match=r"result 0 \(torch.float32\) differs by 2"):
        same_results(call, wanted, torch.tensor([2.0, 5.0]))
