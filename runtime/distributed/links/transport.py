"""Links for tensors between the processes of a job, over gloo and NCCL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, cast

import torch
from torch import distributed
from torch.distributed import PrefixStore, Store  # pyright: ignore[reportPrivateImportUsage]

from runtime.device.kinds import kind_of
from runtime.errors import DistributedError

_Operation = Callable[[list[torch.Tensor], int, int], distributed.Work]
FOREVER = timedelta(days=365)  # a pipeline may be idle for long; the monitor notices processes that hang


class Group(Protocol):
    """The methods of torch's process groups that are used here, which torch's stubs lack."""

    def send(self, tensors: list[torch.Tensor], to: int, tag: int, /) -> distributed.Work: ...
    def recv(self, tensors: list[torch.Tensor], source: int, tag: int, /) -> distributed.Work: ...
    def abort(self) -> None: ...


@dataclass(frozen=True)
class Pending:
    """Tensors that are being sent or received.  They must not be changed, or read, before `wait` returns."""

    tensors: Sequence[torch.Tensor]
    works: Sequence[distributed.Work]

    def wait(self) -> Sequence[torch.Tensor]:
        """Wait for the transfer: on an accelerator in the current stream, else on the host.  Returns the tensors.

        Raises ConnectionError if the other process is gone, or the transport was closed.
        """
        for work in self.works:
            try:
                if self.tensors[0].device.type != "cpu":
                    work.wait()  # with a time-out, NCCL blocks the host, too
                else:
                    work.wait(FOREVER)
            except RuntimeError as e:
                raise ConnectionError(str(e)) from e
        return self.tensors


@dataclass(frozen=True)
class TensorLink:
    """One direction between two processes, first in, first out."""

    group: Group
    peer: int  # rank of the other process in the group
    tag: int  # unique among the links between the two

    def send(self, tensors: Sequence[torch.Tensor]) -> Pending:
        """Start to send contiguous tensors.  Raises ConnectionError."""
        return self._start(self.group.send, tensors)

    def receive(self, tensors: Sequence[torch.Tensor]) -> Pending:
        """Start to receive into contiguous tensors of the sizes that are sent.  Raises ConnectionError."""
        return self._start(self.group.recv, tensors)

    def _start(self, operation: _Operation, tensors: Sequence[torch.Tensor]) -> Pending:
        try:
            return Pending(tensors, [operation([t], self.peer, self.tag) for t in tensors if t.numel()])
        except RuntimeError as e:
            raise ConnectionError(str(e)) from e


class Transport:
    """The links of this process to all others of the job."""

    def __init__(self, store: Store, rank: int, world: int, timeout: float) -> None:
        """Every rank makes one.  Raises DistributedError if others do not within `timeout` seconds."""
        self.rank = rank
        self._store = store
        self._world = world
        self._direct: list[Group] = []
        try:
            prefixed = PrefixStore("gloo", store)
            self._gloo = cast(Group, distributed.ProcessGroupGloo(prefixed, rank, world, timedelta(seconds=timeout)))
        except RuntimeError as e:
            raise DistributedError(f"the processes cannot reach each other: {e}") from e

    def host_link(self, peer: int, tag: int) -> TensorLink:
        """A link for tensors in host memory, over gloo.  `peer`: the other rank."""
        return TensorLink(self._gloo, peer, tag)

    def device_link(self, target: int, tag: int, device: torch.device) -> TensorLink:
        """A link for tensors on accelerators, over a group of its kind (NCCL, for GPUs) of its own: these have no tags.

        `target`: the rank that receives; `device`: this process's.  Both ranks make the link, and all in the order of
        their tags.  It sends a first tensor at once: NCCL connects at the first transfer, which would later wait for
        running kernels, and for other threads that use the same store.  Raises DistributedError.
        """
        here = int(self.rank == target)
        make = getattr(distributed, kind_of(device).group)  # a build for CPUs has none
        options = make.Options()
        options.group_name, options.global_ranks_in_group = f"link {tag}", [0, 1]
        options._timeout = FOREVER
        group = make(PrefixStore(f"nccl/{tag}", self._store), here, 2, options)
        self._direct.append(cast(Group, group))
        link = TensorLink(group, 1 - here, 0)
        try:
            group.eager_connect_single_device(device)
            first = [torch.zeros(1, device=device)]
            (link.receive(first) if here else link.send(first)).wait()
            torch.accelerator.synchronize(device)
        except (ConnectionError, RuntimeError) as e:
            raise DistributedError(f"the GPUs cannot reach each other: {e}") from e
        return link

    def close(self, cause: Exception | None = None) -> None:
        """Raise ConnectionError in all threads that wait for a link of this transport, here and in other processes."""
        for group in self._direct:
            group.abort()
        # Gloo's own `abort` wakes no thread; but a receive that times out breaks all its connections.
        with suppress(RuntimeError):
            timed_out = self._gloo.recv([torch.empty(1)], (self.rank + 1) % self._world, _UNUSED)
            timed_out.wait(timedelta(milliseconds=1))


_UNUSED = 2**31 - 1  # a tag that no link has
