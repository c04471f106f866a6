"""Stage files within torch.distributed.pipelining: trained in two processes as the uncut model is in one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from examples import train_1f1b
from passes.compilation.api import compile_model
from tests.support.models.model_cases import CASES
from tests.support.models.planning import slow_machine
from tests.support.running.commands import Shell
from tests.support.running.forked_jobs import run

SCRIPT = Path(train_1f1b.__file__)


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
def test_1f1b_in_two_processes_trains_as_the_uncut_model_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled = Shell.open(tmp_path, monkeypatch, capsys).run(f"{SCRIPT} --stages 2 -o llama")
    assert compiled.status == 0, compiled.err
    given = [str(SCRIPT), str(tmp_path / "llama")]
    trained = run(tmp_path, f"import runpy\nsys.argv = {given}\nrunpy.run_path(sys.argv[0], run_name='__main__')\n", 2)
    assert trained.status == 0, trained.err
    found = [float(loss) for loss in re.findall(r"^step \d+: loss (\S+)$", trained.out, re.MULTILINE)]
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
    found: dict[str, Any] = {name: p.grad for stage in (first, second) for name, p in stage.named_parameters()}
    wanted: dict[str, Any] = dict(layers.named_parameters())
    assert found.keys() == wanted.keys()
    assert all(torch.equal(grad, wanted[name].grad) for name, grad in found.items())


def test_stages_that_are_no_chain_are_refused(tmp_path: Path) -> None:
    case = CASES["long skips"]
    compile_model(case.build(), case.calls()[0].args, out=tmp_path / "out", cluster=slow_machine(4))
    with pytest.raises(SystemExit, match="stage 3 receives something else than what stage 2 sends: they are no chain"):
        train_1f1b.load(tmp_path / "out", 3, torch.device("cpu"))
