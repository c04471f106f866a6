"""An application for Ray Serve: Ray places and watches replicas, and each speaks all our protocols."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import ray  # pyright: ignore[reportMissingImports]
from ray import serve  # pyright: ignore[reportMissingImports]
from ray.util.scheduling_strategies import (  # pyright: ignore[reportMissingImports]
    PlacementGroupSchedulingStrategy,
)

from runtime.serving.adapters.hosted import gpus_of_a_host
from runtime.serving.engines.supervisor import EngineState
from runtime.serving.flags import parser
from runtime.serving.front.app import Server
from runtime.serving.front.listening import followers_of, server_of

_HERE: list[Server] = []  # the server of this process, if it is that of a replica


def application(artifact: str, flags: Sequence[str] = (), gpus: int = 0, replicas: int = 1, hosts: int = 1) -> Any:
    """The application of an artifact, for `serve run`.

    `flags`: of `python -m runtime.serve`; `gpus`: of a replica, in all; `replicas`: that Ray keeps running; `hosts`:
    that share the stages of a replica, each with as many of its GPUs.  A replica gives 429 by itself where too many
    requests wait, so Ray hands on more than it takes.  Raises InputError for GPUs that hosts cannot share alike.
    """
    own = gpus_of_a_host(gpus, hosts)
    options = parser("stagecut").parse_args([artifact, *flags])
    each = {"CPU": 1} | ({"GPU": own} if own else {})
    placed = {"placement_group_bundles": [each] * hosts, "placement_group_strategy": "SPREAD"} if hosts > 1 else {}
    deployment = serve.deployment(
        name=options.name or options.artifact.resolve().name,
        num_replicas=replicas,
        ray_actor_options={"num_gpus": own},
        max_ongoing_requests=2 * options.max_queue,
        graceful_shutdown_timeout_s=options.drain,
        **placed,
    )
    return deployment(serve.ingress(_application_here)(StagecutReplica)).bind(artifact, [*flags], hosts, own)


class StagecutReplica:
    """A replica: the front, whose engine is a process of its own, and of several hosts the actors on the others."""

    def __init__(self, artifact: str, flags: Sequence[str], hosts: int = 1, gpus: int = 0) -> None:
        """`gpus`: of each host."""
        if hosts > 1:
            meet, flags = _meeting_point(), [*flags, "--hosts", str(hosts)]
            self._hosts = [_host_actor([artifact, *flags, "--join", meet], n, gpus) for n in range(1, hosts)]
            flags = [*flags, "--meet", meet]
        _HERE[:] = [server_of(parser("stagecut").parse_args([artifact, *flags]))]

    def check_health(self) -> None:
        """Raises RuntimeError where the artifact was refused: then Ray starts another replica."""
        [server] = _HERE
        if all(engine.state is EngineState.FAILED for engine in server.model.engines):
            raise RuntimeError(server.model.state)


class StagecutHost:
    """The processes of a replica on another host.  Ray starts it again where it is lost."""

    def __init__(self, flags: Sequence[str]) -> None:
        self._followers = followers_of(parser("stagecut").parse_args([*flags]))

    async def run(self) -> None:
        """Until this actor ends."""
        self._followers.start()
        await asyncio.Event().wait()


def _host_actor(flags: Sequence[str], number: int, gpus: int) -> Any:
    """The actor of the host with this number, in the bundle of that number."""
    group = ray.util.get_current_placement_group()
    actor = ray.remote(StagecutHost).options(
        num_cpus=1,
        num_gpus=gpus,
        max_restarts=-1,
        max_task_retries=-1,
        scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=number),
    )
    host = actor.remote([*flags, "--number", str(number)])
    host.run.remote()
    return host


def _meeting_point() -> str:
    """The address of this host as Ray knows it, and a port that is free."""
    address = ray.util.get_node_ip_address()
    with socket.create_server((address, 0)) as free:
        return f"{address}:{free.getsockname()[1]}"


def _application_here() -> Any:
    [server] = _HERE
    return server.app()
