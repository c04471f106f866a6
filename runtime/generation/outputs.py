"""The outputs of a step, which a device may still compute when the next step is ordered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

import torch

from runtime.device.copies import DeviceCopies
from runtime.device.streams import made_by_now, read_in, stream_on, wait_in, within


@dataclass(frozen=True, eq=False)
class StepOutputs:
    """The next token of each row of a step and its log probability, which exist after the events `ready`."""

    token: torch.Tensor  # int64[batch]
    logprob: torch.Tensor  # float32[batch]
    ready: tuple[torch.Event, ...] = ()


class LatestToken(NamedTuple):
    """The last token of a text: an id, or the row of a step that computes it."""

    token: int = 0
    step: StepOutputs | None = None  # None: it is known
    row: int = 0


@dataclass(frozen=True)
class HostOutputs:
    """The outputs of a step on the host, once they are there."""

    token: torch.Tensor
    logprob: torch.Tensor
    arrived: tuple[torch.Event, ...]
    step: StepOutputs | None = None  # of which they are copies, and which a device may still read

    @property
    def are_there(self) -> bool:
        return all(event.query() for event in self.arrived)


@dataclass
class TokenCopies:
    """Copies of tokens to the host, and to the inputs of further steps, that the host does not wait for.

    Not thread-safe.
    """

    _streams: dict[torch.device, torch.Stream | None] = field(default_factory=dict)
    _copies: dict[torch.device, DeviceCopies] = field(default_factory=dict)

    def to_host(self, step: StepOutputs) -> HostOutputs:
        """Start to copy the outputs of a step to the host."""
        if step.token.device.type == "cpu":
            return HostOutputs(step.token, step.logprob, step.ready)
        tensors = (step.token, step.logprob)
        stream = self._stream(step.token.device)
        with within(stream):
            wait_in(stream, step.ready)
            pinned = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True).copy_(t, non_blocking=True) for t in tensors]
            return HostOutputs(pinned[0], pinned[1], made_by_now(tensors), step)

    def ids(self, rows: Sequence[LatestToken], spare: int = 0) -> tuple[torch.Tensor, tuple[torch.Event, ...]]:
        """`int64[rows + spare, 1]` of these tokens, and of any, on the device that computes them.

        And the events after which it exists.
        """
        rows = [*rows, *[LatestToken()] * spare]
        steps = list(dict.fromkeys(row.step for row in rows if row.step is not None))
        if not steps:
            return torch.tensor([[row.token] for row in rows]), ()
        starts = dict(zip(steps, accumulate((len(step.token) for step in steps), initial=0), strict=False))
        known = [row.token for row in rows if row.step is None]
        places = iter(range(sum(len(step.token) for step in steps), 1 << 62))
        index = [next(places) if row.step is None else starts[row.step] + row.row for row in rows]
        device = steps[0].token.device
        copies = self._copies.setdefault(device, DeviceCopies(device))
        brought, arrived = copies.bring([torch.tensor(index), torch.tensor(known, dtype=torch.int64)], ())
        stream, tokens = self._stream(device), [step.token for step in steps]
        with within(stream):
            read_in(stream, [*tokens, *brought], [*arrived, *(event for step in steps for event in step.ready)])
            ids = torch.cat([*tokens, brought[1]]).index_select(0, brought[0])[:, None]
            return ids, made_by_now([ids])

    def _stream(self, device: torch.device) -> torch.Stream | None:
        if device not in self._streams:
            self._streams[device] = stream_on(device)
        return self._streams[device]
