"""follow-rows against the definition: the parts of a batch give the parts of its result."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ir.analysis.interpret import interpret
from ir.capture import capture
from ir.graph import Graph
from ir.microbatching import Microbatching
from passes.follow_rows import FollowRows
from tests.support.models.hard_models import WIDTH, Branching, Layers
from tests.support.models.planning import machine

HERE = machine(1)
BATCH = 6


class Function(nn.Module):
    """A function of `x` [batch, 4, 8] as a model with weights to use."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.table = nn.Parameter(torch.randn(4, 8))
        self.matrix = nn.Parameter(torch.randn(8, 8))
        self.kernel = nn.Parameter(torch.randn(4, 4, 3))

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x, self)


def followed(model: nn.Module) -> Graph:
    graph = capture(model.eval(), (torch.randn(BATCH, 4, 8),), dynamic_shapes={"x": {0: "batch"}})
    return FollowRows().run(graph, HERE)


def in_parts(graph: Graph, x: torch.Tensor, weights: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The results for each third of the batch, put together as `graph.microbatching` says."""
    found = [interpret(graph, [part], weights).outputs for part in x.chunk(3)]
    dims = graph.microbatching.outputs
    return [t[0] if d is None else torch.cat(t, d) for d, t in zip(dims, zip(*found, strict=True), strict=True)]


def rows_of(x: torch.Tensor) -> torch.Tensor:
    return torch.arange(x.shape[0])


def experts(
    x: torch.Tensor, m: Function, put_back: Callable[..., Any], known: bool = True, each: int = 2
) -> torch.Tensor:
    """Each of `4 * batch` tokens goes to two of four experts: all are sorted by expert, and put back."""
    tokens = x.flatten(0, 1)
    weights, chosen = (tokens @ m.matrix[:, :4]).softmax(-1).topk(2)
    keys, order = torch.sort(chosen.flatten() if known else chosen.flatten() % 4)
    ends = torch.histc(keys.float(), bins=4, min=0, max=3).cumsum(0, dtype=torch.int32)
    there = tokens[order // each].masked_fill((keys > 3)[:, None], 0.0)
    matrices = m.matrix.expand(4, 8, 8) * torch.arange(1, 5)[:, None, None]
    made = torch._grouped_mm(there.bfloat16(), matrices.bfloat16(), ends).float()  # type: ignore[attr-defined]
    return put_back(tokens, made * weights.flatten()[order][:, None], order)


def inverted(tokens: torch.Tensor, made: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.shape[0])
    return made[inverse].view(-1, 2, 8).sum(1)


def put_in_place(tokens: torch.Tensor, made: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    there = torch.zeros_like(made)
    there[order] = made
    return there.view(-1, 2, 8).sum(1)


def groups(x: torch.Tensor, m: Function, falling: bool, others: int) -> torch.Tensor:
    """The sizes of groups of rows that are sorted by keys, counted of these or of other keys."""
    chosen = (x[:, 0] @ m.matrix[:, :4]).topk(2)[1]
    order = chosen[:, 0].sort(descending=falling)[1]
    return torch.histc(chosen[:, others][order].float(), bins=4, min=0, max=3)


def numbers_inverted(x: torch.Tensor, m: Function) -> torch.Tensor:
    tokens = x[:, :2].flatten(0, 1)
    order = tokens[:, 0].argsort()
    inverse = torch.empty_like(order)
    inverse[order] = rows_of(x)[:, None].expand(-1, 2).flatten()
    return tokens[order][inverse]


def partly_written(x: torch.Tensor, m: Function) -> torch.Tensor:
    order, there = x[:, 0, 0].argsort(), torch.zeros(2 * x.shape[0])
    there[order] = x[:, 0, 0][order]
    return there


def numbers_put_back(x: torch.Tensor, m: Function) -> torch.Tensor:
    order = x[:, 0, 0].argsort()
    return x + rows_of(x)[order][order.argsort()][:, None, None]


def added_to_numbers(x: torch.Tensor, m: Function) -> torch.Tensor:
    order = x[:, 0, 0].argsort()
    return rows_of(x).float().index_add(0, order, x[:, 0, 0][order])


def heard(x: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """Sound, as it is heard again from its spectrum."""
    return torch.istft(torch.stft(x, 8, 2, window=window, return_complex=True), 8, 2, window=window)


BACK: dict[str, Callable[..., Any]] = {
    "inverted": inverted,
    "sorted again": lambda tokens, made, order: made[order.argsort()].view(-1, 2, 8).sum(1),
    "put in place": put_in_place,
    "added up": lambda tokens, made, order: torch.zeros_like(tokens).index_add(0, order // 2, made),
}

APART: dict[str, Callable[..., Any]] = {
    **{f"experts, {name}": lambda x, m, back=back: experts(x, m, back) for name, back in BACK.items()},
    "added along another dimension": lambda x, m: x.index_add(1, torch.tensor([0, 0, 3]), x[:, :3] * 2),
    "filled along another dimension": lambda x, m: x.index_fill(2, torch.tensor([1, 5]), 0.5).softmax(-1),
    "written beside": lambda x, m: torch.slice_scatter(x, x[:, :2] * 2, 1, 2, 4),
    "complex": lambda x, m: torch.view_as_real(torch.view_as_complex(x.view(-1, 4, 4, 2)) * 1j),
    "parts of complex numbers": lambda x, m: (torch.complex(x, x * 2).conj().imag, torch.polar(x.abs(), x).angle()),
    "spectra": lambda x, m: (torch.fft.rfft(x, dim=1).real, torch.fft.irfft2(torch.fft.fft2(x))),
    "sound": lambda x, m: heard(x.flatten(1), m.table[0] ** 2 + 1),
    "images at places": lambda x, m: F.grid_sample(
        x[:, None], F.affine_grid(x[:, :2, :3].tanh(), [x.shape[0], 1, 3, 5], align_corners=False), align_corners=False
    ),
    "geometry": lambda x, m: (
        torch.linalg.cross(x[..., :3], x[..., 3:6], dim=-1),
        F.cosine_similarity(x, m.table, dim=-1),
        torch.cdist(x, m.table),
        torch.cdist(x, x * 2),
        torch.cdist(x[:, 0], m.table),
    ),
    "places in order": lambda x, m: (
        torch.searchsorted(m.table[0].sort().values, x),
        torch.searchsorted(x.sort(-1).values, x * 2),
        torch.bucketize(x, m.table[0].sort().values),
    ),
    "diagonals": lambda x, m: (x.diagonal(1, 1, 2), (x @ x.mT).movedim(0, 2).movedim((2, 0), (0, 1))),
    "linear algebra": lambda x, m: (
        torch.linalg.inv(x @ x.mT + torch.eye(4)),
        torch.linalg.slogdet(x @ x.mT + torch.eye(4)).logabsdet,
        torch.linalg.svdvals(x),
    ),
    "steps": lambda x, m: (
        torch.gru_cell(x[:, 0, :4], torch.zeros(x.shape[0], 2), m.matrix[:6, :4], m.matrix[:6, :2]),
        torch.lstm_cell(x[:, 0, :4], [x[:, 1, :2], x[:, 2, :2]], m.matrix[:, :4], m.matrix[:, :2]),
    ),
    "elementwise": lambda x, m: torch.tanh(x * 2 + m.table).clamp(min=0),
    "reshape": lambda x, m: (x.reshape(-1, 8) @ m.matrix).view(x.shape[0], 4, 8),
    "rows inside": lambda x, m: x.transpose(0, 1).contiguous(),
    "merged with what is behind": lambda x, m: x.flatten(0, 1),
    "heads": lambda x, m: x.view(x.shape[0], 4, 2, 4).transpose(1, 2).softmax(-1).transpose(1, 2).flatten(2),
    "reduced": lambda x, m: (x.mean(1), x.amax(-1, keepdim=True), x.sum((1, 2)), x.max(-1).values),
    "products": lambda x, m: (x @ m.matrix, x @ x.mT, m.table @ x.mT, torch.einsum("bij,jk->bik", x, m.matrix)),
    "layers": lambda x, m: F.layer_norm(F.conv1d(x, m.kernel, padding=1), (8,), m.table[0]),
    "attention": lambda x, m: F.scaled_dot_product_attention(x, x, x, m.table @ m.table.T),
    "attention of shared heads": lambda x, m: F.scaled_dot_product_attention(
        x.view(-1, 4, 2, 4).transpose(1, 2), *[x[:, None, :, :4]] * 2, enable_gqa=True
    ),
    "embedding": lambda x, m: F.embedding(x.argmax(-1) % 4, m.table),
    "own rows": lambda x, m: x[rows_of(x), x[:, 0].argmax(-1) % 4],
    "gather": lambda x, m: x.gather(1, x.argsort(1)),
    "joined and cut": lambda x, m: torch.cat([x, x.flip(2)], 1).chunk(2, 1)[1],
    "twice": lambda x, m: torch.add(*torch.cat([x, x + 1]).chunk(2)),
    "expanded": lambda x, m: torch.cat([m.table.expand(x.shape[0], -1, -1), x], 1),
    "zeros": lambda x, m: torch.cat([torch.zeros(x.shape[0], 1, 8), x], 1),
    "sort": lambda x, m: (x.sort(-1).values, x.topk(2, 1).indices, x.cumsum(1), x.log_softmax(2)),
    "pad": lambda x, m: F.pad(x, (1, 1, 0, 1)),
    "pieces": lambda x, m: [t * 2 for t in (*x.unbind(1), *x.split(3, 2))],
    "padded mask": lambda x, m: x.masked_fill((x.argmax(-1) > 3)[..., None], 0.0),
    "without rows": lambda x, m: (x + 1, m.table * 2),
    "a size": lambda x, m: (x + 1, x.shape[0] * 2),
}

MIXED: dict[str, tuple[Callable[..., Any], str]] = {
    "experts whose keys might be below 0": (
        lambda x, m: experts(x, m, inverted, known=False),
        "histc in .* it computes over the rows",
    ),
    "groups in falling order": (lambda x, m: groups(x, m, True, 0), "histc in .* it computes over the rows"),
    "groups of other keys": (lambda x, m: groups(x, m, False, 1), "histc in .* it computes over the rows"),
    "numbers for an inverse": (numbers_inverted, "index_put in .* it writes across the rows"),
    "a part that is written": (partly_written, "index_put in .* it writes across the rows"),
    "numbers that are put back": (numbers_put_back, "index in .* it reads across the rows"),
    "sums with numbers": (added_to_numbers, "index_add in .* it writes across the rows"),
    "experts that read other tokens": (lambda x, m: experts(x, m, inverted, each=3), "it reads across the rows"),
    "experts left in order": (lambda x, m: experts(x, m, lambda t, made, o: made), "do not lie one after another"),
    "sorted and summed": (
        lambda x, m: experts(x, m, lambda t, made, o: made.view(-1, 2, 8).sum(1)),
        "it moves rows that",
    ),
    "a spectrum over rows": (lambda x, m: torch.fft.fft(x, dim=0), "fft_fft in .* it computes over the rows"),
    "distances between rows": (lambda x, m: torch.cdist(x[:, 0], x[:, 1]), "cdist in .* it combines different rows"),
    "an order in numbers": (lambda x, m: x[:, 0, 0].argsort() * 2, "it computes with row numbers"),
    "numbers": (lambda x, m: rows_of(x), "holds the numbers of rows"),
    "at places of all": (
        lambda x, m: x.flatten(0, 1) + torch.arange(4 * x.shape[0])[:, None],
        "it computes with row numbers",
    ),
    "written beside, by rows": (lambda x, m: torch.slice_scatter(x, x[:1], 0, 0, 1), "it takes some rows out of all"),
    "a part of the rows": (lambda x, m: torch.slice_scatter(x, m.table[None], 0, 0, 1), "it writes across the rows"),
    "copied at rows": (
        lambda x, m: x.index_copy(0, torch.tensor([0]), torch.ones(1, 4, 8)),
        "it writes across the rows",
    ),
    "numbers for all": (lambda x, m: x * torch.rand(8), "rand in .* its random numbers are those of all rows"),
    "softmax": (lambda x, m: x.softmax(0), "softmax in .* it computes over the rows"),
    "statistics": (lambda x, m: x - x.mean(0), "mean in"),
    "all": (lambda x, m: x / x.sum(), "sum in"),
    "the number": (lambda x, m: x / x.shape[0], "it computes with the number of rows"),
    "filled with it": (lambda x, m: x + torch.full((1,), float(1) * x.shape[0]), "number of rows"),
    "one row": (lambda x, m: x - x[:1], "it takes some rows"),
    "another": (lambda x, m: x + x.flip(0), "it computes over the rows"),
    "rolled": (lambda x, m: x.roll(1, 0), "it computes over the rows"),
    "rows with rows": (lambda x, m: x[:, 0] @ x[:, 0].T, "it multiplies rows with rows"),
    "positions": (lambda x, m: x + rows_of(x)[:, None, None], "it computes with row numbers"),
    "a table by position": (lambda x, m: x + F.embedding(rows_of(x) % 4, m.table)[:, None], "row numbers"),
    "across": (lambda x, m: x[x[:, 0, 0].argsort()], "the rows of `index` do not lie one after another"),
    "batch norm": (lambda x, m: F.batch_norm(x, None, None, training=True), "it normalises over the rows"),
    "attention over rows": (
        lambda x, m: F.scaled_dot_product_attention(*[x.transpose(0, 1)] * 3),
        "it attends over the rows",
    ),
    "joined": (lambda x, m: torch.cat([m.table[None], x]), "it puts something else beside the rows"),
    "spread": (lambda x, m: x.reshape(3, -1), "the rows do not lie in one dimension of the new shape"),
    "ahead": (lambda x, m: x.transpose(0, 1).reshape(-1, 8), "do not lie one after another"),
}


@pytest.mark.parametrize("name", APART)
def test_parts_of_a_batch_give_the_parts_of_its_result(name: str) -> None:
    model = Function(APART[name])
    graph = followed(model)
    assert graph.microbatching.reason == ""
    assert graph.microbatching.inputs == (0,)
    x = torch.randn(BATCH, 4, 8)
    weights = dict(model.state_dict())
    for whole, joined in zip(interpret(graph, [x], weights).outputs, in_parts(graph, x, weights), strict=True):
        torch.testing.assert_close(whole, joined)


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXED)
def test_what_mixes_rows_is_named(name: str) -> None:
    function, message = MIXED[name]
    found = followed(Function(function)).microbatching
    assert found.size is None
    assert re.search(message, found.reason), found.reason


def test_another_size_is_taken_where_the_first_is_mixed() -> None:
    """A model that has its sequence first attends over it, and not over the batch."""

    class SequenceFirst(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = x.transpose(0, 1)
            return F.scaled_dot_product_attention(h, h, h).transpose(0, 1)

    graph = capture(SequenceFirst(), (torch.randn(5, 4, 8),), dynamic_shapes={"x": {0: "seq", 1: "batch"}})
    found = FollowRows().run(graph, HERE).microbatching
    assert (str(found.size), found.inputs, found.outputs) == ("batch", (1,), (1,))


def test_a_module_that_is_kept_whole_is_named() -> None:
    x = torch.randn(2, 4, WIDTH)
    graph = capture(Layers(Branching).eval(), (x,), dynamic_shapes={"x": {0: "batch"}})
    reason = FollowRows().run(graph, HERE).microbatching.reason
    assert reason == "along `batch`, layers.0.hard, which is kept whole: it is not known to keep rows apart"


def test_a_model_with_state_is_not_split() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen += 1
            return x + self.seen

    graph = capture(Counting(), (torch.randn(4, 8),), dynamic_shapes={"x": {0: "batch"}})
    assert FollowRows().run(graph, HERE).microbatching.reason == "the model keeps state from batch to batch, seen"


def test_without_a_size_that_may_change_nothing_is_split() -> None:
    graph = capture(nn.Linear(8, 8), (torch.randn(4, 8),))
    assert FollowRows().run(graph, HERE).microbatching == Microbatching(
        reason="no size of its inputs may change; compile the model so"
    )
