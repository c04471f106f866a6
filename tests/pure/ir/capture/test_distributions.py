"""torch.distributions in forward: drawn and weighed as the model does, without the checks of their arguments."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, Normal

from ir.capture import capture
from ir.capture.export.replaced.distributions import UNCHECKED
from tests.support.checking import Call, assert_same, run_graph, run_model
from tests.support.models.functions import Function
from tests.support.models.model_cases import X
from tests.support.models.written import WIDTH, hidden


def weighed(x: Tensor) -> Any:
    """A sample, its probability, the entropy of a choice, and the distribution itself."""
    policy = Independent(Normal(x, x.exp()), 1)
    action = policy.rsample()
    return action, policy.log_prob(action), Categorical(logits=x).entropy(), Normal(x, 2.0)


def unsure(x: Tensor) -> Tensor:
    return Normal(x, 1.0, validate_args=False).log_prob(x + 1)


@pytest.mark.slow
@pytest.mark.parametrize(("compute", "notes"), [(weighed, (UNCHECKED,)), (unsure, ())])
def test_distributions_of_any_size_are_as_in_the_model(
    compute: Any, notes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Distribution, "_validate_args", True)  # torch.compile sets it for the whole process
    model = Function(compute)
    graph = capture(model, (hidden(),), dynamic_shapes=X)
    assert graph.notes == notes
    assert Distribution._validate_args  # as before
    calls = [Call.of(torch.randn(3, 7, WIDTH))]
    torch.manual_seed(5)
    wanted = [*run_model(model, calls)]
    torch.manual_seed(5)
    assert_same([*map(parts, wanted)], [*map(parts, run_graph(graph, calls, {}))])


def parts(result: Any) -> list[Tensor]:
    values = result if isinstance(result, tuple) else (result,)
    return [tensor for v in values for tensor in ([v.loc, v.scale] if isinstance(v, Normal) else [v])]
