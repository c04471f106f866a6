"""Pythons that tests start as copies end as new ones do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.running.forked_jobs import python


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("print(1)", 0, ""),
        ("import sys; sys.exit()", 0, ""),
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('bad input')", 1, "bad input\n"),
        ("raise SystemExit(False)", 0, ""),
    ],
)
def test_a_copy_ends_with_the_status_that_its_code_says(code: str, status: int, said: str, tmp_path: Path) -> None:
    ended = python(tmp_path, "-c", code)
    assert (ended.status, ended.err) == (status, said)
