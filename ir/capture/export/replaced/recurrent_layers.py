"""Recurrent layers while a model is exported: of each, one operator, only the shapes of the results are asked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch._decomp import decompositions


def whole_recurrent_layers() -> AbstractContextManager[Any]:
    """Inside the context, a layer of `nn.LSTM`, `nn.GRU` or `nn.RNN` takes any number of steps.

    torch's own rules go through the steps one by one, which fixes their number, and through the values of the lengths
    where sequences are packed.  Those of torch 2.11 also return an LSTM's states with a leading 1.
    """
    lstms = dict.fromkeys(("one_layer_lstm", "mkldnn_one_layer_lstm", "one_layer_lstm_data"), _lstm)
    return patch.multiple(decompositions, **lstms, one_layer_rnn=_rnn, one_layer_rnn_data=_rnn)


def _rnn(
    steps: torch.Tensor, state: torch.Tensor, weights: Sequence[torch.Tensor], has_biases: bool, *_: Any, **__: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Results over `[seq, batch, width]`, or packed, over `[elements, width]`, from a state `[batch, hidden]`.

    Raises RuntimeError where the width is another than that of the weights.
    """
    gates = F.linear(steps, weights[0], weights[2] if has_biases else None)
    return gates.new_empty(*gates.shape[:-1], state.shape[-1]), torch.empty_like(state)


def _lstm(
    steps: torch.Tensor, states: Sequence[torch.Tensor], *args: Any, **kwargs: Any
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """The same of an LSTM, from a state `[batch, projected]` and one `[batch, hidden]`."""
    hidden, cell = states
    out, last = _rnn(steps, hidden, *args, **kwargs)
    return out, (last, torch.empty_like(cell))
