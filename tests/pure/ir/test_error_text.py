"""Errors of libraries within messages of ours."""

from __future__ import annotations

import pytest

from ir.errors import in_one_line


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no such key"), "ValueError: no such key"),
        (KeyError("version"), "KeyError: 'version'"),
        (RuntimeError("\nsizes differ:\n\n    2 and  3\n"), "RuntimeError: sizes differ: 2 and 3"),
        (OSError("the file is gone."), "OSError: the file is gone"),
        (NotImplementedError(), "NotImplementedError"),
    ],
)
def test_an_error_is_one_line(error: Exception, text: str) -> None:
    assert in_one_line(error) == text


def test_a_long_error_is_cut_between_words() -> None:
    shown = in_one_line(ValueError("word " * 1000))
    assert len(shown) <= 400
    assert shown.startswith("ValueError: word word")
    assert shown.endswith("word word …")
