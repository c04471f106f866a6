"""Masks of attention that are causal, or mask nothing, go; all others stay, however near they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import Dim

from ir.analysis.interpret import interpret
from ir.capture import capture
from ir.graph import Call, Graph
from passes.fusing.masks.formulas import Formulas
from passes.fusing.masks.kinds import NEVER
from passes.fusing.simplify_masks import SimplifyMasks
from tests.support.models.planning import DEVICE, machine
from tests.support.models.written import WIDTH, hidden

LONGEST = 12
X = {"x": {0: "batch", 1: Dim("seq", max=LONGEST)}}
NONE, LEAST = float("-inf"), torch.finfo(torch.float32).min


class Masked(nn.Module):
    """Attention under each of some masks, which are made of the length, the batch and a table."""

    def __init__(self, *masks: Callable[[int, int, Tensor], Tensor]) -> None:
        super().__init__()
        self.masks = masks
        self.register_buffer("table", torch.ones(LONGEST, LONGEST, dtype=torch.bool).tril(), persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        made = (mask(x.shape[1], x.shape[0], self.table) for mask in self.masks)  # type: ignore[arg-type]
        return [F.scaled_dot_product_attention(x, x, x, attn_mask=mask) for mask in made]


def simplified(model: nn.Module, x: Tensor, dynamic: object = X) -> tuple[Graph, list[Call]]:
    """The graph after the pass, and the calls of attention in it."""
    graph = capture(model, (x,), dynamic_shapes=dynamic)  # type: ignore[arg-type]
    graph = SimplifyMasks().run(graph, machine(1))
    return graph, [n for n in graph.nodes if isinstance(n, Call) and "attention" in str(n.op)]


def kind(node: Call) -> str:
    if len(node.args) > 3 or "attn_mask" in node.kwargs:
        return "masked"
    return "causal" if node.kwargs.get("is_causal") else "full"


def kinds(*masks: Callable[[int, int, Tensor], Tensor]) -> list[str]:
    return [kind(node) for node in simplified(Masked(*masks), hidden())[1]]


def truth(mask: Callable[[int, int, Tensor], Tensor]) -> str:
    """What a mask is, by looking at it at all lengths."""
    found = {"causal", "full"}
    for seq in range(1, LONGEST + 1):
        seen = mask(seq, 2, Masked().table).expand(2, seq, seq)  # type: ignore[arg-type]
        through, out = (seen, ~seen) if seen.dtype is torch.bool else (seen == 0, seen <= NEVER)
        below = torch.ones(seq, seq, dtype=torch.bool).tril()
        if not bool(torch.where(below, through, out).all()):
            found.discard("causal")
        if not bool(through.all()):
            found.discard("full")
    return "masked" if not found else found.pop()


# ---- random masks


@dataclass(frozen=True)
class Recipe:
    """`k <= q + shift`, written in one of the ways in which people write it, and more conditions."""

    way: str
    shift: int
    window: int | None
    extra: str
    form: str

    def __call__(self, seq: int, batch: int, table: Tensor) -> Tensor:
        return FORMS[self.form](EXTRAS[self.extra](self.windowed(seq, table), seq, batch))

    def windowed(self, seq: int, table: Tensor) -> Tensor:
        allowed = WAYS[self.way](seq, self.shift, table)
        if self.window is None:
            return allowed
        q, k = torch.arange(seq)[:, None], torch.arange(seq)
        return allowed & (k > q - self.window)


WAYS: dict[str, Callable[[int, int, Tensor], Tensor]] = {
    "compare": lambda seq, shift, _: torch.arange(seq) <= torch.arange(seq)[:, None] + shift,
    "greater": lambda seq, shift, _: torch.arange(seq).view(seq, 1).add(shift + 1) > torch.arange(seq)[None, :],
    "mirrored": lambda seq, shift, _: torch.arange(seq) >= torch.arange(seq)[:, None] + shift,
    "tril": lambda seq, shift, _: torch.ones(seq, seq).tril(shift) != 0,
    "not triu": lambda seq, shift, _: ~torch.ones(seq, seq, dtype=torch.bool).triu(1 + shift),
    "table": lambda seq, shift, table: table[:seq, :seq] if shift == 0 else table[:seq, :seq].logical_not(),
    "transposed": lambda seq, shift, _: (torch.arange(seq)[:, None] <= torch.arange(seq) + shift).transpose(0, 1),
    "from 1": lambda seq, shift, _: torch.arange(1, seq + 1) <= torch.arange(shift + 1, seq + shift + 1)[:, None],
}


def _packed(allowed: Tensor, seq: int, batch: int) -> Tensor:
    """One sequence a row, as transformers finds out without an attention mask."""
    places = torch.arange(seq)[None].expand(batch, -1)
    document = (torch.diff(places, prepend=places[:, :1] - 1, dim=-1) != 1).cumsum(-1)
    row, at = torch.arange(batch)[:, None, None], torch.arange(seq)
    return allowed & (document[row, at[:, None]] == document[row, at])


EXTRAS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "none": lambda allowed, seq, batch: allowed,
    "true": lambda allowed, seq, batch: allowed.new_ones((), dtype=torch.bool) & allowed & (torch.arange(seq) >= 0),
    "expanded": lambda allowed, seq, batch: allowed[None].expand(batch, -1, -1),
    "packed": _packed,
    "first row": lambda allowed, seq, batch: allowed | (torch.arange(seq) < 1),
    "last key": lambda allowed, seq, batch: allowed & (torch.arange(seq) < seq - 1),
    "diagonal": lambda allowed, seq, batch: allowed & (torch.arange(seq) != torch.arange(seq)[:, None]),
    "first batch": lambda allowed, seq, batch: allowed & (torch.arange(batch)[:, None, None] < 1),
}


def _put(allowed: Tensor) -> Tensor:
    mask = torch.zeros(allowed.shape)
    mask[~allowed] = torch.tensor(NONE)
    return mask


FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "bool": lambda allowed: allowed,
    "filled": lambda allowed: torch.zeros(allowed.shape).masked_fill(~allowed, NONE),
    "where": lambda allowed: torch.where(allowed, 0.0, LEAST),
    "put": _put,
    "inverted": lambda allowed: (1.0 - allowed.float()) * LEAST,
    "filled twice": lambda allowed: (hidden := 1.0 - allowed.float()).masked_fill(hidden.bool(), LEAST),
    "finite": lambda allowed: torch.where(allowed, 0.0, -1e9),
    "biased": lambda allowed: torch.where(allowed, 0.5, NONE),
}

recipes = st.builds(
    Recipe,
    st.sampled_from(sorted(WAYS)),
    st.sampled_from([0, 0, 0, 0, -1, 1, LONGEST]),
    st.sampled_from([None, None, 1, 3, LONGEST - 1, LONGEST, 99]),
    st.sampled_from(sorted(EXTRAS)),
    st.sampled_from(sorted(FORMS)),
)


@pytest.mark.slow
@settings(max_examples=1, derandomize=True, deadline=None, phases=[Phase.generate])  # a capture takes seconds
@given(masks=st.lists(recipes, min_size=20, max_size=20))
def test_random_masks(masks: Sequence[Recipe]) -> None:
    model = Masked(*masks)
    graph, calls = simplified(model, hidden(2, 4))
    for call, mask in zip(calls, masks, strict=True):
        found = kind(call)
        assert found == truth(mask) or (found == "masked" and mask.extra == "first row"), mask  # conditions help out
    for size in ((2, 4), (1, 1), (3, LONGEST), (2, 7)):
        x = hidden(*size)
        for found, expected in zip(interpret(graph, [x], {}).outputs, model(x), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.slow
def test_each_way_and_each_form_is_seen_through() -> None:
    ways = [Recipe(way, 0, None, "packed", "bool") for way in WAYS]
    forms = [Recipe("compare", 0, LONGEST, "true", form) for form in FORMS]
    found = kinds(*ways, *forms)
    assert found == [truth(mask) for mask in (*ways, *forms)]
    assert found.count("causal") == len(ways) - 1 + len(forms) - 2


def test_nothing_of_a_mask_is_left() -> None:
    graph, [call] = simplified(Masked(Recipe("compare", 0, 99, "packed", "filled")), hidden())
    assert graph.nodes == (call,)


# ---- what random masks do not reach


def causal(rows: int, columns: int) -> Tensor:
    return torch.arange(columns) <= torch.arange(rows)[:, None]


def test_more_keys_than_queries() -> None:
    """Kernels differ in where they begin to count."""

    class Cross(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            keys, seq = torch.cat([x, x], 1), x.shape[1]
            return F.scaled_dot_product_attention(x, keys, keys, attn_mask=causal(seq, 2 * seq))

    assert kind(simplified(Cross(), hidden())[1][0]) == "masked"


def test_a_mask_that_makes_more_batches() -> None:
    model = Masked(lambda seq, *_: causal(seq, seq).expand(5, -1, -1))
    assert kind(simplified(model, hidden(1, 4), None)[1][0]) == "masked"


def test_sizes_that_are_fixed() -> None:
    model = Masked(lambda *_: causal(4, 4), lambda *_: causal(4, 4) & (torch.arange(4) > torch.arange(4)[:, None] - 4))
    assert [kind(call) for call in simplified(model, hidden(2, 4), None)[1]] == ["causal", "causal"]


def test_what_else_attention_is_told_stays() -> None:
    class Grouped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            q, mask = x.unflatten(-1, (4, 2)).transpose(1, 2), causal(x.shape[1], x.shape[1])
            return F.scaled_dot_product_attention(q, q[:, :2], q[:, 2:], mask, scale=0.3, enable_gqa=True)

    graph, [call] = simplified(Grouped(), hidden())
    assert call.kwargs == {"is_causal": True, "scale": 0.3, "enable_gqa": True}
    x = hidden(3, 7)
    assert torch.equal(interpret(graph, [x], {}).outputs[0], Grouped()(x))


def test_positions_that_do_not_fit_their_type() -> None:
    """In bfloat16, 256 and 257 are one number."""

    class Rounded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            places = torch.arange(x.shape[1], dtype=torch.bfloat16)
            return F.scaled_dot_product_attention(x, x, x, attn_mask=places <= places[:, None])

    assert kind(simplified(Rounded(), hidden(), {"x": {1: "seq"}})[1][0]) == "masked"


def test_numbers_that_are_rounded() -> None:
    """A third, three times, is one by the formula, and here; less than that in float32."""
    third = 1 / 3

    def rounded(seq: int, batch: int, table: Tensor) -> Tensor:
        return torch.where(causal(seq, seq), torch.full((seq, seq), third) * third - third * third, NONE)

    assert kinds(rounded) == [truth(rounded)] == ["masked"]


class Padded(nn.Module):
    """Attention under a causal mask and the caller's own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        mask = causal(x.shape[1], x.shape[1]) & (attention_mask[:, None] > 0)
        return F.scaled_dot_product_attention(self.layer(x), x, x, attn_mask=mask)


def test_a_mask_of_the_callers() -> None:
    """It stays, and who plans for GPUs is told the way out."""
    graph = capture(Padded(), (hidden(), torch.ones(2, 4, dtype=torch.int64)))
    assert SimplifyMasks().run(graph, machine(1)).nodes == graph.nodes
    assert SimplifyMasks().run(graph, machine(1)).notes == ()
    gpus = replace(machine(1), devices=(replace(DEVICE, name="cuda:0"),))
    [note] = SimplifyMasks().run(graph, gpus).notes
    assert note.endswith("give example inputs without attention_mask (of a checkpoint: --no-padding)")


def test_a_formula() -> None:
    """What a mask reads, in figures: `arange(seq) <= arange(seq)[:, None]` is `k <= q`."""
    graph = capture(Masked(lambda seq, *_: causal(seq, seq)), (hidden(),), dynamic_shapes=X)
    [attention] = [n for n in graph.nodes if isinstance(n, Call) and "attention" in str(n.op)]
    mask = next(v for v in attention.operands if v.type.dtype is torch.bool)
    assert Formulas(graph).at(mask, (2, 1)) == True  # noqa: E712 - of sympy
    assert Formulas(graph).at(mask, (1, 2)) == False  # noqa: E712
