"""A served model on an event loop of its own thread, for use within another server."""

from __future__ import annotations

import argparse
import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from typing import Any

from runtime.errors import InputError
from runtime.serving.admission import Arrays, Limits, NotServing
from runtime.serving.engines.replicas import engine_arguments
from runtime.serving.engines.supervisor import EngineState
from runtime.serving.flags import parser
from runtime.serving.interface import Interface
from runtime.serving.protocols.openai_answers import TextAnswer, TextPiece
from runtime.serving.protocols.openai_requests import FieldRefused, Wish, read_wish
from runtime.serving.served_model import ServedModel


def gpus_of_a_host(gpus: int, hosts: int) -> int:
    """The number of a replica's GPUs on each of its hosts.  Raises InputError where these are not as many on each."""
    if gpus % hosts:
        raise InputError(f"{gpus} GPUs are not as many on each of {hosts} hosts; give a multiple of {hosts}")
    return gpus // hosts


class HostedModel:
    """The engines of an artifact, and what they work on.  Any thread may ask.

    A process of the model that dies or hangs is started again, and what it ran runs again, as in a server of our own.
    """

    def __init__(self, artifact: str, flags: Sequence[str] = ()) -> None:
        """Start the engines.  `flags`: of `python -m runtime.serve`; those of its front mean nothing here.

        Raises InputError or ManifestError.
        """
        options = parser("stagecut").parse_args([str(artifact), *flags])
        self._loop = asyncio.new_event_loop()
        self._model = ServedModel(options.artifact, engine_arguments(options), _limits(options), options.exact)
        self._thread = threading.Thread(target=self._run, name="stagecut", daemon=True)
        self._thread.start()

    @property
    def interface(self) -> Interface:
        return self._model.interface

    @property
    def state(self) -> str:
        """The state of the engines, for people."""
        return self._model.state

    @property
    def has_failed(self) -> bool:
        """Whether the artifact was refused, and would be again."""
        return all(engine.state is EngineState.FAILED for engine in self._model.engines)

    def submit(self, arrays: Arrays, seconds: float | None = None, outputs: Sequence[str] = ()) -> Future[Arrays]:
        """Start a request; the future holds its outputs, or what `ServedModel.answer` raises."""
        return asyncio.run_coroutine_threadsafe(self._model.answer(arrays, seconds, outputs), self._loop)

    def write(self, table: Any, name: str) -> Future[dict[str, Any]]:
        """Start texts, of a model of this name; the future holds the answer, or what is raised.

        `table`: a request of the OpenAI API, for a chat if it has `messages`.
        """
        return asyncio.run_coroutine_threadsafe(self._write(table, name), self._loop)

    def write_each(self, table: Any, name: str, take: Callable[[TextPiece], bool]) -> Future[None]:
        """Start one text, whose tokens `take` gets until it returns False; the future is done after the last one.

        `table`: as for `write`.  `take` is called on the thread of the model, and must not wait.
        """
        return asyncio.run_coroutine_threadsafe(self._write_each(table, name, take), self._loop)

    async def _write(self, table: Any, name: str) -> dict[str, Any]:
        return await self._begin(table, name).whole()

    async def _write_each(self, table: Any, name: str, take: Callable[[TextPiece], bool]) -> None:
        if table.get("n") not in (None, 1):
            raise FieldRefused("`n` is not supported here; ask several times", "n")
        async with aclosing(self._begin(table, name).pieces()) as pieces:
            async for piece in pieces:
                if not take(piece):
                    break

    def _begin(self, table: Any, name: str) -> TextAnswer:
        return TextAnswer(whole_wish(table), self._model.texts, name)

    def wait(self) -> None:
        """Until a request would run.  Raises NotServing where none ever will."""
        while not self._model.is_ready:
            if self.has_failed:
                raise NotServing(self.state)
            time.sleep(0.05)

    def close(self) -> None:
        """End the engines."""
        asyncio.run_coroutine_threadsafe(self._model.stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._model.start)
        self._loop.run_forever()


def whole_wish(table: Any) -> Wish:
    """The wish for an answer that comes as a whole.  Raises FieldRefused or InputError."""
    wish = read_wish(table, chat=isinstance(table, dict) and "messages" in table)
    if wish.stream:
        raise FieldRefused("`stream` is not supported here", "stream")
    return wish


def _limits(options: argparse.Namespace) -> Limits:
    return Limits(options.max_queue, options.max_rows, options.deadline)
