"""All kinds of adapters that are merged, by peft's names of them."""

from __future__ import annotations

from collections.abc import Mapping

from ir.checkpoint.adapters.kinds.elements import ELEMENT_KINDS
from ir.checkpoint.adapters.kinds.functions import FUNCTION_KINDS
from ir.checkpoint.adapters.kinds.lora import LORA_KINDS
from ir.checkpoint.adapters.kinds.products import PRODUCT_KINDS
from ir.checkpoint.adapters.kinds.rotations import ROTATION_KINDS
from ir.checkpoint.adapters.layer import AdapterKind

KINDS: Mapping[str, AdapterKind] = {**LORA_KINDS, **PRODUCT_KINDS, **ROTATION_KINDS, **ELEMENT_KINDS, **FUNCTION_KINDS}
INDICES = frozenset(name for kind in KINDS.values() for name in kind.indices)
"""The names of the tensors that hold integers."""

PARTS = frozenset(name for kind in KINDS.values() for name in kind.parts) | INDICES
"""The names of the tensors of a layer."""

SHARED = frozenset(name for kind in KINDS.values() for name in kind.shared)
"""The names of the tensors of all layers."""
