"""How long tests wait for what must happen, on a machine that is busy with other work."""

from __future__ import annotations

PATIENCE = 240.0  # seconds, which only a test that fails takes; that something happens is tested, not how soon
