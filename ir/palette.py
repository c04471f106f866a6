"""A colour for each stage, told apart by the colour-blind as well."""

from __future__ import annotations

from dataclasses import dataclass

# The light scheme of Paul Tol, made to lie under dark text; its grey is left for what belongs to no stage.
_HUES = ("#77AADD", "#EE8866", "#44BB99", "#EEDD88", "#FFAABB", "#BBCC33", "#99DDFF", "#AAAA00")
_TINTS = (0.72, 0.45, 0.85, 0.6)  # of white; each round of hues has its own


@dataclass(frozen=True)
class Colours:
    """Of one stage: behind its boxes, and for lines and words on it."""

    fill: str
    line: str


GREY = Colours("#F2F2F2", "#888888")


def colours(stage: int) -> Colours:
    turn, place = divmod(stage, len(_HUES))
    return Colours(_mix(_HUES[place], "#FFFFFF", _TINTS[turn % len(_TINTS)]), _mix(_HUES[place], "#000000", 0.45))


def _mix(colour: str, other: str, share: float) -> str:
    pairs = ((int(colour[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round((1 - share) * a + share * b):02X}" for a, b in pairs)
