"""What travels between the caller and the stages, and the ends it leaves and arrives by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from runtime.engine.channel import Channel
from runtime.engine.routes import Route
from runtime.errors import StageError
from runtime.trace.recording import Trace


@dataclass(frozen=True)
class Values:
    """The tensors of one batch; from the caller, its sizes too."""

    tensors: tuple[torch.Tensor, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)
    ready: tuple[torch.Event, ...] = ()  # when these have come, accelerators have made the tensors

    @property
    def device(self) -> torch.device | None:
        """The one device where all tensors are, if there is one."""
        devices = {tensor.device for tensor in self.tensors}
        return devices.pop() if len(devices) == 1 else None


@dataclass(frozen=True)
class Failure:
    """Stands in for the values of a batch that some stage could not compute, and travels on as they would."""

    error: StageError


@dataclass(frozen=True)
class Reset:
    """Asks every stage for the first values of its state, between the batches before and after it."""


@dataclass(frozen=True)
class Watch:
    """Has every stage record what it runs from here on in a trace; without one, no more."""

    trace: Trace | None


Message = Values | Failure | Reset | Watch


@dataclass(frozen=True)
class Port:
    """One end of a route."""

    route: Route
    channel: Channel[Message]


def send_all(ports: Sequence[Port], message: Message) -> None:
    """Send each target its part."""
    for port in ports:
        part = message
        if isinstance(message, Values):
            part = replace(message, tensors=tuple(message.tensors[i] for i in port.route.takes))
        port.channel.send(part)


def receive_all(ports: Sequence[Port]) -> Message:
    """The next batch, with the tensors of all sources in their places; the first failure if there is one.

    Takes one message from every port whatever it holds: so all ports stay at the same batch.
    """
    messages = [port.channel.receive() for port in ports]
    failure = next((message for message in messages if isinstance(message, Failure)), None)
    if failure is not None:
        return failure
    placed: dict[int, torch.Tensor] = {}
    sizes: dict[str, int] = {}
    ready: list[torch.Event] = []
    for port, message in zip(ports, messages, strict=True):
        if not isinstance(message, Values):
            return message
        placed.update(zip(port.route.places, message.tensors, strict=True))
        sizes.update(message.sizes)
        ready.extend(message.ready)
    return Values(tuple(placed[i] for i in range(len(placed))), sizes, tuple(ready))
