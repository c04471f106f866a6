"""Tensors that lie in one piece of memory are copied as one, and others as they are."""

from __future__ import annotations

import random
from collections.abc import Sequence
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from runtime.device import copies, packs
from runtime.device.copies import start_copy
from runtime.device.packs import LARGEST_PACK, Pack, offsets_in_memory, one_pack, packs_of, views, whole_memory
from runtime.stage import cuda_graphs
from runtime.stage.cuda_graphs import RecordedGraph, buffers_for

DTYPES = (torch.int64, torch.int32, torch.float32, torch.bool, torch.bfloat16)


class Nothing:
    """A graph that computes nothing."""

    def replay(self) -> None: ...


def some(draw: random.Random, count: int) -> list[Tensor]:
    shapes = [[draw.randrange(1, 5) for _ in range(draw.randrange(3))] for _ in range(count)]
    return [torch.randint(0, 2, shape).to(draw.choice(DTYPES)) for shape in shapes]


def test_a_pack_holds_what_was_given() -> None:
    for seed in range(30):
        draw = random.Random(seed)
        given = some(draw, draw.randrange(2, 7))
        made = one_pack(given)
        assert all(torch.equal(one, other) and one.dtype == other.dtype for one, other in zip(made, given, strict=True))
        assert packs_of(made) == [[*range(len(given))]]
        moved = views(whole_memory(made[0]).clone(), made, offsets_in_memory(made))
        assert all(map(torch.equal, moved, given))
    assert one_pack([]) == []


def test_what_overlaps_or_is_large_or_alone_is_no_pack() -> None:
    whole = torch.arange(8)
    assert packs_of([whole[:4], whole[4:], torch.ones(2)]) == [[0, 1]]
    assert packs_of([whole[:5], whole[4:]]) == []
    assert packs_of([whole, whole]) == []
    assert packs_of([whole.view(2, 4).t(), torch.ones(1)]) == []
    assert packs_of([*torch.zeros(2, LARGEST_PACK).unbind()]) == []
    assert packs_of([torch.ones(1), torch.ones(1)]) == []
    numbers = torch.ones(8).to(torch.complex64)
    assert packs_of([numbers[:4], numbers[4:]]) == [[0, 1]]
    assert packs_of([numbers[:4].conj(), numbers[4:]]) == []  # the memory holds other numbers
    assert packs_of([numbers[:1].conj().imag, numbers[1:]]) == []


def packed(given: Sequence[Tensor], order: Sequence[int]) -> tuple[list[Tensor], Pack]:
    """The tensors, those of `order` in a pack, in this order."""
    pack = Pack.of({f"input {i}": given[i] for i in order})
    return [pack.tensors.get(f"input {i}", tensor) for i, tensor in enumerate(given)], pack


def test_a_graph_has_the_tensors_of_its_launch_however_they_lie() -> None:
    """Launches with packs like that of the recording, with others, and with tensors that lie apart."""
    for seed in range(60):
        draw = random.Random(seed)
        first = some(draw, 5)
        apart = [torch.ones(3), torch.zeros(2)]
        graph = RecordedGraph(Nothing(), buffers_for([*one_pack(first), *apart]), ())
        kept, pack = packed([*[t.flip(0) if t.dim() else t for t in first], *apart], range(5))
        for _ in range(6):
            given = [torch.randint_like(t, 2) if t.dtype != torch.bool else ~t for t in kept]
            match draw.randrange(6):
                case 5 if pack is not None:  # as in the launch before, but for one of its tensors
                    pack = pack.changed({"input 1": given[1], "input 7": given[3]})
                    given = [pack.tensors.get(f"input {i}", tensor) for i, tensor in enumerate(given)]
                case 0:
                    given, pack = packed(given, range(5))
                case 1:
                    given, pack = packed(given, range(2))
                case 2:
                    given, pack = packed(given, draw.sample(range(7), 7))
                case 3:
                    pack = None
                case _ if pack is not None:
                    given = [pack.tensors.get(f"input {i}", tensor) for i, tensor in enumerate(given)]
                case _:
                    given = [kept[0], *given[1:]]
            graph.launch(given, pack)
            assert all(map(torch.equal, graph.inputs, given))
            kept = given


def test_a_pack_that_comes_again_is_not_copied() -> None:
    graph = RecordedGraph(Nothing(), buffers_for(one_pack([torch.ones(2), torch.ones(3)])), ())
    one, other = packed([torch.ones(2), torch.ones(3)], range(2)), packed([torch.zeros(2), torch.zeros(3)], range(2))
    for given, pack in (one, other, one):
        graph.launch(given, pack)
        assert all(map(torch.equal, graph.inputs, given))
    graph.inputs[0].fill_(7)
    graph.launch(*one)
    assert graph.inputs[0].tolist() == [7, 7]


def test_a_step_of_a_graph_is_one_copy_of_the_host_and_one_for_each_tensor_beside_it() -> None:
    pair = [torch.ones(2), torch.ones(3), torch.ones(4)]
    graph = RecordedGraph(Nothing(), buffers_for([*one_pack(pair[:2]), pair[2]]), ())
    with patch.object(cuda_graphs, "start_copy") as copy:
        for _ in range(3):
            given, pack = packed(pair, range(2))
            graph.launch([*given[:2], pair[2]], pack)
    copied = [call.args[0].data_ptr() for call in copy.call_args_list]
    assert copied == [graph.inputs[0].data_ptr(), graph.inputs[2].data_ptr(), *[graph.inputs[0].data_ptr()] * 2]


def test_what_stays_beside_packs_is_not_copied_again_with_them() -> None:
    tensors = [torch.ones(2), torch.ones(3), torch.ones(4)]
    graph = RecordedGraph(Nothing(), buffers_for([*one_pack(tensors[:2]), tensors[2]]), ())
    given, pack = packed(tensors, range(2))
    with patch.object(cuda_graphs, "start_copy") as copy:
        for other in (pack, pack, pack.changed({"input 1": torch.zeros(3)})):
            graph.launch([*other.tensors.values(), given[2]], other)
    assert [call.args[0].shape for call in copy.call_args_list] == [(24,), (4,), (24,)]


def test_a_pack_that_differs_in_a_tensor_is_the_same_in_all_others() -> None:
    _, pack = packed([torch.ones(2), torch.ones(3), torch.ones(4)], range(2))
    other = pack.changed({"input 1": torch.zeros(3), "input 2": torch.zeros(4)})
    assert [tensor.tolist() for tensor in other.tensors.values()] == [[1, 1], [0, 0, 0]]
    assert [tensor.tolist() for tensor in pack.tensors.values()] == [[1, 1], [1, 1, 1]]
    assert other.layout == pack.layout


def test_a_pack_whose_tensors_lie_otherwise_is_copied_tensor_by_tensor() -> None:
    graph = RecordedGraph(Nothing(), buffers_for(one_pack([torch.zeros(2, 2), torch.zeros(3)])), ())
    (rest, square), pack = packed([torch.ones(3), torch.arange(4.0).view(2, 2)], range(2))
    graph.launch([square.t(), rest], pack)
    assert torch.equal(graph.inputs[0], square.t())
    assert torch.equal(graph.inputs[1], rest)


def test_a_pack_has_the_first_small_tensors_that_one_piece_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {name: torch.ones(size) for name, size in (("a", 3), ("long", 9), ("b", 4), ("c", 4), ("d", 1))}
    monkeypatch.setattr(packs, "LARGEST_PACKED", 32)
    monkeypatch.setattr(packs, "LARGEST_PACK", 40)
    pack = Pack.of_small(named)
    assert pack is not None
    assert [*pack.tensors] == ["a", "b", "d"]
    assert pack.memory.nbytes == 40
    assert Pack.of_small({"a": named["a"], "long": named["long"]}) is None


def test_memory_is_copied_as_it_is_only_where_it_holds_the_numbers() -> None:
    plain, target = torch.ones(3).to(torch.complex64) * 1j, torch.zeros(3, dtype=torch.complex64)
    with patch.object(copies, "shared_memory_of") as shared, patch.object(copies, "native_stream"):
        start_copy(target, plain.conj(), pinned=True)
        assert torch.equal(target, -plain)
        assert not shared.return_value.copy.called
        start_copy(target, plain, pinned=True)
        assert shared.return_value.copy.called
