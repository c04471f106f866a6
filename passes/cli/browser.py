"""Opening the report of an artifact for the person at the keyboard."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from passes.cli.terminal import stderr


def open_in_browser(page: Path) -> None:
    """Open a page; without a browser, say where it is."""
    if not webbrowser.open(page.resolve().as_uri()):
        stderr.print(f"no browser was found; the report is {page}", markup=False, soft_wrap=True)
