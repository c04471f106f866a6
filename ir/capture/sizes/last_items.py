"""The last items along a size that may change, `x[:, -512:]`: all of them where there are fewer, at any size.

torch takes one of both cases, as it is in the example, and allows the sizes of that alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch._subclasses import fake_impls
from torch.fx.experimental.symbolic_shapes import statically_known_true


@contextmanager
def any_number_of_last_items() -> Iterator[None]:
    """Inside the context, a slice of more last items than the example has, `n`, begins at `max(size - n, 0)`.

    One of fewer items stays as torch has it: its length is a number.
    """
    index_of = fake_impls._compute_slice_index

    def found(size: Any, index: Any) -> Any:
        from_end = isinstance(size, torch.SymInt) and isinstance(index, int) and index < 0 and size.node.has_hint()
        if from_end and size.node.hint < -index and not statically_known_true(size < -index):
            return torch.sym_max(size + index, 0)
        return index_of(size, index)

    with patch.object(fake_impls, "_compute_slice_index", found):
        yield
