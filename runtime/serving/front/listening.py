"""The process that listens: the socket, signals, and what is said at the start and at the end."""

from __future__ import annotations

import argparse
import asyncio
import resource
import socket
import sys
from pathlib import Path
from types import FrameType

import uvicorn

from runtime.errors import InputError
from runtime.manifest.manifest import Manifest
from runtime.serving.admission import Limits
from runtime.serving.engines.hosts import Followers, HostJob, follow, host_job, own_address
from runtime.serving.engines.replicas import engine_arguments
from runtime.serving.front.app import Server, Settings
from runtime.serving.front.connections import Connection

LOCAL = ("127.0.0.1", "::1", "localhost")


def server_of(options: argparse.Namespace) -> Server:
    """The server that these flags ask for.  Raises InputError or ManifestError."""
    settings = Settings(
        name=options.name or options.artifact.resolve().name,
        limits=Limits(options.max_queue, options.max_rows, options.deadline),
        exact=options.exact,
        token=_token(options.token_file),
        most_bytes=options.max_body << 20,
    )
    return Server(options.artifact, engine_arguments(options), settings, _job(options, options.meet or own_address()))


def _job(options: argparse.Namespace, address: str) -> HostJob | None:
    """The job of several hosts, whose first one has this address; None for one host.  Raises InputError."""
    if options.hosts == 1:
        return None
    if options.replicas > 1:
        raise InputError("--replicas are for one host, and --hosts for one engine")
    return host_job(options.hosts, address, [stage.device for stage in Manifest.read(options.artifact).stages])


def serve(options: argparse.Namespace) -> int:
    """Serve until a signal ends it.  Raises InputError or ManifestError before anything is loaded."""
    if options.join:
        asyncio.run(follow(followers_of(options)))
        return 0
    if options.host not in LOCAL and not options.token_file and not options.no_token:
        raise InputError(
            f"--host {options.host} lets other machines ask; give a token with --token-file FILE, or say --no-token"
        )
    server = server_of(options)
    listener = _listener(options.host, options.port)
    _allow_many_connections()
    host, port = listener.getsockname()[:2]
    print(f"serving {server.settings.name} at http://{host}:{port}", file=sys.stderr, flush=True)
    config = uvicorn.Config(
        server.app(),
        http=Connection,
        ws="none",
        log_level="error",
        access_log=False,
        timeout_graceful_shutdown=options.drain,
        lifespan="on",
    )
    _Listening(config, server).run(sockets=[listener])
    return 0


def followers_of(options: argparse.Namespace) -> Followers:
    """The processes of this host, for a server on another one.  Raises InputError or ManifestError."""
    job = _job(options, options.join)
    if job is None or not 0 < options.number < options.hosts:
        raise InputError("a host that joins needs the number of --hosts, and its own --number from 1")
    print(f"host {options.number} of {options.hosts}: joining {job.address}:{job.port}", file=sys.stderr, flush=True)
    return Followers(job, job.ranks(options.number), engine_arguments(options)[0])


class _Listening(uvicorn.Server):
    """A server that says that it ends before it does."""

    def __init__(self, config: uvicorn.Config, server: Server) -> None:
        super().__init__(config)
        self._served = server

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._served.model.drain()
        self.force_exit = self.should_exit  # the second signal waits for nobody
        self.should_exit = True


def _token(path: Path | None) -> str:
    """The token in a file.  Raises InputError."""
    if path is None:
        return ""
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"cannot read the token from {path}: {e}") from e
    if not token.isascii() or not token:
        raise InputError(f"{path} holds no token: one line of ASCII")
    return token


def _listener(host: str, port: int) -> socket.socket:
    """A socket that listens.  Raises InputError where it cannot."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as e:
        raise InputError(f"cannot listen on {host}, port {port}: {e}", "give another one with --port") from e


def _allow_many_connections() -> None:
    """As many open files as the system allows this process, a connection each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
