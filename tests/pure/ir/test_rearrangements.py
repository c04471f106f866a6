"""What ir.operators says of torch's operators, held against the operators themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ir.graph import named_arguments
from ir.operators.facts import PART_READERS, REARRANGEMENTS, Elements, Memory, aten, place_of_part, rearrangement

ARGUMENTS: dict[str, tuple[Any, ...]] = {  # of each operator besides its first operand, of shape [1, 6]
    "alias.default": (),
    "detach.default": (),
    "contiguous.default": (),
    "clone.default": (),
    "lift_fresh_copy.default": (),
    "to.dtype": (torch.float32,),
    "type_as.default": (torch.zeros(1),),
    "_to_copy.default": (),
    "view.default": ([2, 3],),
    "view_as.default": (torch.zeros(3, 2),),
    "_unsafe_view.default": ([6],),
    "unflatten.int": (1, [2, 3]),
    "squeeze.dim": (0,),
    "unsqueeze.default": (0,),
    "reshape.default": ([3, 2],),
    "flatten.using_ints": (),
    "expand.default": ([4, 6],),
    "expand_as.default": (torch.zeros(4, 6),),
    "broadcast_to.default": ([4, 6],),
    "repeat.default": ([2, 2],),
    "permute.default": ([1, 0],),
    "transpose.int": (0, 1),
    "slice.Tensor": (1, 2, 4),
    "select.int": (1, 3),
}


def test_each_row_of_the_table_is_held_against_its_operator() -> None:
    assert {name.partition(".")[0] for name in ARGUMENTS} == set(REARRANGEMENTS)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_rearrangement_holds_the_elements_of_its_operand_in_the_memory_that_the_table_says(name: str) -> None:
    packet, overload = name.split(".")
    op, x = getattr(getattr(aten, packet), overload), torch.arange(6.0).view(1, 6)
    out, moves = op(x, *ARGUMENTS[name]), rearrangement(op)
    assert moves is not None
    assert set(out.flatten().tolist()) <= set(x.flatten().tolist())
    shares = out.untyped_storage()._cdata == x.untyped_storage()._cdata
    assert shares == (moves.memory is not Memory.OWN)
    if moves.elements in (Elements.SAME, Elements.CAST, Elements.RESHAPED):
        assert out.flatten().tolist() == x.flatten().tolist()
    if moves.elements in (Elements.SAME, Elements.CAST):
        assert out.shape == x.shape


def test_a_view_of_the_bits_is_no_rearrangement() -> None:
    assert rearrangement(aten.view.dtype) is None


@pytest.mark.parametrize(
    ("write", "args", "same"),
    [
        (aten.slice_scatter.default, (1, 0, 2**63 - 1, 2), (-1, None, None, 2)),
        (aten.select_scatter.default, (0, 1), (-2, 1)),
        (aten.diagonal_scatter.default, (0, 0, 1), (0, -2, -1)),
    ],
)
def test_a_part_has_one_place_however_it_is_read_or_written(write: Any, args: Any, same: Any) -> None:
    x, read = torch.arange(6.0).view(2, 3), PART_READERS[write]
    part = read(x, *args)
    assert torch.equal(part, read(x, *same))
    writes, reads = named_arguments(write, (x, part, *args), {}), named_arguments(read, (x, *same), {})
    assert place_of_part(writes, 2) == place_of_part(reads, 2)
    assert place_of_part(named_arguments(read, (x, *args[:-1], args[-1] - 1), {}), 2) != place_of_part(writes, 2)
