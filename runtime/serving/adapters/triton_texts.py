"""A model for Triton's Python backend that writes texts: prompts in, tokens out as they come, or texts as a whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch
import triton_python_backend_utils as triton  # pyright: ignore[reportMissingImports]

from runtime.serving.adapters.triton import TritonPythonModel, error_response
from runtime.serving.protocols.oip import read_json
from runtime.serving.protocols.openai_answers import TextPiece

_FIELDS = {"text_input": "prompt", "input_ids": "prompt"}  # of the OpenAI API, by inputs of other names


class TritonTextModel(TritonPythonModel):
    """One instance that continues the texts of all requests at once.  Its transaction policy must be decoupled.

    A request has `text_input`, `input_ids` or `messages` (a chat, as JSON), and fields of the OpenAI API as inputs or
    as parameters.  With `stream` each token is a response, without it the text is one.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Start the engines, and wait until they are ready.  Raises RuntimeError where texts could not be answered."""
        probe = triton.Tensor.from_dlpack("probe", torch.to_dlpack(torch.tensor([1, 2])))
        if probe.as_numpy().tolist() != [1, 2]:
            found = numpy.__version__
            raise RuntimeError(f"this Triton cannot read arrays of NumPy {found}; its Python needs numpy<2")
        super().initialize(args)
        self.name = args["model_name"]

    def execute(self, requests: Sequence[Any]) -> None:
        """Start texts, and return at once, so that Triton may hand on others."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                table = _table(request)
                answer = _TextResponses(sender, request.requested_output_names(), bool(table.pop("stream", False)))
                self.model.write_each(table, self.name, answer.take).add_done_callback(answer.end)
            except Exception as e:
                sender.send(error_response(e), flags=triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


@dataclass
class _TextResponses:
    """The responses to a request.  Called on one thread."""

    sender: Any
    wanted: Sequence[str]  # names of outputs
    streams: bool
    pieces: list[TextPiece] = field(default_factory=list)  # that no response has had

    def take(self, piece: TextPiece) -> bool:
        """A token.  False where the client has left."""
        self.pieces.append(piece)
        if self.streams:
            self.sender.send(self._response())
        return not self.sender.is_cancelled()

    def end(self, done: Future[None]) -> None:
        """The end of the text."""
        final = triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        if (error := done.exception()) is not None:
            self.sender.send(error_response(error), flags=final)
        elif self.streams:
            self.sender.send(flags=final)
        else:
            self.sender.send(self._response(), flags=final)

    def _response(self) -> Any:
        pieces, self.pieces = self.pieces, []
        tokens = torch.tensor([piece.token for piece in pieces])
        made = {
            "text_output": _strings("text_output", ["".join(piece.text for piece in pieces)]),
            "token_ids": triton.Tensor.from_dlpack("token_ids", torch.to_dlpack(tokens)),
            "finish_reason": _strings("finish_reason", [pieces[-1].reason if pieces else ""]),
        }
        return triton.InferenceResponse([made[name] for name in self.wanted])


def _table(request: Any) -> dict[str, Any]:
    """A request of the OpenAI API.  Raises InputError."""
    table = json.loads(request.parameters())
    for tensor in request.inputs():
        name = tensor.name()
        values = [_value(name, one) for one in tensor.as_numpy().reshape(-1)]
        table[_FIELDS.get(name, name)] = values if name in ("input_ids", "stop") else values[0]
    return table


def _value(name: str, one: Any) -> Any:
    """An element of an input as JSON has it; a float32 as the shortest number that it stands for."""
    if isinstance(one, bytes):
        return read_json(one) if name == "messages" else one.decode(errors="replace")
    return float(str(one)) if one.dtype == "float32" else one.item()


def _strings(name: str, texts: Sequence[str]) -> Any:
    return triton.Tensor(name, numpy.array([text.encode() for text in texts], dtype=numpy.object_))
