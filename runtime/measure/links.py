"""Links between devices, measured by copies of a few bytes and of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from runtime.measure.timing import ShowProgress, median_seconds

LARGE, SMALL = 64 << 20, 64  # bytes


@dataclass(frozen=True)
class LinkSpeed:
    """The speed of a link between two devices, the mean of both directions."""

    bandwidth: float  # bytes per second
    latency: float  # seconds

    @classmethod
    def from_copies(cls, large: float, small: float) -> LinkSpeed:
        """The link whose copies of `LARGE` bytes take `large` seconds, and of `SMALL` bytes `small` seconds."""
        return cls((LARGE - SMALL) / max(large - small, 1e-9), small)

    @classmethod
    def mean(cls, links: Sequence[LinkSpeed]) -> LinkSpeed:
        """The mean of some links."""
        n = len(links)
        return cls(sum(link.bandwidth for link in links) / n, sum(link.latency for link in links) / n)

    def is_close(self, other: LinkSpeed) -> bool:
        """Whether the two differ by noise alone."""
        near = abs(self.bandwidth - other.bandwidth) < 0.1 * other.bandwidth
        return near and abs(self.latency - other.latency) < max(0.3 * other.latency, 2e-6)


def measure_copies(a: torch.device, b: torch.device, say: ShowProgress) -> LinkSpeed:
    """The link between two devices, of which one at least is an accelerator.  Host memory is pinned."""
    say(f"link {a} — {b}")
    return LinkSpeed.mean([_one_way(a, b), _one_way(b, a)])


def _one_way(source: torch.device, target: torch.device) -> LinkSpeed:
    device = source if source.type != "cpu" else target
    seconds: list[float] = []
    with torch.accelerator.device_index(device.index):
        for nbytes in (LARGE, SMALL):
            here, there = _buffer(source, nbytes), _buffer(target, nbytes)
            seconds.append(median_seconds(lambda x=here, y=there: y.copy_(x, non_blocking=True), device, 0.1))
    return LinkSpeed.from_copies(*seconds)


def _buffer(device: torch.device, nbytes: int) -> torch.Tensor:
    return torch.zeros(nbytes, dtype=torch.uint8, device=device, pin_memory=device.type == "cpu")
