"""A model for Triton's Python backend: requests in, responses as the pipeline finishes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import torch
import triton_python_backend_utils as triton  # pyright: ignore[reportMissingImports]

from runtime.errors import InputError
from runtime.serving.adapters.hosted import HostedModel
from runtime.serving.admission import Arrays, RequestFailed
from runtime.serving.engines.tensors import array_of, tensor_of


class TritonPythonModel:
    """One instance that owns the model's devices, and has as many requests in flight as Triton hands it.

    The parameters of config.pbtxt name the `artifact`, and `flags` of `python -m runtime.serve`, as a JSON list.
    A parameter of a request under the name of an output is an index of it, as `[:, -1]`.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Start the engines, and wait until they are ready."""
        given = json.loads(args["model_config"])["parameters"]
        flags = json.loads(given.get("flags", {}).get("string_value", "[]"))
        self.model = HostedModel(given["artifact"]["string_value"], flags)
        self.model.wait()

    def execute(self, requests: Sequence[Any]) -> None:
        """Start requests.  Their responses are sent when they are done, so that Triton may hand on others."""
        for request in requests:
            inputs = {t.name(): array_of(torch.from_dlpack(t.to_dlpack())) for t in request.inputs()}
            parts = json.loads(request.parameters())
            wanted = {f"{name}{parts.get(name, '')}": name for name in request.requested_output_names()}
            done = partial(_respond, request.get_response_sender(), wanted)
            self.model.submit(inputs, outputs=[*wanted]).add_done_callback(done)

    def finalize(self) -> None:
        self.model.close()


def _respond(sender: Any, wanted: Mapping[str, str], future: Future[Arrays]) -> None:
    """Send the outputs.  `wanted`: for each, or its part, the name that Triton knows."""
    try:
        outputs = {wanted[part]: tensor_of(array) for part, array in future.result().items()}
        tensors = [triton.Tensor.from_dlpack(name, torch.to_dlpack(tensor)) for name, tensor in outputs.items()]
        response = triton.InferenceResponse(tensors)
    except Exception as e:
        response = error_response(e)
    sender.send(response, flags=triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def error_response(error: BaseException) -> Any:
    """A response that says what went wrong, and whose fault it was."""
    return triton.InferenceResponse(error=triton.TritonError(str(error), _code(error)))


def _code(error: BaseException) -> Any:
    if isinstance(error, InputError) or (isinstance(error, RequestFailed) and error.fault):
        return triton.TritonError.INVALID_ARG
    return triton.TritonError.INTERNAL if isinstance(error, RequestFailed) else triton.TritonError.UNAVAILABLE
