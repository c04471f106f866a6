"""Opening the report of an artifact for the person at the keyboard."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from passes.cli.terminal import stderr


def open_in_browser(page: Path) -> None:
    """Where there is no browser, say where the page is."""
    if not webbrowser.open(page.resolve().as_uri()):
        stderr.print(f"no browser was found; the report is {page}", markup=False, soft_wrap=True)
