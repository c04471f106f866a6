"""The dimensions along which a batch may be split into microbatches."""

from __future__ import annotations

from dataclasses import dataclass

import sympy


@dataclass(frozen=True)
class Microbatching:
    """The dimension of a batch's rows in each input and output, if no row sees another on the way.

    None in `inputs`: every microbatch gets the whole tensor.  None in `outputs`: every microbatch returns the same.
    """

    size: sympy.Symbol | None = None  # the number of rows; None: a batch cannot be split
    inputs: tuple[int | None, ...] = ()
    outputs: tuple[int | None, ...] = ()
    reason: str = "the pass follow-rows did not run"  # why a batch cannot be split
