"""Stage files within torch.distributed.pipelining: trained in two processes as the uncut model is in one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from examples import train_1f1b
from passes.compilation.api import compile_model
from tests.support.model_cases import CASES
from tests.support.planning import slow_machine

SCRIPT = Path(train_1f1b.__file__)


def python(*arguments: object) -> str:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=SCRIPT.parents[1], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses_of(model: nn.Module) -> list[float]:
    """The mean loss of each step, over the same microbatches."""
    optimizer = torch.optim.SGD(model.parameters(), lr=train_1f1b.LEARNING_RATE)
    means: list[float] = []
    for step in range(train_1f1b.STEPS):
        losses: list[torch.Tensor] = []
        for ids in train_1f1b.batch(step).chunk(train_1f1b.MICROBATCHES):
            losses.append(train_1f1b.next_token_loss(model(input_ids=ids).logits, ids))
            (losses[-1] / train_1f1b.MICROBATCHES).backward()
        optimizer.step()
        optimizer.zero_grad()
        means.append(torch.stack(losses).mean().item())
    return means


@pytest.mark.slow
def test_1f1b_in_two_processes_trains_as_the_uncut_model_does(tmp_path: Path) -> None:
    python("-m", "passes.compile", SCRIPT, "--stages", 2, "-o", tmp_path / "llama")
    launched = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, SCRIPT)
    printed = python(*launched, tmp_path / "llama")
    found = [float(loss) for loss in re.findall(r"^step \d+: loss (\S+)$", printed, re.MULTILINE)]
    expected = losses_of(train_1f1b.model())
    assert found == pytest.approx(expected, rel=1e-6)
    assert expected[-1] < expected[0]


def test_parameters_take_gradients_and_give_them_to_what_came_in(tmp_path: Path) -> None:
    layers = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
    x = torch.randn(3, 8)
    compile_model(layers, (x,), out=tmp_path / "out", cluster=slow_machine(2))
    first, second = (train_1f1b.load(tmp_path / "out", i, torch.device("cpu")) for i in range(2))
    second(*first(x))[0].square().sum().backward()
    layers(x).square().sum().backward()
    found = {name: p.grad for stage in (first, second) for name, p in stage.named_parameters()}
    assert found.keys() == dict(layers.named_parameters()).keys()
    assert all(torch.equal(grad, layers.get_parameter(name).grad) for name, grad in found.items())


def test_stages_that_are_no_chain_are_refused(tmp_path: Path) -> None:
    case = CASES["long skips"]
    compile_model(case.build(), case.calls()[0].args, out=tmp_path / "out", cluster=slow_machine(4))
    with pytest.raises(SystemExit, match="stage 3 receives something else than what stage 2 sends: they are no chain"):
        train_1f1b.load(tmp_path / "out", 3, torch.device("cpu"))
