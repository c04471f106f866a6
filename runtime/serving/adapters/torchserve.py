"""A handler for TorchServe, also as the base of a handler of your own.

class Mine(StagecutHandler):
    def preprocess(self, request):
        return {"input_ids": torch.tensor([self.tokenizer.encode(request["text"])])}

    def postprocess(self, outputs):
        return outputs["logits"].argmax(-1).tolist()
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import torch

from runtime.errors import InputError
from runtime.serving.adapters.hosted import HostedModel
from runtime.serving.admission import Expired, NotServing, Overloaded, RequestFailed
from runtime.serving.engines.tensors import array_of, tensor_of
from runtime.serving.protocols import oip
from runtime.serving.served_model import http_status

_WARM_UP = {"stagecut": "warm-up"}  # the body of a request that asks for nothing
# TorchServe's table of requests grows with their number, as with number 769 and then 1537; while it does, one that is
# answered may be lost (docs/serving.md).  So many requests, one after the other, make it grow before others come.
_REQUESTS_FIRST = 800
_ALREADY = Event()
_ALREADY.set()
_KNOWN = (InputError, Overloaded, RequestFailed, NotServing, Expired)


class StagecutHandler:
    """A handler that answers many requests at once; TorchServe must call it with `asyncCommunication`.

    The file model-config.yaml names the artifact and flags of `python -m runtime.serve` under `stagecut`.  A decoder
    takes and gives what the OpenAI API does, without `preprocess` and `postprocess`.
    """

    _warm = _ALREADY  # until then no request is answered

    def initialize(self, context: Any) -> None:
        """Start the engines, and wait until they are ready."""
        settings = context.model_yaml_config["stagecut"]
        self.name = str(context.manifest["model"]["modelName"])
        self.model = HostedModel(settings["artifact"], [str(flag) for flag in settings.get("flags", ())])
        self.model.wait()
        if "address" in settings:
            self._warm = Event()
            Thread(target=_warm_up, args=(settings["address"], self._warm), name="warm-up", daemon=True).start()

    async def handle(self, data: list[Any], context: Any) -> list[Any]:
        """The answers to some requests, each with a status of its own."""
        return [*await asyncio.gather(*(self._answer(i, row, context) for i, row in enumerate(data)))]

    def preprocess(self, request: Any) -> Mapping[str, torch.Tensor]:
        """The inputs in a body: parsed JSON, or bytes.  By default the JSON of the Open Inference Protocol."""
        asked = oip.read_table(_read(request))
        return {name: tensor_of(array) for name, array in asked.arrays.items()}

    def wanted(self, request: Any) -> Sequence[str]:
        """The outputs that a body asks for, or parts of them as `logits[:, -1]`; none: all.

        By default those in the list `outputs` of the Open Inference Protocol, if the body has one.
        """
        with suppress(InputError):
            return [*oip.read_outputs(table)] if isinstance(table := _read(request), Mapping) else ()
        return ()

    def postprocess(self, outputs: Mapping[str, torch.Tensor]) -> Any:
        """The body of an answer, as JSON has it."""
        body, _ = oip.answer(
            self.name, oip.Asked("", {}, {}, False, None), {n: array_of(t) for n, t in outputs.items()}
        )
        return json.loads(body)

    async def _answer(self, index: int, row: Mapping[str, Any], context: Any) -> Any:
        body = row.get("body", row.get("data"))
        if body == _WARM_UP:
            return {}
        if not self._warm.is_set():
            await asyncio.to_thread(self._warm.wait)
        try:
            if self.model.interface.writes_texts:
                return await asyncio.wrap_future(self.model.write(_read(body), self.name))
            inputs = {name: array_of(tensor) for name, tensor in self.preprocess(body).items()}
            outputs = await asyncio.wrap_future(self.model.submit(inputs, outputs=self.wanted(body)))
            return self.postprocess({name: tensor_of(array) for name, array in outputs.items()})
        except _KNOWN as e:
            context.set_response_status(http_status(e), type(e).__name__, index)
            if isinstance(e, Overloaded):
                context.set_response_header(index, "retry-after", str(e.retry_after))
            return {"error": str(e)}


def _warm_up(address: str, done: Event) -> None:
    """Ask TorchServe at this address, `http://host:port/path`, for nothing, as often as `_REQUESTS_FIRST` says.

    Gives up after a minute without an answer.
    """
    try:
        url, body = urlsplit(address), json.dumps(_WARM_UP)
        left, failures = _REQUESTS_FIRST, 0
        with closing(HTTPConnection(url.netloc, timeout=10)) as connection:
            while left and failures < 120:
                if _is_answered(connection, url.path, body):
                    left, failures = left - 1, 0
                else:
                    failures += 1
                    time.sleep(0.5)
    finally:
        done.set()  # even for an address that cannot be read: requests wait for this


def _is_answered(connection: HTTPConnection, path: str, body: str) -> bool:
    try:
        connection.request("POST", path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status == 200
    except (HTTPException, OSError):  # it does not listen yet, or closed the connection
        connection.close()
        return False


def _read(body: Any) -> Any:
    """The JSON of a body, which may be parsed already.  Raises InputError."""
    return oip.read_json(bytes(body)) if isinstance(body, (bytes, bytearray)) else body
