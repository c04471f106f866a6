"""Ends of links that receive, over stand-ins for blocks of devices: where tensors come to, and who waits for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from runtime.device.packs import packs_of
from runtime.engine.channel import Channel
from runtime.engine.message import Values
from runtime.engine.ports import Port, Ports
from runtime.engine.routes import Route, RouteTensors
from runtime.processes.links import inlet as links
from runtime.processes.links.inlet import Inlet
from runtime.processes.links.link import LinkEnds, Tracing
from runtime.processes.links.outlet import Outlet
from runtime.processes.message_socket import MessageSocket
from runtime.trace.traces import Trace

HERE, THERE = torch.device("meta"), torch.device("meta:1")  # devices whose tensors need no memory
waited: list[torch.device] = []


class Block:
    """A stand-in for a block of a device that another process fills."""

    event = b""

    def __init__(self, new: object, device: torch.device, stream: object) -> None:
        self.device = device

    def await_filled(self, check: object) -> None:
        waited.append(self.device)

    def take(self, tensors: object, offsets: object) -> list[torch.Event]:
        return []


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    waited.clear()
    monkeypatch.setattr(links, "OpenDeviceBlock", Block)
    monkeypatch.setattr(links, "side_stream", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(links, "is_shareable", lambda source, target: target.type == "meta")


TRACING = Tracing(lambda: Trace.__new__(Trace))


@pytest.fixture
def sockets() -> Iterator[tuple[MessageSocket, MessageSocket]]:
    both = MessageSocket.pair()
    yield both
    for one in both:
        one.close()


@pytest.fixture
def end(sockets: tuple[MessageSocket, MessageSocket]) -> Inlet:
    """The caller's end of a link from a stage on `THERE`."""
    return Inlet(sockets[1], LinkEnds(1, None, THERE, None), Channel[None](), TRACING)


@pytest.mark.parametrize(
    ("to", "ahead", "waits"), [(HERE, True, []), (HERE, False, [HERE]), (None, True, [THERE]), (None, False, [THERE])]
)
def test_the_host_waits_but_for_a_device_of_its_own(
    end: Inlet, to: torch.device | None, ahead: bool, waits: list[torch.device]
) -> None:
    packed = links.PackedTensor(torch.int64, (4,), (1,), "meta:1", 0)
    end._announced[0, "meta:1"] = links.NewBlock(256)
    end.aim(to, ahead)
    end._take(links.BatchPacket({}, 0, (packed,), 0), 0, {})
    assert waited == waits


def test_outputs_come_ahead_where_every_end_that_has_some_can_bring_them(end: Inlet) -> None:
    carries, empty = (RouteTensors((0,), (0,)),), (RouteTensors(),)
    far, near = Port(Route(1, None, carries), end), Port(Route(0, None, empty), Channel[Any]())
    assert Ports([], [far, near]).come_ahead_to(HERE)
    assert not Ports([], [far, near], ahead=False).come_ahead_to(HERE)  # another host
    assert not Ports([], [far, near]).come_ahead_to(torch.device("cpu"))
    assert Ports([], [Port(Route(1, None, empty), end), near]).come_ahead_to(torch.device("cpu"))


def test_small_tensors_of_the_host_come_in_one_piece(sockets: tuple[MessageSocket, MessageSocket]) -> None:
    there, here = sockets
    known = LinkEnds(None, 0, HERE, HERE)
    sender, receiver = Outlet(there, known, Channel[None](), TRACING, 2), Inlet(here, known, Channel[None](), TRACING)
    given = (torch.arange(12).view(3, 4), torch.tensor(True), torch.randn(2, 5).t(), torch.empty(0, 3))
    for _ in range(3):  # slots are used again
        sender.send(Values(given, {"n": 3}))
        message = receiver.receive()
        assert isinstance(message, Values)
        assert all(torch.equal(a, b) and a.stride() == b.stride() for a, b in zip(given, message.tensors, strict=True))
        assert packs_of(message.tensors[:2]) == [[0, 1]]
