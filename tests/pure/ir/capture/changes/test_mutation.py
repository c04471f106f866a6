"""Tensors that a model changes in place: the graph has no such thing, and computes the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ir.analysis.interpret import interpret
from ir.capture import capture
from ir.capture.program.in_place import functional
from ir.errors import CaptureError
from ir.graph import Call


class SliceWritten(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.new_empty(x.shape[0], 8)
        y[:, :4] = x
        y[:, 4:] = x.sin()
        return y * 2


class SortedClamped(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values, order = x.long().sort(dim=-1)
        small = values.float()
        values.clamp_(max=1)
        return values + order + small


class ViewReadAfter(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        view = y[:, :2]
        y.add_(1)
        return view + y.sum()


class ViewMadeAfter(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        before = y[:, :2].sum()
        y.add_(1)
        return y[:, 2:] + before


class WriteThroughView(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        view = y[:, :2]
        view.copy_(x[:, 2:])
        return y + view.sum()


class WriteBroadcast(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        y[:, :2] = x[:, :1]
        y[:, 2:] = 7
        return y


class ViewOfView(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        inner = y.view(-1).view(2, -1)
        y.relu_()
        return inner.sum() + y


class DropoutIsOff(nn.Module):
    """Dropout that is off returns its argument itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        torch.dropout(y, 0.5, train=False).add_(1)
        return y


class EinsumOfOne(nn.Module):
    """Einsum of one operand returns a view of it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        torch.einsum("ij->ji", y).add_(1)
        return y


class TypeStays(nn.Module):
    """type_as() of a tensor of that dtype returns it: here a view, made before a change and read after it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        view = y[0].type_as(x)
        y += 1
        return view * 2


class ExpandedByOne(nn.Module):
    """expand() by a first dimension of size 1, written to where other elements are infinite."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x / 0
        y.expand(1, -1, -1).flatten()[:3].fill_(0.5)
        return y


class ExpandedByTwoOnes(nn.Module):
    """expand() by two first dimensions of size 1, written to where other elements are infinite."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x / 0
        y.expand(1, 1, -1, -1).flatten()[:3].fill_(0.5)
        return y


class ExpandedToItself(nn.Module):
    """expand() to the same shape, written to where other elements are infinite."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x / 0
        y.expand_as(x).flatten()[:3].fill_(0.5)
        return y


class ReshapedAfter(nn.Module):
    """reshape() of what lies otherwise in memory than torch expects, beside a change."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        view = y[:, :2]
        y.add_(1)
        return y.transpose(0, 1).copysign(x.new_ones(4, 1)).reshape(-1) + view.sum()


class WrittenByOut(nn.Module):
    """A result that would lie otherwise in memory than what it is written to."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        view = y.transpose(0, 1)
        torch.mul(view.contiguous(), 2, out=view)
        return y


class FilledByAnother(nn.Module):
    """A change whose functional variant returns memory in another order."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        y.T.masked_fill_(y.T > 0.5, 0.5)
        return y.T


class StridedAgain(nn.Module):
    """A change by as_strided() of what type_as() returns as it is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        y.type_as(x).as_strided((1,), (1,)).relu_()
        return y


ALONE = (SliceWritten, SortedClamped, ViewMadeAfter)


@pytest.mark.slow
@pytest.mark.parametrize(
    "cls",
    [
        *ALONE,
        ViewReadAfter,
        WriteThroughView,
        WriteBroadcast,
        ViewOfView,
        DropoutIsOff,
        EinsumOfOne,
        TypeStays,
        ExpandedByOne,
        ExpandedByTwoOnes,
        ExpandedToItself,
        ReshapedAfter,
        WrittenByOut,
        FilledByAnother,
        StridedAgain,
    ],
)
def test_a_change_in_place(cls: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = cls(), list[bool]()
    needs = functional.needs_functional_form
    monkeypatch.setattr(
        "ir.capture.export.recording.needs_functional_form", lambda p: asked.append(needs(p)) or asked[-1]
    )
    graph = capture(model, (torch.randn(3, 4),), dynamic_shapes={"x": {0: "batch"}})
    assert not any(node.op._schema.is_mutable for node in graph.nodes if isinstance(node, Call))
    assert not any("operator by operator" in note for note in graph.notes)
    for batch in (1, 3, 5):
        x = 3 * torch.randn(batch, 4)
        found = interpret(graph, [x], {}).outputs
        expected = model(x.clone())
        torch.testing.assert_close(found[0], expected, rtol=0, atol=0)
        assert found[0].stride() == expected.stride()
    assert any(asked) == (cls not in ALONE)


class BufferWritten(nn.Module):
    """A running mean, written in place."""

    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.mean.copy_(self.mean * 0.5 + x.mean(0))
        return x - self.mean


class BufferAssigned(BufferWritten):
    """The same, as another tensor under the same name."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.mean = self.mean * 0.5 + x.mean(0)
        return x - self.mean


class BufferGrown(BufferWritten):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.mean = torch.cat([self.mean, x[0]])
        return x + self.mean.sum()


class BuffersChangePlaces(nn.Module):
    """What a buffer was before it is assigned anew is returned, read and put into another buffer."""

    one: torch.Tensor
    two: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("one", torch.ones(4))
        self.register_buffer("two", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        before = self.one.expand_as(x)
        self.one, self.two = self.two, self.one + x[0]
        return before, x * self.one


def test_what_a_buffer_was_outlives_an_assignment() -> None:
    model, x = BuffersChangePlaces(), torch.randn(3, 4)
    graph = capture(model, (x,))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state: dict[str, torch.Tensor] = {}
    for _ in range(3):
        outputs, state = interpret(graph, [x], weights, state)
        assert all(map(torch.equal, outputs, model(x)))


@pytest.mark.parametrize("cls", [BufferWritten, BufferAssigned])
def test_a_buffer_that_forward_changes_is_state(cls: type[nn.Module]) -> None:
    model, x = cls(), torch.randn(3, 4)
    graph = capture(model, (x,))
    ((state, _),) = graph.updates
    assert state.fqns == ("mean",)
    first, held = {"mean": torch.zeros(4)}, dict[str, torch.Tensor]()
    for _ in range(3):
        outputs, held = interpret(graph, [x], first, held)
        torch.testing.assert_close(outputs[0], model(x), rtol=0, atol=0)


@pytest.mark.slow
def test_a_buffer_that_becomes_another_size_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"makes mean of the model another size or type than it had"):
        capture(BufferGrown(), (torch.randn(3, 4),))
