"""Time of a call on a device, with clocks and caches as they are in the middle of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil
from statistics import median
from threading import Event, Thread
from time import perf_counter, thread_time
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from ir.cost import Time

_TRIALS = 7
_PATIENCE = 0.3  # seconds for the trials of one call, after the first three
_EVICTING_HOST, _EVICTING_DEVICE = 64 << 20, 256 << 20  # bytes, more than caches of CPUs and accelerators hold
_LARGE_WEIGHTS = 1 << 18  # bytes; smaller ones may stay in the cache from one batch to the next
_LARGE_VALUES = 1 << 21  # bytes; results of smaller ones are written to freed memory that is still in the cache
_HEATING = 1.0  # seconds of load until the clock of an accelerator is steady
_LOAD = 7.5e-4  # seconds of load before each call: less leaves clocks above those within a stage, more below
_SMALL_CALLS = 41  # of the kernel that tells what events cost


@dataclass(frozen=True)
class Operands:
    """The operands of a call: `warm` ones, computed just before, and `cold` ones: weights, last read a batch ago."""

    warm: Sequence[torch.Tensor]
    cold: Sequence[torch.Tensor]

    def settle(self, evicting: torch.Tensor) -> None:
        """Evict the caches if the weights or operands are large, then touch the warm operands."""
        if _bytes(self.cold) >= _LARGE_WEIGHTS or _bytes(self.warm) >= _LARGE_VALUES:
            evicting.add_(1)
            for tensor in self.warm:
                tensor.clone()


def _bytes(tensors: Sequence[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


class Stopwatch(Protocol):
    """A way to time calls on one device."""

    @property
    def device(self) -> torch.device: ...

    def time(self, call: Callable[[], Any], operands: Operands) -> Time:
        """The median of several calls."""
        ...


@dataclass(frozen=True)
class HostWatch:
    """A stopwatch for the CPU, whose work is done when a call returns.

    With one thread it counts CPU time, which on a busy host is what an idle one would need.
    """

    device: torch.device
    evicting: torch.Tensor

    def time(self, call: Callable[[], Any], operands: Operands) -> Time:
        clock = thread_time if torch.get_num_threads() == 1 else perf_counter
        call()
        seconds: list[float] = []
        began = perf_counter()
        while len(seconds) < 3 or (len(seconds) < _TRIALS and perf_counter() - began < _PATIENCE):
            operands.settle(self.evicting)
            start = clock()
            call()
            seconds.append(clock() - start)
        return Time(median(seconds))


@dataclass(frozen=True)
class DeviceWatch:
    """A stopwatch for an accelerator, which computes while the host goes on.

    Matrix products keep it busy from the first call to the last: an idle one would run at a higher clock, and would
    finish a kernel before the host launches the next.  Two events around a call cost some time of their own, which
    kernels in the middle of a model do not have.
    """

    device: torch.device
    evicting: torch.Tensor
    load: Callable[[], Any]
    load_seconds: float
    events: float = 0.0  # seconds, of two events around a call

    @classmethod
    def of(cls, device: torch.device, dtype: torch.dtype) -> DeviceWatch:
        """A stopwatch whose load is matrix products of a dtype."""
        x, w = (torch.randn(n, 4096, device=device).to(dtype) for n in (1024, 4096))
        evicting = torch.zeros(_EVICTING_DEVICE, dtype=torch.uint8, device=device)
        began, calls = perf_counter(), 0
        while perf_counter() - began < _HEATING:
            for _ in range(10):
                F.linear(x, w)
            calls += 10
            torch.accelerator.synchronize(device)
        watch = cls(device, evicting, lambda: F.linear(x, w), (perf_counter() - began) / calls)
        return replace(watch, events=watch.seconds_of_events())

    def time(self, call: Callable[[], Any], operands: Operands) -> Time:
        call()
        torch.accelerator.synchronize(self.device)
        host = min(self._host(call) for _ in range(3))
        device = median(self._trials(call, host, operands))
        return Time(max(device - self.events, 0.0), host)

    def seconds_of_events(self) -> float:
        """The time of one small kernel between two events, less that of each of many that follow one another."""
        small = torch.zeros(1, device=self.device)

        def seconds(calls: int) -> float:
            return self.time(lambda: [small.add_(1) for _ in range(calls)], Operands([], [])).device

        one = seconds(1)
        return max(one - (seconds(_SMALL_CALLS) - one) / (_SMALL_CALLS - 1), 0.0)

    def _host(self, call: Callable[[], Any], calls: int = 10) -> float:
        torch.accelerator.synchronize(self.device)
        start = perf_counter()
        for _ in range(calls):
            call()
        return (perf_counter() - start) / calls

    def _trials(self, call: Callable[[], Any], host: float, operands: Operands) -> list[float]:
        """Seconds between two events, behind a load that lasts until the host has launched all of the call."""
        trials = list[tuple[torch.Event, torch.Event]]()
        for _ in range(_TRIALS):
            for _ in range(ceil((2 * host + _LOAD) / self.load_seconds)):
                self.load()
            operands.settle(self.evicting)
            begin, end = (torch.Event(self.device, enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            trials.append((begin, end))
        torch.accelerator.synchronize(self.device)
        return [begin.elapsed_time(end) / 1000 for begin, end in trials]


@contextmanager
def stopwatch(device: torch.device, dtype: torch.dtype, threads: int = 0, shares: int = 1) -> Iterator[Stopwatch]:
    """A stopwatch for a model that computes in `dtype`.

    On the CPU, `threads` is the number of threads of a stage (0: as torch is set), and `shares` the number of stages
    that the pipeline keeps busy on it: the others are imitated by threads that multiply matrices.
    """
    if device.type != "cpu":
        with torch.no_grad(), torch.accelerator.device_index(device.index):
            yield DeviceWatch.of(device, dtype)
        torch.accelerator.empty_cache()
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with _busy(shares - 1, dtype):
            yield HostWatch(device, torch.zeros(_EVICTING_HOST, dtype=torch.uint8))
    finally:
        torch.set_num_threads(before)


@contextmanager
def _busy(mates: int, dtype: torch.dtype) -> Iterator[None]:
    """Threads that multiply matrices meanwhile, as other stages would, and share memory bandwidth and caches."""
    over = Event()

    def multiply() -> None:
        x, w = (torch.randn(n, 1024).to(dtype) for n in (32, 4096))
        with torch.no_grad():
            while not over.is_set():
                F.linear(x, w)

    threads = [Thread(target=multiply, daemon=True) for _ in range(mates)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
