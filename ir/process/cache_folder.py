"""The folder of what is kept from one run to the next.  No torch in here: command lines look for it."""

from __future__ import annotations

import os
from pathlib import Path

PLACE = "STAGECUT_CACHE"  # the environment variable that names another folder


def cache_folder() -> Path:
    """The folder; it need not exist."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(PLACE) or Path(home) / "stagecut")
