"""The connections between the processes of a job, over which tensors go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, cast

import torch
from torch import distributed
from torch.distributed import PrefixStore, Store  # pyright: ignore[reportPrivateImportUsage]

from runtime.errors import DistributedError

_Operation = Callable[[list[torch.Tensor], int, int], distributed.Work]
FOREVER = timedelta(days=365)  # a pipeline may be idle for long; who is too slow is for the monitor to say


class Group(Protocol):
    """The part of torch's process groups that is used here; their own stubs leave it out."""

    def send(self, tensors: list[torch.Tensor], to: int, tag: int, /) -> distributed.Work: ...
    def recv(self, tensors: list[torch.Tensor], source: int, tag: int, /) -> distributed.Work: ...
    def abort(self) -> None: ...


@dataclass(frozen=True)
class Pending:
    """Tensors under way.  They must not be changed, or read, before `wait` returns."""

    tensors: Sequence[torch.Tensor]
    works: Sequence[distributed.Work]

    def wait(self) -> Sequence[torch.Tensor]:
        """On a GPU it is the current stream that waits, not the host.

        Raises ConnectionError where the other process is gone, or this one has cut the wire.
        """
        for work in self.works:
            try:
                if self.tensors[0].is_cuda:
                    work.wait()  # with a time, NCCL has the host wait, too
                else:
                    work.wait(FOREVER)
            except RuntimeError as e:
                raise ConnectionError(str(e)) from e
        return self.tensors


@dataclass(frozen=True)
class Link:
    """One direction between two processes.  What is sent first is received first."""

    group: Group
    peer: int  # its rank in the group
    tag: int  # tells this link from others between the same two

    def send(self, tensors: Sequence[torch.Tensor]) -> Pending:
        """Contiguous tensors.  Does not wait.  Raises ConnectionError."""
        return self._start(self.group.send, tensors)

    def receive(self, tensors: Sequence[torch.Tensor]) -> Pending:
        """Into contiguous tensors, as large as what is sent.  Does not wait.  Raises ConnectionError."""
        return self._start(self.group.recv, tensors)

    def _start(self, operation: _Operation, tensors: Sequence[torch.Tensor]) -> Pending:
        try:
            return Pending(tensors, [operation([t], self.peer, self.tag) for t in tensors if t.numel()])
        except RuntimeError as e:
            raise ConnectionError(str(e)) from e


class Wire:
    """The connections of this process to all others of the job."""

    def __init__(self, store: Store, rank: int, world: int, timeout: float) -> None:
        """Every rank makes one.  Raises DistributedError where others do not within TIMEOUT seconds."""
        self.rank = rank
        self._store = store
        self._world = world
        self._nccl: list[Group] = []
        try:
            prefixed = PrefixStore("gloo", store)
            self._gloo = cast(Group, distributed.ProcessGroupGloo(prefixed, rank, world, timedelta(seconds=timeout)))
        except RuntimeError as e:
            raise DistributedError(f"the processes cannot reach each other: {e}") from e

    def host_link(self, peer: int, tag: int) -> Link:
        """For tensors in host memory."""
        return Link(self._gloo, peer, tag)

    def device_link(self, target: int, tag: int, device: torch.device) -> Link:
        """For tensors on GPUs, this process's on DEVICE.  A communicator of its own, as NCCL knows no tags.

        Both ranks make it, and all in the order of their tags.  A first tensor goes over it at once: NCCL connects
        when it must, which at that time would wait for what runs, and for other threads that ask the same store.
        """
        here = int(self.rank == target)
        make = cast(Any, distributed).ProcessGroupNCCL  # a build for CPUs has none
        options = make.Options()
        options.group_name, options.global_ranks_in_group = f"link {tag}", [0, 1]
        options._timeout = FOREVER
        group = make(PrefixStore(f"nccl/{tag}", self._store), here, 2, options)
        self._nccl.append(cast(Group, group))
        link = Link(group, 1 - here, 0)
        try:
            group.eager_connect_single_device(device)
            first = [torch.zeros(1, device=device)]
            (link.receive(first) if here else link.send(first)).wait()
            torch.accelerator.synchronize(device)
        except (ConnectionError, RuntimeError) as e:
            raise DistributedError(f"the GPUs cannot reach each other: {e}") from e
        return link

    def close(self, cause: Exception | None = None) -> None:
        """Whoever waits for a link of this wire, here or in another process, gets a ConnectionError."""
        for group in self._nccl:
            group.abort()
        # Gloo's own `abort` wakes nobody; but a receive that runs out of time breaks all its connections.
        with suppress(RuntimeError):
            nobody = self._gloo.recv([torch.empty(1)], (self.rank + 1) % self._world, _UNUSED)
            nobody.wait(timedelta(milliseconds=1))


_UNUSED = 2**31 - 1  # a tag that nobody sends by
