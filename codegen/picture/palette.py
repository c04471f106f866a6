"""A colour for each stage, distinct for the colour-blind as well."""

from __future__ import annotations

from dataclasses import dataclass

# The light scheme of Paul Tol, made to lie under dark text; its grey is left for what belongs to no stage.
_HUES = ("#77AADD", "#EE8866", "#44BB99", "#EEDD88", "#FFAABB", "#BBCC33", "#99DDFF", "#AAAA00")
_TINTS = (0.72, 0.45, 0.85, 0.6)  # of white; each round of hues has its own
_SHADES = (0.0, 0.22, 0.1, 0.34)  # of black
_NIGHT = "#14171C"


@dataclass(frozen=True)
class Colours:
    """The colours of a stage: of its boxes, of lines and words on them, and of bars in charts."""

    fill: str
    line: str
    bar: str


GREY = Colours("#F2F2F2", "#888888", "#BBBBBB")


def colours(stage: int, dark: bool = False) -> Colours:
    """The colours of a stage on a white page, or on a `dark` one."""
    turn, place = divmod(stage, len(_HUES))
    hue, tint, shade = _HUES[place], _TINTS[turn % len(_TINTS)], _SHADES[turn % len(_SHADES)]
    bar = _mix(hue, "#000000", shade)
    if dark:
        return Colours(_mix(bar, _NIGHT, 0.82), hue, bar)
    return Colours(_mix(hue, "#FFFFFF", tint), _mix(hue, "#000000", 0.45), bar)


def _mix(colour: str, other: str, share: float) -> str:
    pairs = ((int(colour[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round((1 - share) * a + share * b):02X}" for a, b in pairs)
