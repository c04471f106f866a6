"""The step of a transformers model without a cache: each one computes its texts anew."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ir.checkpoint.adapters.kept import CHOICE
from ir.sources.decoder.step import DecoderStep


class WholeStep(DecoderStep):
    """A step that takes whole texts, all of one length."""

    def logits(self, input_ids: Tensor, lengths: Tensor, counts: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        whole: Any = super(DecoderStep, self).forward
        accepts = inspect.signature(whole).parameters
        given: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in accepts else {}
        given |= {CHOICE: tables[CHOICE]} if CHOICE in tables else {}
        if "use_cache" in accepts:
            given["use_cache"] = False
        return whole(input_ids=input_ids, **given).logits[:, -1]
