"""The final states of an LSTM while a model is exported, in the shape that they have when it runs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import wraps
from typing import Any
from unittest.mock import patch

from torch._decomp import decompositions


def states_in_their_shape() -> AbstractContextManager[Any]:
    """Inside the context, layers of an LSTM return states `[batch, hidden]`: in torch 2.11 a 1 leads these."""
    layer = decompositions.one_layer_lstm

    @wraps(layer)
    def shaped(inputs: Any, hidden: Any, *args: Any, **kwargs: Any) -> Any:
        out, states = layer(inputs, hidden, *args, **kwargs)
        return out, tuple(state.reshape(before.shape) for state, before in zip(states, hidden, strict=True))

    return patch.object(decompositions, "one_layer_lstm", shaped)
