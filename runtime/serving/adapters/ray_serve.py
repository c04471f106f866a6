"""An application for Ray Serve: Ray places and watches replicas, and each speaks all our protocols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray import serve  # pyright: ignore[reportMissingImports]

from runtime.serving.engines.supervisor import EngineState
from runtime.serving.flags import parser
from runtime.serving.front.app import Server
from runtime.serving.front.listening import server_of

_HERE: list[Server] = []  # the server of this process, if it is that of a replica


def application(artifact: str, flags: Sequence[str] = (), gpus: int = 0, replicas: int = 1) -> Any:
    """The application of an artifact, for `serve run`.

    `flags`: of `python -m runtime.serve`; `gpus`: of each replica, on one host; `replicas`: that Ray keeps running.
    A replica gives 429 by itself where too many requests wait, so Ray hands on more than it takes.
    """
    options = parser("stagecut").parse_args([artifact, *flags])
    deployment = serve.deployment(
        name=options.name or options.artifact.resolve().name,
        num_replicas=replicas,
        ray_actor_options={"num_gpus": gpus},
        max_ongoing_requests=2 * options.max_queue,
        graceful_shutdown_timeout_s=options.drain,
    )
    return deployment(serve.ingress(_application_here)(StagecutReplica)).bind(artifact, [*flags])


class StagecutReplica:
    """A replica: the front, whose engine is a process of its own."""

    def __init__(self, artifact: str, flags: Sequence[str]) -> None:
        _HERE[:] = [server_of(parser("stagecut").parse_args([artifact, *flags]))]

    def check_health(self) -> None:
        """Raises RuntimeError where the artifact was refused: then Ray starts another replica."""
        [server] = _HERE
        if all(engine.state is EngineState.FAILED for engine in server.model.engines):
            raise RuntimeError(server.model.state)


def _application_here() -> Any:
    [server] = _HERE
    return server.app()
