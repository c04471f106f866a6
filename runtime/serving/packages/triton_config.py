"""The entries of Triton's config.pbtxt that depend on the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runtime.manifest.manifest import Tensor
from runtime.serving.interface import Interface
from runtime.serving.protocols.oip import DATATYPES

# Inputs of a model that writes texts, all optional: their types, and their sizes.
_TEXT_INPUTS = {
    "text_input": ("STRING", 1), "input_ids": ("INT64", -1), "messages": ("STRING", 1), "stream": ("BOOL", 1),
    "max_tokens": ("INT32", 1), "temperature": ("FP32", 1), "top_p": ("FP32", 1), "seed": ("INT64", 1),
    "stop": ("STRING", -1),
}  # fmt: skip
_TEXT_OUTPUTS = {"text_output": ("STRING", 1), "token_ids": ("INT64", -1), "finish_reason": ("STRING", 1)}


_TEXT_NOTES = """
A prompt is `text_input`, `input_ids` or `messages` (a chat, as JSON in a text). Fields of the OpenAI API are inputs
(`max_tokens`, `temperature`, `top_p`, `seed`, `stop`) or `parameters` of the request (`top_k`, `min_p`, …). `/generate`
answers with the whole text; `/generate_stream` with `"stream": true` sends tokens as they come, as gRPC does. Texts are
bytes, which Triton hands on as arrays: a Triton that is older than NumPy 2 needs `numpy<2` in the Python that it runs,
and says so when the model is loaded.
"""


def config_values(interface: Interface) -> dict[str, str]:
    """The values that the templates need, by name."""
    if not interface.writes_texts:
        tensors = {"inputs": _tensors(interface.inputs), "outputs": _tensors(interface.outputs)}
        return {**tensors, "policy": "", "module": "triton", "class": "TritonPythonModel", "triton_notes": ""}
    return {
        "triton_notes": _TEXT_NOTES,
        "inputs": ",\n  ".join(_entry(name, *told, optional=True) for name, told in _TEXT_INPUTS.items()),
        "outputs": ",\n  ".join(_entry(name, *told) for name, told in _TEXT_OUTPUTS.items()),
        "policy": "model_transaction_policy { decoupled: true }\n",
        "module": "triton_texts",
        "class": "TritonTextModel as TritonPythonModel",
    }


def sizes_with(tensor: Tensor, changing: int) -> Iterator[int]:
    """The sizes of a tensor, with `changing` for those that may change."""
    return (size if isinstance(size, int) else changing for size in tensor.shape)


def _tensors(tensors: Sequence[Tensor]) -> str:
    return ",\n  ".join(_entry(t.name, DATATYPES.get(t.dtype, "INVALID"), *sizes_with(t, -1)) for t in tensors)


def _entry(name: str, kind: str, *sizes: int, optional: bool = False) -> str:
    more = ", optional: true" if optional else ""
    return f'{{ name: "{name}", data_type: TYPE_{kind}, dims: {[*sizes]}{more} }}'
