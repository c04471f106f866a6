"""The process that holds the pipeline, behind a socket: a fault of a device ends this process, and no client notices.

    python -m runtime.serving.engines.engine_process OUT --socket FD

To the front: `beat` twice a second; `ready` once the stages are loaded, or `refused` where they cannot be; for each
`run` a `result`, or an `error` and whose fault it is; for each `text` its `step`s; for each `observe` what the `stages`
do; `lost` where a stage is, and `ready` once its process is there again, or the end of this process where stages have
none of their own.  It ends when the socket does.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from runtime.command_line import loaded
from runtime.distributed.exit import kill, kill_group
from runtime.errors import DeviceError, InputError, ManifestError, PipelineClosed, StageError, StageLost
from runtime.flags import add_loading_flags
from runtime.generation.continuation import Continuation
from runtime.pipeline import Pipeline
from runtime.processes.start import QUIET
from runtime.serving.arrays import Array
from runtime.serving.engines.messages import EngineMessage, receive_message
from runtime.serving.engines.observation import Observer
from runtime.serving.engines.stopped import StoppedProcesses, children
from runtime.serving.engines.tensors import array_of, tensor_of
from runtime.stage.callers import CALLERS

PREPARED = 128  # texts at once for which the compiled steps of a decoder are ready before it serves
BEAT = 0.5  # seconds between two signs of life
_SMALL = 64 << 10  # bytes that are copied and sent in less time than another thread takes to wake


class Wire:
    """The end of the socket in this process; any thread may send."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, kind: str, fields: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> None:
        data = EngineMessage(kind, fields, arrays or {}).packed()
        with self._lock, suppress(ConnectionError):  # nobody is left to tell: `receive` sees that, too
            self._connection.sendall(data)

    def receive(self) -> EngineMessage | None:
        return receive_message(self._connection)


class Beating:
    """The thread that shows that the process lives, how much it has read while it loads, and then that stages do."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._serving: Serving | None = None
        thread = threading.Thread(target=self._run, name="beat", daemon=True)
        QUIET.add(thread)
        thread.start()

    def watch(self, serving: Serving) -> None:
        """The stages are loaded."""
        self._serving = serving

    def _run(self) -> None:
        stopped = StoppedProcesses()
        while True:
            self._wire.send("beat", {} if self._serving else {"read": _bytes_read()})
            if self._serving is not None:
                self._serving.look()
            else:  # or it would load for as long as a slow one may
                stopped.look(children())
            time.sleep(BEAT)


def _bytes_read() -> int:
    """Bytes that this process has read until now; 0 where the system does not tell."""
    with suppress(OSError):
        return int(Path("/proc/self/io").read_text().split(maxsplit=2)[1])
    return 0


@dataclass(eq=False)
class TextOrder:
    """A text that the front asked for.  Until its prompt is read, which may take seconds, it has no continuation."""

    continuation: Continuation | None = None
    unwanted: bool = False

    def cancel(self) -> None:
        self.unwanted = True
        if self.continuation is not None:
            self.continuation.cancel()

    def begin(self, continuation: Continuation) -> None:
        self.continuation = continuation
        if self.unwanted:
            continuation.cancel()


class Serving:
    """The answers to what the front asks of a pipeline, which is mended when one of its processes is lost.

    Between two such losses lies a session.  What an earlier session still says is dropped: the front asks again.
    """

    def __init__(self, pipe: Pipeline, wire: Wire) -> None:
        self._pipe = pipe
        self._wire = wire
        self._session = 0
        self._gate = threading.Lock()  # held while something is said, and while a session ends
        self._broken = threading.Event()
        self._why = ""  # it is
        self._stopped = StoppedProcesses()
        self._asked = threading.Event()  # to observe the stages
        self._done: SimpleQueue[tuple[int, int, Future[Any]]] = SimpleQueue()
        self._in_flight = 0
        self._texts: dict[tuple[int, int], TextOrder] = {}  # by session and number
        for name, work in {"answers": self._answer_large, "mending": self._mend, "observer": self._observe}.items():
            threading.Thread(target=work, name=name, daemon=True).start()
        self._ready()

    def serve(self) -> None:
        """Until the front is gone."""
        while (message := self._wire.receive()) is not None:
            match message.kind:
                case "run":
                    self._run(message)
                case "text":
                    self._begin(message)
                case "cancel":
                    if (text := self._texts.get((self._session, message.fields["id"]))) is not None:
                        text.cancel()
                case "observe":
                    self._asked.set()

    def end(self) -> None:
        """End the stages' processes and this one.  Nothing is lost, and closing the stages would only take time."""
        self._gate.acquire()  # no session begins any more
        pids = [*self._pipe.pids]
        for pid in pids:
            kill_group(pid)
        for pid in pids:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
        kill(os.getpid())

    def look(self) -> None:
        """See whether the stages' processes live; one that is stopped twice in a row is killed."""
        self._stopped.look(self._pipe.pids)
        if self._pipe.closed:
            self._break("a stage's process is gone")

    def _run(self, message: EngineMessage) -> None:
        number, session = message.fields["id"], self._session
        try:
            future = self._submit(message)
        except Exception as e:
            self._fail(session, number, e)
        else:
            self._in_flight += 1  # on this thread; the other one is `_answer`'s, so it may be off by one for a moment
            future.add_done_callback(partial(self._finished, session, number))

    def _submit(self, message: EngineMessage) -> Future[Any]:
        """Start a batch; of several requests that ask for some outputs, or for parts, each gets its own."""
        tensors = {name: tensor_of(array) for name, array in message.arrays.items()}
        if "outputs" not in message.fields:
            return self._pipe.submit_named(tensors)
        return self._pipe.submit_shared(tensors, message.fields["outputs"], message.fields["sizes"])

    def _finished(self, session: int, number: int, future: Future[Any]) -> None:
        """On the thread that collects results: a large output must not keep it from the next one."""
        if future.exception() is None and sum(t.nbytes for t in _named(future.result()).values()) <= _SMALL:
            self._answer(session, number, future)
        else:
            self._done.put((session, number, future))

    def _answer_large(self) -> None:
        while True:
            self._answer(*self._done.get())

    def _answer(self, session: int, number: int, future: Future[Any]) -> None:
        self._in_flight -= 1
        try:
            arrays = {name: array_of(tensor) for name, tensor in _named(future.result()).items()}
        except Exception as e:
            self._fail(session, number, e)
        else:
            self._say(session, "result", {"id": number}, arrays)

    def _begin(self, message: EngineMessage) -> None:
        number, session = message.fields["id"], self._session
        if (session, number) in self._texts:  # asked for before the front knew of a loss, and again after it
            return
        self._texts[session, number] = TextOrder()
        given = session, number, *(message.fields[name] for name in ("prompt", "options", "written"))
        threading.Thread(target=self._write, args=given, name=f"text {number}", daemon=True).start()

    def _write(self, session: int, number: int, prompt: Any, options: dict[str, Any], written: list[int]) -> None:
        """On a thread of the text, whose first tokens an earlier engine has `written`."""
        try:
            if "logit_bias" in options:  # JSON has no numbers as keys
                options["logit_bias"] = dict(options["logit_bias"])
            text = self._pipe.start(prompt, written=written, **options)
            self._texts[session, number].begin(text)
            if session != self._session:  # the front asks again
                text.cancel()
            self._say(session, "begun", {"id": number, "prompt_tokens": text.prompt_tokens})
            for step in islice(text, len(written), None):
                told = {"token": step.token, "text": step.text, "logprob": step.logprob, "reason": step.reason}
                self._say(session, "step", {"id": number, **told})
            self._say(session, "end", {"id": number})
        except Exception as e:
            self._fail(session, number, e, "text_error")
        finally:
            del self._texts[session, number]

    def _observe(self) -> None:
        """On a thread of its own, one window after the other."""
        observer = Observer(self._pipe, lambda: self._in_flight)
        while True:
            self._asked.wait()
            self._asked.clear()
            with suppress(StageError, PipelineClosed):
                self._say(self._session, "stages", {"stages": observer.observe()})

    def _ready(self) -> None:
        self._wire.send("ready", {"stages": len(self._pipe.devices)})

    def _say(
        self, session: int, kind: str, fields: Mapping[str, Any], arrays: Mapping[str, Array] | None = None
    ) -> None:
        with self._gate:
            if session == self._session:
                self._wire.send(kind, fields, arrays)

    def _fail(self, session: int, number: int, error: Exception, kind: str = "error") -> None:
        """Say whose fault it was; where a stage is lost it was nobody's, and the front asks again."""
        if isinstance(error, (PipelineClosed, StageLost)) or self._pipe.closed:
            if session == self._session:
                self._break(str(error))
            return
        whose = "input" if isinstance(error, InputError) else "stage"
        self._say(session, kind, {"id": number, "whose": whose, "message": str(error)})

    def _break(self, why: str) -> None:
        if not self._broken.is_set():
            self._why = why
            self._broken.set()

    def _mend(self) -> None:
        """On a thread of its own: start again the processes that are lost; the others keep their weights."""
        while True:
            self._broken.wait()
            with self._gate:
                self._session += 1
                self._wire.send("lost", {"message": self._why})
            try:
                self._pipe.restart()
            except Exception:  # the stages are on threads of this process or on other hosts, or one was lost again
                print(f"the engine ends: {self._why}", file=sys.stderr, flush=True)
                kill(os.getpid())
            self._in_flight = 0
            self._broken.clear()
            self._ready()


def _named(result: Any) -> Mapping[str, torch.Tensor]:
    """The outputs of a batch by their names; of several requests, with the number of each before."""
    if isinstance(result, list):
        return {f"{i} {name}": tensor for i, outputs in enumerate(result) for name, tensor in outputs.items()}
    return result


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m runtime.serving.engines.engine_process")
    add_loading_flags(parser)
    parser.add_argument("--socket", type=int, required=True, help="the file descriptor that leads to the front")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the front decides when it ends
    wire = Wire(socket.socket(fileno=options.socket))
    beating = Beating(wire)
    CALLERS.are_ours = True
    try:
        pipe = loaded(options)
        if options.compile and pipe.manifest.generation.page and any(device.type != "cpu" for device in pipe.devices):
            pipe.prepare(batch=PREPARED)  # or texts would wait for the compiler
    except StageLost as e:  # its process may load the next time
        print(f"the engine ends: {e}", file=sys.stderr, flush=True)
        return 1
    except (DeviceError, InputError, ManifestError, StageError) as e:
        wire.send("refused", {"message": str(e)})
        return 2
    serving = Serving(pipe, wire)
    beating.watch(serving)
    serving.serve()
    serving.end()
    return 0


if __name__ == "__main__":
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    sys.exit(main())
