"""Places in the user's source: the line and the module calls that made a node."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol


class Located(Protocol):
    """Anything with a place in the user's model."""

    @property
    def where(self) -> Where: ...


class Copy(NamedTuple):
    """`residual = hidden_states` in the user's source: a second name for one value."""

    line: int
    new: str
    old: str


@dataclass(frozen=True)
class Frame:
    """A call of a module, and the statement of its `forward` that was running."""

    module: str  # dotted path, "" for the model itself
    file: str = ""  # "" in torch's own modules
    line: int = 0  # the statement's first
    parameters: tuple[str, ...] = ()  # those of `forward`, without self
    copies: tuple[Copy, ...] = ()  # those of `forward`


@dataclass(frozen=True)
class Where:
    """The place in the user's model that made a node."""

    module: str = ""  # dotted path: "model.layers.0.self_attn"
    file: str = ""
    line: int = 0
    code: str = ""  # the source line itself
    frames: tuple[Frame, ...] = field(default=(), repr=False)  # the calls that led there, outermost first

    @property
    def outside(self) -> Where:
        """The call of the innermost module, in the one that calls it."""
        frames = self.frames[:-1]
        return replace(self, module=frames[-1].module if frames else "", frames=frames)

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file else "an unknown source line"
        return f"{self.module or 'the model'} ({place})" + (f": {self.code}" if self.code else "")
