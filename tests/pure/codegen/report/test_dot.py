"""Pictures: what is on them, and that Graphviz can read them."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn

from codegen.picture.detail import Detail
from codegen.picture.dot import boxes_of, draw, render, to_svg
from codegen.picture.grouping import MOST_PARTS, MeanSizes, Portion, _Run, asides, group_modules
from codegen.picture.palette import colours
from ir.analysis.memory import peak_bytes, stored_bytes
from ir.capture import capture
from ir.cost import Split
from ir.graph import Call, Graph, Node
from ir.location import Where
from ir.plan import StagePlan, plan_stages
from ir.sizes import at
from ir.text.units import format_bytes
from passes.annotate_cost import AnnotateCost
from passes.cheap.duplicate_cheap import DuplicateCheap
from passes.insert_transfers import InsertTransfers
from passes.propagate_shapes import PropagateShapes
from tests.support.models.planning import machine
from tests.support.seeds import made_once

WIDTH = 8
needs_dot = pytest.mark.skipif(not shutil.which("dot"), reason="the program `dot` is not installed")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 16), nn.Linear(16, WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x + self.down(self.up(self.norm(x)).relu()) * mask


class Toy(nn.Module):
    """Blocks that repeat, with a skip from the first to the last and a mask that all read."""

    def __init__(self, blocks: int = 12) -> None:
        super().__init__()
        self.embed = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))
        self.head = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        mask = (torch.arange(x.shape[1], device=x.device) > 1).to(x.dtype)[:, None]
        first = hidden = self.embed(x)
        for block in self.blocks:
            hidden = block(hidden, mask)
        return self.head(hidden + first)


@made_once
def toy() -> Graph:
    graph = capture(Toy(), (torch.randn(2, 4, WIDTH),), {}, dynamic_shapes={"x": {0: "batch"}})
    return AnnotateCost().run(PropagateShapes().run(graph, machine(1)), machine(1))


def plan(*starts: str, cheap_mask: bool = True, devices: Sequence[int] = (), split: Split | None = None) -> StagePlan:
    """The toy cut before the first node of each of these modules."""
    nodes: list[Node] = []
    stage = 0
    for i, node in enumerate(toy().nodes):
        if stage < len(starts) and f"{node.where.module}.".startswith(f"{starts[stage]}."):
            stage += 1
        mask = i < len(toy().nodes) / 2 and not node.where.module
        nodes.append(replace(node, stage=stage, cheap=cheap_mask and mask))
    devices = devices or range(len(starts) + 1)
    graph = replace(toy(), nodes=tuple(nodes), placement=tuple(devices), split=split or Split())
    cluster = machine(max(devices) + 1)
    for step in (DuplicateCheap(), InsertTransfers()):
        graph = step.run(graph, cluster)
    return plan_stages(graph, cluster)


def parts(plan: StagePlan) -> tuple[Portion, ...]:
    return group_modules(plan.graph, MeanSizes(plan.graph))


def edges(source: str) -> list[tuple[str, str]]:
    """Those that are seen."""
    lines = re.findall(r'^\s*"?([^"\n]+?)"? -> "?([^"\n]+?)"?(?: \[(.*)\])?$', source, re.MULTILINE)
    return [(tail, head) for tail, head, look in lines if "invis" not in look]


CUTS = [(), ("blocks.6",), ("blocks.4.up", "blocks.8")]


# ---- folding


@pytest.mark.parametrize("cuts", CUTS)
def test_every_node_is_in_one_part_or_aside(cuts: tuple[str, ...]) -> None:
    graph = plan(*cuts).graph
    folded = group_modules(graph, MeanSizes(graph))
    shown = [*(n for part in folded for n in part.nodes), *asides(graph)]
    assert Counter(shown) == Counter(n for n in graph.nodes if isinstance(n, Call))
    assert all(n.stage == part.stage for part in folded for n in part.nodes)


class Turned(nn.Module):
    """Ends with a view of what the module inside makes."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).transpose(0, 1)


def test_views_of_views_are_in_a_part() -> None:
    layers = (Turned(Turned(nn.Linear(WIDTH, WIDTH))) for _ in range(2))
    graph = capture(nn.Sequential(*layers, nn.ReLU()), (torch.randn(WIDTH, WIDTH),))
    graph = AnnotateCost().run(PropagateShapes().run(graph, machine(1)), machine(1))
    assert {n for part in group_modules(graph, MeanSizes(graph)) for n in part.nodes} == set(graph.nodes)


def test_repeats_are_one_part() -> None:
    assert [part.name for part in parts(plan())] == ["embed", "blocks.0 … 11", "", "head"]
    assert [part.name for part in parts(plan("blocks.6"))] == ["embed", "blocks.0 … 5", "blocks.6 … 11", "", "head"]


def test_a_module_that_is_cut_says_which_pieces_run_where() -> None:
    cut = [part for part in parts(plan("blocks.4.up", "blocks.8")) if part.name == "blocks.4"]
    assert [(part.stage, part.which) for part in cut] == [(0, "only norm"), (1, "without norm")]


def test_pieces_are_told_of_modules_that_stay_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole model has as many pieces as all stages have modules, and is opened at once."""
    told, which = list[str](), _Run._which
    monkeypatch.setattr(_Run, "_which", lambda run, here: told.append(run.path) or which(run, here))
    found = parts(plan("blocks.4.down"))
    assert [part.which for part in found if part.which]
    assert set(told) == {"blocks.4"}


def test_the_parts_stay_few_however_many_the_layers_and_stages() -> None:
    assert len(parts(plan(*(f"blocks.{i}.down" for i in range(12))))) <= 6 * 13
    flat = replace(toy(), modules={})  # no class is known, so nothing says what repeats
    assert len(group_modules(flat, MeanSizes(flat))) <= MOST_PARTS


def test_a_mask_that_every_stage_makes_is_one_grey_box() -> None:
    source = draw(plan("blocks.4", "blocks.8"))
    assert source.count("<b>masks and positions</b>") == 3
    assert "masks and positions" not in draw(plan("blocks.4", cheap_mask=False))


# ---- drawing


@pytest.mark.parametrize("detail", Detail)
@pytest.mark.parametrize("cuts", CUTS)
def test_there_is_a_cluster_a_stage_with_its_numbers(cuts: tuple[str, ...], detail: Detail) -> None:
    planned = plan(*cuts)
    source = draw(planned, detail)
    assert set(re.findall(r"subgraph (cluster_\d+) ", source)) == {f"cluster_{s.index}" for s in planned.stages}
    for stage in planned.stages:
        (title,) = re.findall(rf'"title of stage {stage.index}" \[label=(.*)', source)
        assert f"<b>stage {stage.index} · {stage.device.name}</b>" in title
        assert f"weights {format_bytes(stored_bytes(stage.stored))}" in title
        assert f"activations {format_bytes(peak_bytes(stage.graph))}" in title


@pytest.mark.parametrize("detail", Detail)
@pytest.mark.parametrize("cheap_mask", [True, False])
def test_every_transfer_is_labelled_with_its_type_and_bytes(detail: Detail, cheap_mask: bool) -> None:
    planned = plan("blocks.4.up", "blocks.8", cheap_mask=cheap_mask)
    source = draw(planned, detail)
    expected = Counter(
        f"{t.value.name} {t.value.type} · {format_bytes(at(t.value.type.nbytes, planned.graph.hints))}\u00a0"
        for t in planned.transfers
    )
    assert expected
    assert all(source.count(text) == times for text, times in expected.items())


def test_a_skip_runs_from_the_stage_that_makes_it_to_the_one_that_reads_it() -> None:
    assert ("0/embed", "2/add") in edges(draw(plan("blocks.4", "blocks.8")))


def test_what_goes_the_same_way_is_one_line() -> None:
    source = draw(plan("blocks.4.up", "blocks.8"), Detail.stages)
    assert Counter(edges(source)).most_common(1)[0][1] == 1
    assert ("stage 0", "stage 2") in edges(source)


def test_what_several_boxes_read_arrives_once() -> None:
    source = draw(plan("blocks.4.up", cheap_mask=False))
    (point,) = {head for _, head in edges(source) if head.endswith("in stage 1")}
    assert sum(head == point for _, head in edges(source)) == 1
    assert sum(tail == point for tail, _ in edges(source)) > 1


def test_inputs_and_outputs_stand_outside_the_stages() -> None:
    source = draw(plan("blocks.6"))
    assert re.search(r'^\t"input x to stage 0" .*shape=ellipse', source, re.MULTILINE)
    assert re.search(r'^\t"output output" .*shape=ellipse', source, re.MULTILINE)


def test_titles_tell_the_share_of_time_and_stages_that_share_a_device() -> None:
    split = Split(value=0.03, lower_bound=0.03, loads=(0.03, 0.01))
    source = draw(plan("blocks.4", "blocks.8", devices=(0, 1, 0), split=split))
    titles = re.findall(r'"title of stage \d" \[label=(.*)', source)
    assert all("30.00 ms a batch" in title and "75% of all, the slowest" in title for title in titles[::2])
    assert "with stage 2" in titles[0]
    assert "10.00 ms a batch" in titles[1]
    assert "25% of all<" in titles[1]


@pytest.mark.parametrize("detail", Detail)
def test_the_same_plan_gives_the_same_text(detail: Detail) -> None:
    assert draw(plan("blocks.4.up"), detail) == draw(plan("blocks.4.up"), detail)


# ---- Graphviz


@needs_dot
@pytest.mark.parametrize("detail", Detail)
def test_graphviz_draws_it(detail: Detail, tmp_path: Path) -> None:
    assert render(draw(plan("blocks.4.up", "blocks.8"), detail), tmp_path / "graph.svg")
    titles = [e.text for e in ElementTree.parse(tmp_path / "graph.svg").iter("{http://www.w3.org/2000/svg}title")]
    assert {"cluster_0", "cluster_1", "cluster_2"} <= set(titles)


@needs_dot
@pytest.mark.parametrize("detail", Detail)
def test_a_page_can_find_the_boxes_and_the_stages(detail: Detail, tmp_path: Path) -> None:
    planned = plan("blocks.4.up", "blocks.8")
    assert render(draw(planned, detail), tmp_path / "graph.svg")
    groups = list(ElementTree.parse(tmp_path / "graph.svg").iter("{http://www.w3.org/2000/svg}g"))
    classes = {g.get("id"): str(g.get("class")).split() for g in groups}
    for i, box in enumerate(boxes_of(planned, detail)):
        assert ("aside" if box.aside else f"stage-{box.stage}") in classes[f"box-{i}"]
    assert {"stage-0", "stage-1", "stage-2"} == {c[2] for c in classes.values() if c[:2] == ["cluster", "stage"]}
    assert {c[2] for c in classes.values() if c[:2] == ["edge", "cut"]} == {"stage-0", "stage-1"}


def test_only_a_picture_with_a_title_has_a_heading() -> None:
    assert "2 stages on 2 devices" in draw(plan("blocks.6"), title="toy")
    assert "2 stages on 2 devices" not in draw(plan("blocks.6"))


@needs_dot
@pytest.mark.parametrize("detail", Detail)
def test_any_name_can_be_drawn(detail: Detail, tmp_path: Path) -> None:
    odd = r'<b>"Größe" & \N {x|y} -> "a:b":c\\'
    planned = plan("blocks.6")
    rename = {n: replace(n, where=Where(f"{odd}.{n.where.module}", odd, 1, odd)) for n in planned.graph.nodes}
    planned = replace(planned, graph=planned.graph.map(lambda n: rename[n]))
    assert render(draw(planned, detail, title=odd), tmp_path / "graph.svg")
    texts = [e.text or "" for e in ElementTree.parse(tmp_path / "graph.svg").iter("{http://www.w3.org/2000/svg}text")]
    assert odd in texts  # the title, unchanged


def test_without_graphviz_nothing_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not render(draw(plan()), tmp_path / "graph.svg")
    assert not (tmp_path / "graph.svg").exists()


# ---- colours


def test_64_stages_have_light_colours_and_neighbours_differ() -> None:
    fills = [colours(stage).fill for stage in range(64)]
    assert all(_light(fill) > 0.5 for fill in fills)  # dark text on them reads well
    assert all(a != b for a, b in pairwise(fills))
    assert len(set(fills)) == 32


def test_on_a_dark_page_the_colours_are_dark_under_light_lines() -> None:
    assert all(_light(colours(stage, dark=True).fill) < 0.1 for stage in range(64))
    assert all(_light(colours(stage, dark=True).line) > 0.3 for stage in range(64))


def _light(colour: str) -> float:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2


def test_a_picture_that_takes_too_long_is_none() -> None:
    edges = "".join(f"n{i} -> n{i * 7 % 997};" for i in range(3000))
    assert to_svg(f"digraph {{ {edges} }}", limit=0.05) == ""
