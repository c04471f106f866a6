"""Parts of outputs: how they are written, what they hold, who of several callers gets which, what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runtime.call.input_type import InputType
from runtime.call.outputs.output_parts import OutputPart, parse_parts
from runtime.call.outputs.selection import OutputSelection
from runtime.engine.boxes import taken, taken_shape
from runtime.errors import InputError
from runtime.manifest.manifest import Manifest, Microbatching, ProgramEntry, Symbol, Tensor
from runtime.serving.interface import Interface

ROWS = Tensor("all", "float32", ("batch", "seq", 3))
OUTPUTS = (ROWS, Tensor("one", "float32", ("batch", 3)), Tensor("mean", "float32", ()))
SHAPES = {tensor.name: tensor.shape for tensor in OUTPUTS}
SYMBOLS = {"batch": Symbol(1, None, 2), "seq": Symbol(1, None, 8)}
SIZES = {"batch": 4, "seq": 5}


def program() -> ProgramEntry:
    signature: Any = None
    split = Microbatching("batch", (0,), (0, 0, None), "")
    return ProgramEntry("main", (), OUTPUTS, SYMBOLS, (), signature, (), microbatching=split)


def selection(texts: Any) -> OutputSelection:
    return OutputSelection.of(program(), tuple(InputType.parse(t, SYMBOLS) for t in OUTPUTS), texts)


def outputs() -> list[torch.Tensor]:
    return [torch.randn(4, 5, 3), torch.randn(4, 3), torch.randn(())]


def got(made: list[torch.Tensor], asked: OutputSelection, *callers: Mapping[str, int]) -> list[dict[str, torch.Tensor]]:
    """What callers get when stages take the boxes of all outputs that are not wanted whole."""
    boxes = asked.boxes(callers)
    parts = [taken(tensor, boxes[i]) if i in boxes else tensor for i, tensor in enumerate(made)]
    for i, part in enumerate(parts):
        assert part.shape == (taken_shape(made[i].shape, boxes[i]) if i in boxes else made[i].shape)
        assert i not in boxes or part.untyped_storage().nbytes() == part.nbytes  # nothing keeps the whole alive
    return asked.results(parts, callers)


NUMBERS = st.none() | st.integers(-7, 7)
SLICES = st.builds(slice, NUMBERS, NUMBERS, st.none() | st.integers(1, 3))


def spelled(entry: int | slice) -> str:
    if isinstance(entry, int):
        return str(entry)
    bounds = ":".join("" if n is None else str(n) for n in (entry.start, entry.stop))
    return bounds if entry.step is None else f"{bounds}:{entry.step}"


@given(st.tuples(st.integers(-4, 3) | SLICES, st.integers(-5, 4) | SLICES, st.integers(-3, 2) | SLICES))
def test_an_index_means_what_it_means_in_python(index: tuple[int | slice, ...]) -> None:
    made = outputs()
    text = f"all[{', '.join(map(spelled, index))}]"
    [found] = got(made, selection([text]), SIZES)
    assert torch.equal(found[text], made[0][index])


def test_what_is_left_out_is_whole() -> None:
    made = outputs()
    texts = ["all[1]", "all[..., -1]", "all[2, ..., 0]", "all[]", "one", "mean", "mean[]", "all[:2]", "all[:2]"]
    [found] = got(made, selection(texts), SIZES)
    rows, one, mean = made
    expected = [rows[1], rows[..., -1], rows[2, :, 0], rows, one, mean, mean, rows[:2]]
    assert [*found] == texts[:-1]  # each once
    for have, want in zip(found.values(), expected, strict=True):
        assert torch.equal(have, want)


def test_outputs_that_nobody_asks_for_are_not_taken() -> None:
    asked = selection(["one"])
    assert asked.boxes([SIZES]) == {0: (), 2: ()}  # and `one` is taken as it is
    assert taken(torch.randn(4, 5, 3), ()).numel() == 0


def test_each_of_several_callers_gets_its_own_rows_to_its_own_length() -> None:
    made = outputs()
    asked = selection(["all[:, -1]", "one", "all[:, -3:, 1]"])
    first, second, third = got(made, asked, {"batch": 1, "seq": 2}, {"batch": 2, "seq": 5}, {"batch": 1, "seq": 3})
    for found, rows, length in [(first, slice(0, 1), 2), (second, slice(1, 3), 5), (third, slice(3, 4), 3)]:
        own = made[0][rows, :length]
        assert torch.equal(found["all[:, -1]"], own[:, -1])
        assert torch.equal(found["all[:, -3:, 1]"], own[:, -3:, 1])
        assert torch.equal(found["one"], made[1][rows])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("logits", "there is no output `logits`; the model returns all, one, mean"),
        ("logits[0]", "there is no output `logits`"),
        (
            "all[:" + " " * 1_000_000 + "x]",
            "the name of an output, with its index, has 1000007 characters; 256 are allowed",
        ),
        ("all[0", "output `all[0`: the index does not end with ]"),
        ("all[0, 0, 0, 0]", "the output has 3 dimensions, and the index is of others"),
        ("all[..., 0, ...]", "the output has 3 dimensions, and the index is of others"),
        ("mean[0]", "the output has 0 dimensions, and the index is of others"),
        ("all[last]", "'last' is no index; write a number, start:stop or start:stop:step"),
        ("all[0,]", "'' is no index"),
        ("all[1e3]", "'1e3' is no index"),
        ("all[0:1:2:3]", "'0:1:2:3' is no index"),
        ("all[99999999999999999999]", "'99999999999999999999' is no index"),
        ("all[::-1]", "the step is -1; it must be at least 1"),
        ("all[::0]", "the step is 0; it must be at least 1"),
        ("all[..., 3]", "output `all[..., 3]`: dimension 2 has 3 elements, so 3 is none of them"),
    ],
)
def test_what_is_no_part_of_an_output_is_refused_before_sizes_are_known(text: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        Interface(Manifest("m", (program(),), (), {}, {})).parts([text])
    assert message in str(refused.value)


def test_an_index_behind_the_end_of_a_size_that_may_change_is_refused_for_a_call() -> None:
    asked = selection(["all[:, 5]"])
    with pytest.raises(InputError, match="dimension 1 has 5 elements, so 5 is none of them"):
        asked.boxes([SIZES])
    assert asked.boxes([{**SIZES, "seq": 6}])


def test_no_more_parts_are_asked_for_than_make_sense() -> None:
    with pytest.raises(InputError, match="the call asks for 500 outputs; it may ask for 19"):
        parse_parts([f"all[{i}]" for i in range(500)], SHAPES)
    for odd in ("all", [0], 5, torch.tensor(1.0), {"all": 1}):
        with pytest.raises(InputError, match="`outputs` must be a list of names of outputs"):
            selection(odd)


def test_all_outputs_by_name_are_as_if_none_was_named() -> None:
    interface = Interface(Manifest("m", (program(),), (), {}, {}))
    assert interface.parts(["mean", "one", "all"]) == ()
    assert interface.parts(["one", "one"]) == ("one",)


def test_microbatches_are_joined_where_all_their_rows_are_wanted() -> None:
    whole, asked = outputs(), selection(["all[:, -1]", "one[:, 0]", "mean"])
    asked.require_splittable()
    made = [[whole[0][:1], whole[1][:1], whole[2]], [whole[0][1:], whole[1][1:], whole[2]]]
    sizes = [{"batch": 1, "seq": 5}, {"batch": 3, "seq": 5}]
    joined = asked.joined([got(part, asked, own)[0] for part, own in zip(made, sizes, strict=True)])
    assert torch.equal(joined["all[:, -1]"], whole[0][:, -1])
    assert torch.equal(joined["one[:, 0]"], whole[1][:, 0])
    with pytest.raises(InputError, match="microbatches are split along `batch`, so it must be whole"):
        selection(["all[0]"]).require_splittable()


def test_the_dimension_of_a_part_counts_those_that_are_left() -> None:
    part = OutputPart.parse("all[0, :, 1:]", SHAPES)
    assert [part.dimension(d) for d in range(3)] == [None, 0, None]
