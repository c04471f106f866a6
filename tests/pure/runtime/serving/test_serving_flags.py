"""Flags of a server that make no sense."""

from __future__ import annotations

import pytest

from runtime.serving.flags import parser


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--max-queue=0", "argument --max-queue: 0 is no number of 1 or more"),
        ("--deadline=0", "argument --deadline: 0 is no time in seconds"),
        ("--deadline=-1", "argument --deadline: -1 is no time in seconds"),
        ("--drain=-1", "argument --drain: -1 is no whole number of seconds"),
        ("--drain=0.5", "argument --drain: 0.5 is no whole number of seconds"),
    ],
)
def test_a_flag_that_makes_no_sense_is_named(flag: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser("serve").parse_args(["out", flag])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
