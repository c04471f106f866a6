"""What every test shares: golden files, fixed seeds, one thread, and no GPU tests without a GPU."""

from __future__ import annotations

import difflib
import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.support.seeds import own_draws, seed

ANY_SPEED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}  # of the machine
settings.register_profile("repeatable", derandomize=True, **ANY_SPEED)  # a run tries the examples of the run before
settings.register_profile("random", print_blob=True, **ANY_SPEED)  # `make random`
settings.load_profile("repeatable")  # before test modules are imported; --hypothesis-profile loads another one

# Rich and Typer ask for them; a terminal, or a host that runs tests, sets some, and other text is printed then.
OF_A_TERMINAL = ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE")

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite-golden", action="store_true", help="write tests/golden anew in place of comparing")


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # imports make no garbage, and looking for some took a quarter of the collection
    torch.set_num_threads(1)  # two workers share two cores
    os.environ.setdefault("PYTHONHASHSEED", "0")  # of workers, and of what tests start: sets are in one order
    for name in OF_A_TERMINAL:
        os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()  # the 700,000 objects that imports made stay to the end; looking through them took a tenth of the time
    gc.enable()
    gc.set_threshold(10_000, 20, 10)  # a capture makes millions of objects, of which few are garbage in a cycle


@pytest.fixture(autouse=True, scope="session")
def kept_graphs(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Graphs that one test keeps are for the others of this run, not for the user's next compilation."""
    run = tmp_path_factory.getbasetemp()  # a worker of several has a folder in that of the run
    os.environ["STAGECUT_CACHE"] = str((run.parent if os.environ.get("PYTEST_XDIST_WORKER") else run) / "kept")


@pytest.fixture(autouse=True)
def seeded() -> None:
    seed()


@pytest.fixture(autouse=True)
def surroundings() -> Iterator[None]:
    """Variables of the environment, and places that a model file's folder is added to, are for one test alone."""
    variables, places = {**os.environ}, [*sys.path]
    yield
    sys.path[:] = places
    for name in {*variables, *os.environ} - {"PYTEST_CURRENT_TEST"}:
        if name not in variables:
            del os.environ[name]
        elif os.environ.get(name) != variables[name]:
            os.environ[name] = variables[name]


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """What a file draws as it is imported does not depend on the files before it."""
    with own_draws():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> Iterator[None]:
    """What a fixture makes for many tests does not depend on which of them comes first."""
    if fixturedef.scope == "function":
        return (yield)
    with own_draws():
        return (yield)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)` compares a text with tests/golden/NAME; `--rewrite-golden` writes it there instead."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--rewrite-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return
        assert path.exists(), f"tests/golden/{name} is missing; `make golden` writes it"
        expected = path.read_text()
        if text != expected:
            lines = difflib.unified_diff(expected.splitlines(), text.splitlines(), "expected", "found", lineterm="")
            pytest.fail(f"tests/golden/{name} differs; `make golden` rewrites it\n" + "\n".join(lines), pytrace=False)

    return compare
