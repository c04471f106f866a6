"""The levels of detail of a picture; without torch, for the command line's help."""

from __future__ import annotations

from enum import Enum


class Detail(str, Enum):
    """The operators that a box of a picture stands for."""

    modules = "modules"
    operators = "operators"
    stages = "stages"
