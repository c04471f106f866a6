"""What an installed stagecut has: every folder of the house, with its files that are no Python."""

import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).parents[3]
ROOMS = ("ir", "passes", "codegen", "runtime")


@pytest.fixture(scope="module")
def setuptools() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_folder_is_installed(setuptools: dict) -> None:
    folders = {file.parent.relative_to(ROOT) for room in ROOMS for file in (ROOT / room).rglob("*.py")}
    assert {name.replace(".", "/") for name in setuptools["packages"]} == {str(folder) for folder in folders}


def test_every_file_beside_the_code_is_installed(setuptools: dict) -> None:
    installed = {
        file
        for package, patterns in setuptools["package-data"].items()
        for pattern in patterns
        for file in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    beside = {file for room in ROOMS for file in (ROOT / room).rglob("*") if file.is_file()}
    assert {file for file in beside if file.suffix != ".py" and "__pycache__" not in file.parts} <= installed
