"""Compiled, loaded and run, a model returns what it does uncut."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checking import check_artifact
from tests.models import CASES


@pytest.mark.parametrize("name", CASES)
def test_the_stages_return_what_the_model_does(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    check_artifact(case.build(), case.calls(), tmp_path / "out", case.dynamic, case.stages)
