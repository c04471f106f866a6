"""The process that holds the pipeline, behind a socket: a fault of a device ends this process, and no client notices.

    python -m runtime.serving.engine_process OUT --socket FD

To the front: `beat` twice a second; `ready` once the stages are loaded, or `refused` where they cannot be; for each
`run` a `result`, or an `error` and whose fault it is; for each `text` its `step`s; `lost` where the pipeline cannot go
on.  It ends when the socket does.
"""

from __future__ import annotations

import argparse
import ctypes
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
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from runtime.command_line import loaded
from runtime.distributed.exit import kill
from runtime.errors import DeviceError, InputError, ManifestError, PipelineClosed
from runtime.flags import add_loading_flags
from runtime.generation.continuation import Continuation
from runtime.pipeline import Pipeline
from runtime.serving.arrays import Array
from runtime.serving.messages import EngineMessage, receive_message

BEAT = 0.5  # seconds between two signs of life


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
    """The thread that shows that the process lives, and how much it has read while it loads."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._loading = True
        threading.Thread(target=self._run, name="beat", daemon=True).start()

    def loaded(self) -> None:
        self._loading = False

    def _run(self) -> None:
        while True:
            self._wire.send("beat", {"read": _bytes_read()} if self._loading else {})
            time.sleep(BEAT)


def _bytes_read() -> int:
    """Bytes that this process has read until now; 0 where the system does not tell."""
    with suppress(OSError):
        return int(Path("/proc/self/io").read_text().split(maxsplit=2)[1])
    return 0


class Serving:
    """The answers to what the front asks of a pipeline."""

    def __init__(self, pipe: Pipeline, wire: Wire) -> None:
        self._pipe = pipe
        self._wire = wire
        self._done: SimpleQueue[tuple[int, Future[Any]]] = SimpleQueue()
        self._texts: dict[int, Continuation] = {}
        threading.Thread(target=self._answer, name="answers", daemon=True).start()

    def serve(self) -> None:
        """Until the front is gone."""
        while (message := self._wire.receive()) is not None:
            match message.kind:
                case "run":
                    self._run(message)
                case "text":
                    self._begin(message)
                case "cancel":
                    if (text := self._texts.get(message.fields["id"])) is not None:
                        text.cancel()

    def _run(self, message: EngineMessage) -> None:
        number = message.fields["id"]
        try:
            future = self._pipe.submit_named({name: _tensor(array) for name, array in message.arrays.items()})
        except Exception as e:
            self._fail(number, e)
        else:
            future.add_done_callback(lambda done: self._done.put((number, done)))

    def _answer(self) -> None:
        """On a thread of its own: a large output must not stop the stages from handing on the next one."""
        while True:
            number, future = self._done.get()
            try:
                self._wire.send("result", {"id": number}, {n: _array(t) for n, t in future.result().items()})
            except Exception as e:
                self._fail(number, e)

    def _begin(self, message: EngineMessage) -> None:
        number = message.fields["id"]
        try:
            options = message.fields["options"]
            if "logit_bias" in options:  # JSON has no numbers as keys
                options["logit_bias"] = dict(options["logit_bias"])
            text = self._texts[number] = self._pipe.start(message.fields["prompt"], **options)
        except Exception as e:
            self._fail(number, e, "text_error")
        else:
            self._wire.send("begun", {"id": number, "prompt_tokens": text.prompt_tokens})
            threading.Thread(target=self._tell, args=(number,), name=f"text {number}", daemon=True).start()

    def _tell(self, number: int) -> None:
        text = self._texts[number]
        try:
            for step in text:
                told = {"token": step.token, "text": step.text, "logprob": step.logprob, "done": step.done}
                self._wire.send("step", {"id": number, **told})
            self._wire.send("end", {"id": number})
        except Exception as e:
            self._fail(number, e, "text_error")
        finally:
            del self._texts[number]

    def _fail(self, number: int, error: Exception, kind: str = "error") -> None:
        """Say whose fault it was; a pipeline that is closed takes this process with it."""
        if isinstance(error, PipelineClosed) or self._pipe.closed:
            self._wire.send("lost", {"message": str(error)})
            kill(os.getpid())
        whose = "input" if isinstance(error, InputError) else "stage"
        self._wire.send(kind, {"id": number, "whose": whose, "message": str(error)})


def _tensor(array: Array) -> torch.Tensor:
    """A tensor over the bytes of a message, which are its own."""
    dtype = getattr(torch, array.dtype)
    if not array.data:
        return torch.empty(array.shape, dtype=dtype)
    return torch.frombuffer(array.data, dtype=torch.uint8).view(dtype).view(array.shape)


def _array(tensor: torch.Tensor) -> Array:
    dense = tensor.detach().cpu().contiguous()
    data = ctypes.string_at(dense.data_ptr(), dense.nbytes) if dense.nbytes else b""
    return Array(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), data)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m runtime.serving.engine_process")
    add_loading_flags(parser)
    parser.add_argument("--socket", type=int, required=True, help="the file descriptor that leads to the front")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the front decides when it ends
    wire = Wire(socket.socket(fileno=options.socket))
    beating = Beating(wire)
    try:
        pipe = loaded(options)
    except (DeviceError, InputError, ManifestError) as e:
        wire.send("refused", {"message": str(e)})
        return 2
    beating.loaded()
    wire.send("ready", {"stages": len(pipe.devices)})
    Serving(pipe, wire).serve()
    last = threading.Timer(_LAST, kill, (os.getpid(),))  # whatever hangs
    last.daemon = True
    last.start()
    pipe.close()
    return 0


_LAST = 2.0  # seconds for the stages to end once the front is gone


if __name__ == "__main__":
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    sys.exit(main())
