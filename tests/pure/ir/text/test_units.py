"""Quantities as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ir.text.units import format_bytes, format_bytes_up, format_count, format_seconds, parse_bytes


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("16GiB", 16 * 1024**3),
        ("16 gib", 16 * 1024**3),
        ("512M", 512 * 1024**2),
        ("1.5K", 1536),
        ("3.3TB", 3.3e12),
        ("12GB", 12e9),
        ("1e3", 1000),
        ("7B", 7),
        (" 42 ", 42),
        (42, 42),
        (0.5, 0.5),
    ],
)
def test_an_amount_is_read(text: str | float, nbytes: float) -> None:
    assert parse_bytes(text) == nbytes


@pytest.mark.parametrize("text", ["", "GiB", "16 Gibberish", "1.2.3GB", "-4GB", "4 GB each", True, None])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match="is not an amount such as 16GiB or 512MB"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (format_bytes(0), "0 B"),
        (format_bytes(1023), "1023 B"),
        (format_bytes(1536), "1.5 KiB"),
        (format_bytes(80 * 1024**3), "80.0 GiB"),
        (format_bytes(5 * 1024**5), "5120.0 TiB"),
        (format_bytes_up(1537), "1.6 KiB"),
        (format_count(999), "999"),
        (format_count(124_439_808), "124.4 M"),
        (format_count(7e12), "7.0 T"),
        (format_seconds(2), "2.00 s"),
        (format_seconds(0.0042), "4.20 ms"),
        (format_seconds(3.2e-5), "32.00 µs"),
        (format_seconds(4e-9), "4 ns"),
        (format_seconds(0), "0 ns"),
    ],
)
def test_a_quantity_is_written(written: str, text: str) -> None:
    assert written == text


@given(st.integers(0, 2**50))
def test_what_is_written_is_read_again(nbytes: int) -> None:
    assert parse_bytes(format_bytes(nbytes)) == pytest.approx(nbytes, rel=0.05, abs=0.5)
    assert nbytes <= parse_bytes(format_bytes_up(nbytes)) <= 1.1 * nbytes + 1
