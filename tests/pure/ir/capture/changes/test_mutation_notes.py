"""Changes in place that memory layouts decide: noted, refused, or known to need no note."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

from ir.analysis.interpret import interpret
from ir.capture import capture
from ir.errors import CaptureError

pytestmark = pytest.mark.slow


class WritesExpanded(nn.Module):
    """A change of a buffer, which several elements of the tensor that is written to are."""

    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.mean.expand_as(x).chunk(2)[0].zero_()
        return x + self.mean


class WritesUnfolded(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        windows = x.double().unfold(1, 2, 1)
        torch.mul(windows, 2, out=windows)
        return windows


@pytest.mark.parametrize("cls", [WritesExpanded, WritesUnfolded])
def test_a_change_of_elements_that_share_memory_is_refused(cls: type[nn.Module]) -> None:
    with pytest.raises(
        CaptureError, match=r"elements share memory.*\n  in the model .*test_mutation_notes.py:\d+\): .*\n.*clone"
    ):
        capture(cls(), (torch.randn(4, 4),), dynamic_shapes={"x": {0: "batch"}})


@pytest.mark.parametrize("name", ["flatten", "reshape", "contiguous"])
def test_a_change_that_only_one_layout_shows_is_noted(name: str) -> None:
    class Changed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x + 1
            getattr(y, name)(*((-1,) if name == "reshape" else ())).add_(1)
            return y

    [note] = capture(Changed(), (torch.randn(4, 4),)).notes
    assert note.startswith(f"{name}() returns a view or a copy, by the layout of what it is given, and forward changes")


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.reshape(-1)[1:].mul_(2),  # nothing reads what it is a view of
        lambda x: torch.einsum("ij,jk->ik", x, x).reshape(-1, 2).mul_(x.new_ones(2)),
        lambda x: (x.T + 1).contiguous()[1:].mul_(x.reshape(x.shape[1], -1)[1:]),  # the sizes alone are shared
    ],
)
def test_a_change_that_no_layout_shows_is_not_noted(change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    class Changed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return change(x + 1) * 2

    assert capture(Changed(), (torch.randn(4, 4),)).notes == ()


@pytest.mark.parametrize(
    ("change", "noted"),
    [
        (lambda y: y.T.mul_(y[:, 0]), True),
        (lambda y: y.add_(y.T), True),
        (lambda y: y[1:].copy_(y[:-1]), True),
        (lambda y: y.mul_(y), False),
        (lambda y: y[:, :2].mul_(y[:, 2:]), False),
        (lambda y: y.sub_(y.mean()), False),
    ],
)
def test_a_change_that_reads_what_it_changes_elsewhere_is_noted(
    change: Callable[[torch.Tensor], object], noted: bool
) -> None:
    class Changed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x + 1
            change(y)
            return y

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the model may compute something else than its export
        notes = capture(Changed(), (torch.randn(4, 4),)).notes
    assert any("depends on their order; stages read all before" in note for note in notes) == noted


@pytest.mark.parametrize(
    ("compute", "note"),
    [
        (
            lambda x: x * x.stride(0),
            "forward asks for stride() at tests/pure/ir/capture/changes/test_mutation_",
        ),
        (lambda x: x if x.is_contiguous() else -x, "forward asks for is_contiguous() at tests/"),
        (lambda x: x[1:].storage_offset() + x, "forward asks for storage_offset() at tests/"),
        (lambda x: x.T.as_strided((4, 4), (4, 1)) + 1, "as_strided() reads an input's memory by addresses, in "),
    ],
)
def test_what_asks_for_the_layout_of_an_input_is_noted(
    compute: Callable[[torch.Tensor], torch.Tensor], note: str
) -> None:
    class Asks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return compute(x)

    [found] = capture(Asks(), (torch.randn(4, 4),)).notes
    assert found.startswith(note)
    assert found.endswith("stages compute what the model does for the example's layout")


@pytest.mark.parametrize(
    "change",
    [
        lambda y: (y.flatten(), y.add_(1))[0],  # read after the change
        lambda y: y.flatten()[1:].unsqueeze(0).mul_(2).sum() + y,  # changed by way of it
        lambda y: torch.mul(z := y.flatten(), 2, out=z).sum() + y,
    ],
)
def test_what_a_change_reaches_in_some_layouts_alone_is_noted(change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    class Changed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return change(x + 1) * 2

    [note] = capture(Changed(), (torch.randn(4, 4),)).notes
    assert note.startswith("flatten() returns a view or a copy")


@pytest.mark.parametrize(
    ("part", "least"), [(lambda x: x[:, :2], {"batch": 2, "seq": 1}), (lambda x: x.mT, {"batch": 1, "seq": 2})]
)
def test_a_size_of_1_for_which_a_copy_would_be_a_changed_view_is_refused(
    part: Callable[[torch.Tensor], torch.Tensor], least: dict[str, int]
) -> None:
    class Changed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + 1
            part(x).flatten(1).add_(1) if least["batch"] == 1 else part(x).flatten().add_(1)
            return x * 2

    graph = capture(Changed(), (torch.randn(3, 5, 8),), dynamic_shapes={"x": {0: "batch", 1: "seq"}})
    assert {str(size): low for size, (low, _) in graph.ranges.items()} == least


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y.add_(1).sum() + y.flatten(),  # made after the change
        lambda y: y.flatten().sum() + y.add_(1),  # read before it alone
    ],
)
def test_views_of_before_or_after_a_change_need_no_note(change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    class Changed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return change(x + 1) * 2

    assert capture(Changed(), (torch.randn(4, 4),)).notes == ()


def test_memory_of_the_models_own_is_read_by_addresses_without_a_note() -> None:
    class Windows(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * 2).contiguous().as_strided((3, 8), (4, 1))

    assert capture(Windows(), (torch.randn(4, 4),)).notes == ()


@pytest.mark.parametrize("views", [torch.broadcast_tensors, lambda *given: torch.meshgrid(*given, indexing="ij")])
def test_views_that_schemas_do_not_tell_of_are_followed(views: Callable[..., tuple[torch.Tensor, ...]]) -> None:
    class Changed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * 2
            view = views(y, x)[0]
            y += 1
            return view * 2

    x = torch.randn(4)
    graph = capture(Changed(), (x,))
    assert graph.notes == ()
    assert torch.equal(interpret(graph, [x], {}).outputs[0], Changed()(x))


def test_contiguous_tensors_that_nothing_is_written_to_need_no_note() -> None:
    class Read(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x.contiguous() + 1).add_(1)

    assert capture(Read(), (torch.randn(4, 4),)).notes == ()


def test_a_change_of_memory_of_a_known_layout_needs_no_note() -> None:
    class Changed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.zeros(4, 4)
            y.flatten().add_(1)
            return x + y

    assert capture(Changed(), (torch.randn(4, 4),)).notes == ()


def test_an_input_that_is_changed_through_detach_is_warned_of() -> None:
    class Changed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x.detach()[:] = 0.5
            return x * 2

    with pytest.warns(UserWarning, match="the model changes its input x in place; stages do not"):
        capture(Changed(), (torch.randn(4, 4),))
