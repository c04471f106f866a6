"""The runtime's small parts: expressions, channels, routes and the placing of stages."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from runtime import DeviceError, ManifestError
from runtime.call.expressions import SizeExpression
from runtime.device import placement as devices
from runtime.device.placement import place_stages
from runtime.engine.channel import Channel, ChannelClosed
from runtime.engine.routes import Route, RouteTensors, routes
from runtime.manifest.json_table import as_table, from_json, spread_json
from runtime.manifest.manifest import Manifest, Receive, Send
from runtime.stage.loader import import_file
from tests.support.artifacts.by_hand import chain, tensor
from tests.support.patience import PATIENCE


def test_an_expression_knows_its_symbols() -> None:
    expression = SizeExpression.parse("max(2*e, batch) + math.ceil(e / 2)", {"e": 1, "batch": 1})
    assert set(expression.symbols) == {"e", "batch"}
    assert expression({"e": 3, "batch": 4}) == 8


@pytest.mark.parametrize("text", ["", "2 *", "x = 1", "open('f')", "().__class__.mro()[y]"])
def test_what_is_no_expression_over_the_symbols_is_refused(text: str) -> None:
    with pytest.raises(ManifestError):
        SizeExpression.parse(text, {"x": 1})


def test_a_channel_keeps_order() -> None:
    channel: Channel[int] = Channel()
    for i in range(100):
        channel.send(i)
    assert [channel.receive() for _ in range(100)] == list(range(100))


def test_a_full_channel_makes_the_sender_wait() -> None:
    channel: Channel[int] = Channel(2)
    most = 0

    def send_all() -> None:
        for i in range(200):
            channel.send(i)

    sender = Thread(target=send_all)
    sender.start()
    for i in range(200):
        most = max(most, len(channel._items))
        assert channel.receive() == i
    sender.join()
    assert most <= 2


@pytest.mark.parametrize("waiting", ["send", "receive"])
def test_closing_a_channel_wakes_who_waits(waiting: str) -> None:
    channel: Channel[int] = Channel(1)
    raised: list[ChannelClosed] = []

    def wait() -> None:
        try:
            if waiting == "receive":
                channel.receive()
            channel.send(1)
            channel.send(2)
        except ChannelClosed as e:
            raised.append(e)

    thread = Thread(target=wait)
    thread.start()
    channel.close()
    thread.join(PATIENCE)
    assert len(raised) == 1
    with pytest.raises(ChannelClosed):
        channel.send(3)
    with pytest.raises(ChannelClosed):
        channel.receive()


def test_what_a_closed_channel_holds_can_be_taken_out() -> None:
    channel: Channel[int] = Channel()
    channel.send(1)
    channel.close()
    assert channel.drain() == [1]
    assert channel.drain() == []


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return Manifest.read(chain(tmp_path))


def test_routes_go_where_the_tables_say(manifest: Manifest) -> None:
    assert set(routes(manifest)) == {
        Route(None, 0, (RouteTensors((0,), (0,)),)),
        Route(None, 1, (RouteTensors(),)),
        Route(0, 1, (RouteTensors((0,), (0,)),)),
        Route(0, None, (RouteTensors(),)),
        Route(1, None, (RouteTensors((0,), (0,)),)),
    }


def test_a_route_that_skips_stages_holds_as_many_batches_as_it_skips() -> None:
    assert Route(0, 1, ()).capacity == 2
    assert Route(0, 3, ()).capacity == 4
    assert Route(None, 3, ()).capacity is None


@pytest.mark.parametrize(
    ("index", "change", "message"),
    [
        (1, dict(receives=(Receive(tensor("other"), 0),)), "stage 1 receives `other`, but stage 0 does not send it"),
        (1, dict(receives=(Receive(tensor("h"), None),)), "stage 1 receives `h`, but the model has no such input"),
        (1, dict(receives=(Receive(tensor("h"), 1),)), "stage 1 receives from stage 1, which does not run before"),
        (1, dict(receives=(Receive(tensor("h"), -1),)), "stage 1 receives from stage -1"),
        (1, dict(sends=()), r"the stages send the outputs \[\] of 1"),
        (1, dict(sends=(Send(tensor("y"), (), (0, 0)),)), r"the stages send the outputs \[0, 0\] of 1"),
        (0, dict(sends=(Send(tensor("h"), (), ()),)), "stage 1 receives `h`, but stage 0 does not send it"),
    ],
)
def test_tables_that_do_not_fit_are_refused(manifest: Manifest, index: int, change: Any, message: str) -> None:
    (program,) = manifest.programs
    stages = list(program.stages)
    stages[index] = replace(stages[index], **change)
    with pytest.raises(ManifestError, match=message):
        routes(replace(manifest, programs=(replace(program, stages=tuple(stages)),)))


def test_a_manifest_is_written_with_all_its_fields(manifest: Manifest) -> None:
    table = as_table(manifest)
    assert json.dumps(table) == json.dumps(asdict(manifest))
    assert from_json(Manifest, json.loads(json.dumps(table))) == manifest


def test_json_has_a_line_for_each_item_of_what_is_longer_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"short": ["\u00e9\n", 1, True], "long": [[float(i)] for i in range(40)], "empty": {}, "none": None}
    lines = spread_json(table).splitlines()
    assert (lines[1], lines[3], lines[-3:]) == (
        ' "short": ["\\u00e9\\n", 1, true],',
        "  [0.0],",
        [' "empty": {},', ' "none": null', "}"],
    )
    assert json.loads("".join(lines)) == table
    written, dumps = list[object](), json.dumps
    monkeypatch.setattr(json, "dumps", lambda value: written.append(value) or dumps(value))
    spread_json(table)
    assert written.count(7.0) == 1
    assert not any(isinstance(value, list) for value in written)  # nothing is written once for each that holds it


def test_a_manifest_without_stages_is_refused(manifest: Manifest) -> None:
    with pytest.raises(ManifestError, match="the manifest has no stages; compile the model again"):
        routes(replace(manifest, stages=()))


FOUR = ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "available", lambda: [torch.device(d) for d in ("cpu", *FOUR)])


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("planned", "given", "placed"),
    [
        (FOUR, None, FOUR),
        (FOUR, ["cpu"], ["cpu"] * 4),
        (FOUR, "cpu", ["cpu"] * 4),
        (FOUR, torch.device("cuda", 3), ["cuda:3"] * 4),
        (FOUR, ["cuda", "cuda:3"], ["cuda:0", "cuda:0", "cuda:3", "cuda:3"]),
        (FOUR, ["cuda:0", "cuda:1", "cuda:2"], ["cuda:0", "cuda:0", "cuda:1", "cuda:2"]),
        (["cuda:1", "cuda:0", "cuda:1"], ["cuda:2", "cuda:3"], ["cuda:2", "cuda:3", "cuda:2"]),
        (["cpu", "cpu"], ["cuda:1", "cuda:0"], ["cuda:1", "cuda:0"]),
        (["cpu:0", "cpu:1"], None, ["cpu", "cpu"]),
        (["cpu"], [torch.device("cuda", 2)], ["cuda:2"]),
    ],
)
def test_stages_are_placed_on_devices(planned: list[str], given: Any, placed: list[str]) -> None:
    assert place_stages(planned, given) == tuple(map(torch.device, placed))


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("planned", "given", "message"),
    [
        (FOUR, [], r"devices is empty; pass one device at least, such as devices=\["),
        (FOUR, 2, "devices is 2, which names no device; pass a list, such as"),
        (FOUR, 0, "devices is 0, which names no device"),
        (FOUR, {"cpu"}, "devices is {'cpu'}, which names no device"),
        (FOUR, [0, 1], "devices holds 0, which is no device's name; pass names, such as"),
        (FOUR, ["gpu0"], "device 'gpu0' is no device; this host has cpu"),
        (FOUR, ["cpu"] * 5, "got 5 devices for 4 stages planned on cuda:0, cuda:1, cuda:2, cuda:3"),
        (FOUR, ["cuda:4"], "device cuda:4 is not here; this host has cpu, cuda:0, cuda:1, cuda:2, cuda:3"),
        (FOUR, ["meta"], "device meta:0 is not here"),
        (FOUR, ["gpu"], "device 'gpu' is no device; this host has cpu"),
        (["cuda:9"], None, r"the plan's device cuda:9 is not here; .* pass devices=\[…\] to use others"),
    ],
)
def test_devices_that_cannot_be_used_are_refused(planned: list[str], given: Any, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        place_stages(planned, given)


def test_files_of_each_artifact_import_its_own_helpers(tmp_path: Path) -> None:
    """Also beside a module of the same name that the process has already."""
    found = {}
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "json.py").write_text(f"NAME = {name!r}")
        (tmp_path / name / "stage_0.py").write_text("from json import NAME")
        helpers = {"json": import_file(tmp_path / name / "json.py")}
        found[name] = import_file(tmp_path / name / "stage_0.py", helpers).NAME
    assert found == {"first": "first", "second": "second"}
    assert hasattr(sys.modules["json"], "loads")
    with pytest.raises(ManifestError, match=r"cannot import .*stage_0\.py: ImportError: cannot import name 'NAME'"):
        import_file(tmp_path / "first" / "stage_0.py")
