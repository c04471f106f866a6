"""The place of a process in a job: its rank, and the address where the processes meet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.errors import DistributedError, InputError, demand

DEFAULT_PORT = 29400


@dataclass(frozen=True)
class JobAddress:
    """A process of a job, as torchrun or a caller names it."""

    rank: int
    world: int  # processes
    host: str  # of rank 0
    port: int
    local: int  # rank among the processes of this host
    by_torchrun: bool = False  # whose variables also say where the store is

    @classmethod
    def find(cls, rank: int | None = None, world: int | None = None, address: str | None = None) -> JobAddress:
        """The place that the caller names, or the variables of torchrun where it names none.

        Raises InputError for a place that cannot be, DistributedError without any.
        """
        if rank is None and world is None and address is None:
            return cls._of_torchrun(os.environ)
        demand(isinstance(address, str), "address", address, "that of rank 0, such as 10.0.0.1:29400")
        demand(type(world) is int and world > 0, "world", world, "a number of processes")
        demand(type(rank) is int and 0 <= rank < (world or 0), "rank", rank, "a number from 0 to world - 1")
        assert rank is not None and world is not None and address is not None  # noqa: PT018
        return cls(rank, world, *host_and_port(address), local=rank)

    @classmethod
    def _of_torchrun(cls, told: Mapping[str, str]) -> JobAddress:
        try:
            rank, host, port = int(told["RANK"]), told["MASTER_ADDR"], int(told["MASTER_PORT"])
            return cls(rank, int(told["WORLD_SIZE"]), host, port, int(told.get("LOCAL_RANK", rank)), by_torchrun=True)
        except (KeyError, ValueError):
            raise DistributedError(
                "torchrun starts the processes of a job: torchrun --nproc-per-node N script.py"
            ) from None


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of an address, whose port may be left out.  Raises InputError."""
    name, _, port = address.rpartition(":") if ":" in address else (address, "", str(DEFAULT_PORT))
    if not name or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"{address!r} is no address of a host, such as 10.0.0.1:{DEFAULT_PORT}")
    return name, int(port)
