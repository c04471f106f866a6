"""The report, opened in a real browser: what it shows, what one can do with it, and that it needs nothing else."""

from __future__ import annotations

import json
import re
import webbrowser
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from selenium.webdriver.common.keys import Keys
from torch import Tensor, nn
from typer.testing import CliRunner

from codegen.artifact.folder import check_replaceable
from codegen.report.measurement import read_trace
from codegen.report.page import REPORT, data_of, with_data
from ir.errors import SourceError
from passes.cli.main import app
from passes.compilation.api import compile_model
from passes.defaults import DEFAULT_PASSES
from runtime import Pipeline
from tests.support.artifacts.programs import Grid, write_grids
from tests.support.models.planning import slow_machine
from tests.support.running.browsing import Page, chromium

WIDTH, STAGES = 16, 3


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(self.norm(x)).relu())


class Skipping(nn.Module):
    """Blocks that repeat, and a skip over them all."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(9))

    def forward(self, x: Tensor) -> Tensor:
        hidden = skip = self.first(x)
        for block in self.blocks:
            hidden = block(hidden)
        return self.last(hidden + skip)


def compiled(out: Path, model: nn.Module | None = None) -> Path:
    """The report of a model in three stages."""
    shapes = {"x": {0: "batch"}}
    example = (torch.randn(64, WIDTH),)
    compile_model(model or Skipping().eval(), example, out=out, cluster=slow_machine(STAGES), dynamic_shapes=shapes)
    return out / REPORT


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("report") / "out")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser: Page, report: Path) -> Iterator[Page]:
    """The report, opened; it may not have said anything in the console when the test is over."""
    browser.prefer("light")
    yield browser.open(report)
    assert browser.complaints == []


def test_it_is_one_small_file_that_asks_for_nothing(page: Page, report: Path) -> None:
    assert report.stat().st_size < 400_000
    assert page.ask("performance.getEntriesByType('resource').length") == 0
    assert not page.all("[src], link[href]")


def test_it_says_what_the_table_says(page: Page, report: Path) -> None:
    plan = json.loads((report.parent / "manifest.json").read_text())["plan"]
    assert page.one("h1").text == plan["model"] == "Skipping"
    assert page.one("#subject").text.endswith("cut for throughput. Times and bytes are of one batch of batch 64.")
    assert len(page.all("#stages tbody tr")) == STAGES
    values = [code.text for code in page.all("#flow td:nth-child(3)")]
    assert {edge["name"] for stage in plan["stages"] for edge in stage["sends"]} <= set(values)
    figures = dict(zip((d.text for d in page.all("dt")), (d.text for d in page.all("dt + dd")), strict=True))
    assert plan["proven"]
    assert figures["Above the best cut"] == (
        "0 %" if plan["above"] < 1e-6 else f"{max(100 * plan['above'], 0.1):.1f} %"
    )


def test_the_quantity_of_another_objective_comes_first(browser: Page, report: Path, tmp_path: Path) -> None:
    text = report.read_text()
    data = data_of(text)
    data["summary"] |= {"objective": "latency", "quantity": "latency", "value_seconds": 0.25, "close": 0.05}
    (tmp_path / "latency.html").write_text(with_data(text, data))
    page = browser.open(tmp_path / "latency.html")
    assert "cut for latency" in page.one("#subject").text
    assert [name.text for name in page.all("dt")][:2] == ["Latency", "Busiest device"]
    assert page.all("dt + dd")[0].text.split() == ["250", "ms"]
    assert "Within 5 % of the best" in [name.text for name in page.all("dt")]
    assert browser.complaints == []


def test_of_several_programs_it_shows_the_first(browser: Page, tmp_path: Path) -> None:
    write_grids(Grid().eval(), tmp_path / "out", STAGES)
    page = browser.open(tmp_path / "out" / REPORT)
    leads = [lead.text for lead in page.all("section:has(#graph) .lead")]
    assert leads[0] == "Of the program small; the others are wide."
    page.all("#picture .box")[-1].click()
    assert "stage_" in page.one("#panel").text
    assert browser.complaints == []


def test_the_graph_has_a_cluster_a_stage_and_bytes_on_the_cuts(page: Page) -> None:
    assert [c.get_attribute("class") for c in page.all("#picture .cluster.stage")] == [
        f"cluster stage stage-{i}" for i in range(STAGES)
    ]
    labels = [text.text for text in page.all("#picture .cut text")]
    assert labels
    assert all(label.strip().endswith("4.0 KiB") for label in labels)  # 64 × 16 numbers of 4 bytes


def test_a_click_on_a_box_shows_its_operators_and_its_code(page: Page, report: Path) -> None:
    assert not page.one("#panel").is_displayed()
    box = next(b for b in page.all("#picture .box.stage-1") if "blocks" in str(b.get_attribute("aria-label")))
    page.ask("arguments[0].scrollIntoView({block: 'center'})", box)
    box.click()
    assert page.one("#panel h3").text.startswith("blocks.")
    assert "linear" in [cell.text for cell in page.all("#panel td:first-child")]
    assert page.one("#panel .file").text == "stage_1.py"
    lines = [str(line.get_property("textContent")) for line in page.all("#panel .line")]
    assert "".join(lines).strip() == (report.parent / "stage_1.py").read_text().strip()


def test_it_can_be_used_without_a_mouse(page: Page) -> None:
    boxes = page.all("#picture .box")
    page.ask("arguments[0].focus()", boxes[0])
    page.press(Keys.ARROW_DOWN)
    assert page.driver.switch_to.active_element == boxes[1]
    page.press(Keys.ENTER)
    assert page.one("#panel").is_displayed()
    assert boxes[1].get_attribute("aria-expanded") == "true"
    page.press(Keys.ENTER)
    assert page.driver.switch_to.active_element == page.one("#panel")
    page.press(Keys.ESCAPE)
    assert not page.one("#panel").is_displayed()
    assert page.driver.switch_to.active_element == boxes[1]
    before = page.one("#picture g.graph").get_attribute("transform")
    page.press("+")
    assert page.one("#picture g.graph").get_attribute("transform") != before


def test_it_is_dark_where_a_person_wants_that(page: Page) -> None:
    look = "['background-color', 'color'].map((name) => getComputedStyle(document.body).getPropertyValue(name))"
    cluster = "getComputedStyle(document.querySelector('.cluster.stage-0 path')).fill"
    light, fill = page.ask(look), page.ask(cluster)
    page.prefer("dark")
    assert (_brightness(light[0]), _brightness(light[1])) == (pytest.approx(255), pytest.approx(33, abs=20))
    dark = page.ask(look)
    assert _brightness(dark[0]) < 40 < 200 < _brightness(dark[1])
    assert _brightness(page.ask(cluster)) < 90 < 180 < _brightness(fill)


def _brightness(colour: str) -> float:
    """Of `rgb(1, 2, 3)`."""
    return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) / 3


def test_time_and_memory_have_a_row_a_stage(page: Page) -> None:
    assert len(page.all("#predicted .row-label text")) == len(page.all("#memory .row-label text")) == STAGES
    assert not page.one("#measured").is_displayed()
    assert len(page.all("#passes tbody tr")) == 1 + len(DEFAULT_PASSES)  # with the export


def test_a_narrow_window_is_wide_enough(page: Page) -> None:
    page.driver.set_window_size(500, 900)
    try:
        assert page.ask("document.documentElement.scrollWidth <= window.innerWidth")
    finally:
        page.driver.set_window_size(1400, 900)


def test_names_are_text_and_nothing_else(browser: Page, tmp_path: Path) -> None:
    Odd = type("</script><script>document.title='broken'//", (Skipping,), {})
    browser.open(compiled(tmp_path / "out", Odd().eval()))
    assert browser.one("h1").text == Odd.__name__
    assert browser.driver.title == f"{Odd.__name__} · stagecut"
    assert browser.complaints == []


def test_without_graphviz_the_parts_are_listed(
    browser: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(tmp_path))
        browser.open(compiled(tmp_path / "out"))
    assert "install Graphviz" in browser.one("#graph-lead").text
    browser.all("button.part")[0].click()
    assert "stage_0.py" in browser.one("#panel").text
    assert browser.complaints == []


# ---- a measured run


def test_a_measured_run_stands_beneath_the_prediction(browser: Page, tmp_path: Path) -> None:
    report, trace = compiled(tmp_path / "out"), tmp_path / "trace.json"
    with Pipeline.load(report.parent) as pipe, pipe.trace(trace):
        for _ in pipe.map([torch.randn(64, WIDTH)] * 4):
            pass
    for _ in range(2):  # the second run takes the place of the first
        ended = CliRunner().invoke(app, ["report", str(report.parent), "--trace", str(trace)])
        check_replaceable(report.parent)  # a report that stagecut wrote again is no edited file
        assert ended.exit_code == 0
    browser.open(report)
    assert browser.one("#measured").is_displayed()
    predicted, measured = (browser.all(f"#{figure} .row-label text") for figure in ("predicted", "measured"))
    assert len(predicted) == len(measured) == STAGES
    axes = [
        [tick.text for tick in browser.all(f"#{figure} [aria-label='x-axis tick label'] text")]
        for figure in ("predicted", "measured")
    ]
    assert axes[0] == axes[1]
    assert [h.text for h in browser.all("#stages th")][-2:] == ["Measured", "Measured / predicted"]
    told = re.findall(r"^ *\d+ .*?([\d.]+) *$", ended.stdout, re.MULTILINE)
    assert [row.text.split()[-1] for row in browser.all("#stages tbody tr")] == told
    assert len(told) == STAGES
    assert browser.complaints == []


ONE_STAGE = {"ph": "X", "cat": "compute", "ts": 0, "dur": 1, "args": {"stage": 0, "microbatch": 0}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "is no trace of a pipeline"),
        ("no json", "is no trace of a pipeline"),
        ('{"traceEvents": []}', "nothing ran in the trace"),
        (json.dumps({"traceEvents": [ONE_STAGE]}), "is of another plan than"),
        (
            json.dumps({"traceEvents": [ONE_STAGE], "otherData": {"model": "bert"}}),
            "is a trace of bert, and the report",
        ),
    ],
)
def test_what_is_no_run_of_the_plan_leaves_the_report_alone(
    report: Path, text: str, message: str, tmp_path: Path
) -> None:
    before, trace = report.read_bytes(), tmp_path / "trace.json"
    trace.write_text(text)
    ended = CliRunner().invoke(app, ["report", str(report.parent), "--trace", str(trace)])
    assert (ended.exit_code, message in ended.stderr) == (2, True), ended.stderr
    assert report.read_bytes() == before


def test_a_folder_without_a_report_is_said_to_have_none(tmp_path: Path) -> None:
    command = ["report", str(tmp_path), "--trace", "trace.json"]
    ended = CliRunner().invoke(app, command)
    assert (ended.exit_code, "has no report.html; give the folder that stagecut compile" in ended.stderr) == (2, True)
    (tmp_path / "report.html").write_text("a page")
    assert "is no report" in CliRunner().invoke(app, command).stderr


def test_a_trace_that_is_missing_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"^cannot read the trace .*: No such file or directory$"):
        read_trace(tmp_path / "none.json")


def test_it_is_opened_for_the_person_at_the_keyboard(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    assert CliRunner().invoke(app, ["report", str(report.parent), "--open"]).exit_code == 0
    assert opened == [report.as_uri()]
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    assert f"the report is {report}" in CliRunner().invoke(app, ["report", str(report.parent), "--open"]).stderr
