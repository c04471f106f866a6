"""Bytes, counts and seconds: parsed from text and printed."""

from __future__ import annotations

import re

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", start=1)
}
_SHORT = {"K": "KiB", "M": "MiB", "G": "GiB", "T": "TiB"}


def parse_bytes(text: str | int | float) -> float:
    """Bytes from a number or a text such as "16GiB", "3.3 TB" or "512M".  Raises ValueError."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return text
    match = re.fullmatch(r"\s*((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([A-Za-z]*)\s*", str(text))
    unit = _SHORT.get(match[2].upper(), match[2]) if match else None
    units = {u.lower(): factor for u, factor in _UNITS.items()}
    if match is None or unit is None or unit.lower() not in units:
        raise ValueError(f"{text!r} is not an amount such as 16GiB or 512MB")
    amount = float(match[1]) * units[unit.lower()]
    return int(amount) if amount.is_integer() else amount


def format_bytes(nbytes: float) -> str:
    """1536 -> '1.5 KiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(nbytes) < 1024:
            return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} TiB"


def format_bytes_up(nbytes: float) -> str:
    """Bytes as text, rounded up: the printed amount is never less."""
    text = format_bytes(nbytes)
    if parse_bytes(text) >= nbytes:
        return text
    amount, unit = text.split()
    return f"{float(amount) + 0.1:.1f} {unit}"


def format_count(count: float) -> str:
    """124439808 -> '124.4 M'."""
    for unit in ("", "k", "M", "G"):
        if abs(count) < 1000:
            return f"{count:.0f}" if unit == "" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} T"


def format_seconds(seconds: float) -> str:
    """0.0042 -> '4.20 ms'."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(seconds) >= scale:
            return f"{seconds / scale:.2f} {unit}"
    return f"{seconds / 1e-9:.0f} ns"
