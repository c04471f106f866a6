"""Small models of many architectures.  `python -m tests.zoo` cuts each and writes docs/coverage.md."""

from __future__ import annotations

from tests.zoo.decoders import DECODERS
from tests.zoo.encoders import ENCODERS
from tests.zoo.entry import Entry
from tests.zoo.joint import JOINT
from tests.zoo.others import OTHERS
from tests.zoo.sound import SOUND
from tests.zoo.translators import TRANSLATORS
from tests.zoo.vision import VISION

KINDS: dict[str, dict[str, Entry]] = {
    "Decoders": DECODERS,
    "Encoders": ENCODERS,
    "Encoder-decoders": TRANSLATORS,
    "Vision": VISION,
    "Images and text": JOINT,
    "Sound": SOUND,
    "Diffusion and series": OTHERS,
}
MODELS: dict[str, Entry] = {name: entry for kind in KINDS.values() for name, entry in kind.items()}
