"""Orders to a process that runs stages, and its answers."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from runtime.processes.message_socket import MessageSocket
from runtime.stage.speed import Speed


@dataclass(frozen=True)
class LoadStages:
    """The first order: load stages."""

    folder: Path
    number: int  # of the process; 0 is the caller's
    processes: tuple[int, ...]  # of each stage
    devices: tuple[torch.device, ...]  # of each stage
    speed: Speed
    timeout: float | None
    beat: float  # seconds between two signs of life
    threads: int  # of the CPU, for one operator
    settings: dict[str, str]  # of torch
    seed: int
    tokens: int = 0  # that pools have room for; 0: as planned


@dataclass(frozen=True)
class BeginSession:
    """Begin to run batches.  The ends of this process's links come with it, in the order of `routes`."""

    routes: tuple[int, ...]  # by their numbers


@dataclass(frozen=True)
class StopSession:
    """Drop the batches in flight, restore the state, and keep the weights."""


@dataclass(frozen=True)
class Followed:
    """The answer to each order."""


@dataclass(frozen=True)
class Alive:
    """A sign of life, every `beat` seconds."""


@dataclass(frozen=True)
class Fault:
    """An error that ended this process's work, as `error_codec` encodes it."""

    error: bytes


Order = LoadStages | BeginSession | StopSession
Report = Followed | Alive | Fault


def send_order(connection: MessageSocket, order: Order | Report, descriptors: Sequence[int] = ()) -> None:
    """Send an order, or an answer.  Raises ConnectionError."""
    connection.send(pickle.dumps(order), descriptors)


def receive_order(connection: MessageSocket) -> tuple[Order, list[int]]:
    """The next order, and its file descriptors.  Raises ConnectionError."""
    data, descriptors = connection.receive()
    return pickle.loads(data), descriptors


def receive_report(connection: MessageSocket) -> Report:
    """The next answer.  Raises ConnectionError."""
    return pickle.loads(connection.receive()[0])
