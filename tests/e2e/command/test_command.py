"""What the command line does with good input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ir.text.units import format_seconds
from passes.cli import main
from passes.defaults import DEFAULT_PASSES
from runtime import Pipeline
from tests.support.checking import assert_same
from tests.support.running.commands import MODEL, Shell

DYNAMIC = MODEL + "dynamic_shapes = {'input': {0: 'batch'}}\n"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell.open(tmp_path, monkeypatch, capsys)


def test_the_plan_is_on_stdout_and_the_progress_on_stderr(shell: Shell) -> None:
    ended = shell.run("model.py -o out --stages 2")
    assert ended.status == 0
    rows = [re.split(r"\s{2,}", line.strip()) for line in ended.out.splitlines()]
    stages = [row for row in rows if row[1:2] == ["cpu"]]
    assert [row[:4] for row in stages] == [["0", "cpu", "8.3 k", "32.5 KiB"], ["1", "cpu", "8.3 k", "32.5 KiB"]]
    assert ["0", "1", "linear", "float32[2, 64]", "512 B"] in rows
    assert ["1", "output", "linear_1", "float32[2, 64]", "512 B"] in rows
    assert re.search(r"bottleneck .* · balance 1\.00 \(max/mean\) · 512 B over the cuts · .*the best cut", ended.out)
    said = [line.split()[0] for line in ended.err.splitlines()]
    assert said[:3] == ["model", "export", "simplify-masks"]
    assert {"insert-transfers", "stages"} <= set(said)


def test_json_in_place_of_the_table(shell: Shell) -> None:
    ended = shell.run("model.py -o out --stages 2 --json --print-after all")
    plan = json.loads(ended.out)
    assert [stage["parameters"] for stage in plan["stages"]] == [8320, 8320]
    assert plan["cut_bytes"] == 512
    assert plan["bottleneck_seconds"] >= plan["lower_bound_seconds"] > 0
    assert "# after split-stages\ngraph(input: float32[2, 64]):" in ended.err


def test_what_a_model_prints_is_not_among_the_json(shell: Shell) -> None:
    Path("talks.py").write_text(MODEL + "print('a model')\n")
    ended = shell.run("talks.py -o out --stages 2 --json")
    assert json.loads(ended.out)["model"] == "talks"
    assert "a model\n" in ended.err


def test_the_folder_holds_what_the_manifest_lists(shell: Shell) -> None:
    shell.run("model.py -o out --stages 2 --print-after all")
    files = {name.removeprefix("out/") for name, kind in shell.contents().items() if kind != "folder"} - {"model.py"}
    dumps = {f"passes/{i:02}-{name}.txt" for i, name in enumerate(["export", *(p.name for p in DEFAULT_PASSES)])}
    stages = {f"stage_{i}.{suffix}" for i in range(2) for suffix in ("py", "safetensors")}
    assert files - {"graph.svg"} == dumps | stages | {"graph.dot", "graph.json.gz", "report.html", "manifest.json"}
    listed = json.loads(Path("out/manifest.json").read_text())["files"]
    assert listed == {name: sha for name, sha in hashes(shell).items() if name in listed}
    assert set(listed) == files - {"manifest.json"}


def test_force_moves_the_folder_of_others_aside(shell: Shell) -> None:
    shell.write({"webapp/manifest.json": '{"name": "shop"}', "webapp/index.html": "<html>"})
    before = {name.replace("webapp", "webapp.old"): sha for name, sha in shell.contents().items() if "webapp/" in name}
    assert "name another folder, or use --force to move this one to" in shell.refused("model.py -o webapp --stages 2")
    assert shell.run("model.py -o webapp --stages 2 --force").status == 0
    assert {name: sha for name, sha in shell.contents().items() if "webapp.old/" in name} == before
    assert shell.run("model.py -o webapp --stages 1").status == 0
    assert not Path("webapp/stage_1.py").exists()
    assert not Path("webapp.old.2").exists()


@pytest.mark.parametrize("out", ["model", "model/weights"])
def test_what_the_model_is_read_from_is_not_moved(out: str, shell: Shell) -> None:
    shell.write({"model/model.py": f"{MODEL}checkpoint = '{shell.folder}/model/weights'\n"})
    Path("model/weights").mkdir()
    weights = {f"{i}.{n}": torch.ones(s) for i in range(4) for n, s in [("weight", (64, 64)), ("bias", (64,))]}
    save_file(weights, "model/weights/model.safetensors")
    error = " ".join(shell.refused(f"model/model.py -o {out} --stages 2 --force").split())
    assert f"error: {out} holds " in error
    assert "which the model is read from; name another folder" in error


def hashes(shell: Shell) -> dict[str, str]:
    return {name.removeprefix("out/"): sha for name, sha in shell.contents().items()}


def test_one_pass_printed_and_no_more_run(shell: Shell) -> None:
    ended = shell.run("model.py --stages 2 --print-after annotate-cost --stop-after mark-cheap")
    assert ended.status == 0
    assert ended.out.count("# after ") == 1
    assert "linear: float32[2, 64] = aten.linear(input, v_0_weight, v_0_bias)  # flops=16384 bytes=17664" in ended.out
    assert "mark-cheap" in ended.err
    assert "split-stages" not in ended.err
    assert list(shell.contents()) == ["model.py"]


def test_the_captured_graph_printed_before_any_pass(shell: Shell) -> None:
    ended = shell.run("model.py --stages 2 --print-after export --stop-after simplify-masks")
    assert ended.out.startswith("# after export\ngraph(input: float32[2, 64]):")
    assert ended.out.count("# after ") == 1


def test_dynamic_sizes_of_the_command_come_to_those_of_the_file(shell: Shell) -> None:
    shell.write({"model.py": DYNAMIC.replace("torch.ones(2, 64)", "torch.ones(2, 3, 64)")})
    assert shell.run("model.py -o out --stages 2 --dynamic input:1=seq").status == 0
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert manifest["programs"][0]["inputs"] == [{"name": "input", "dtype": "float32", "shape": ["batch", "seq", 64]}]


def test_a_plan_for_a_mix_of_sizes(shell: Shell) -> None:
    shell.write({"model.py": DYNAMIC})
    ended = shell.run("model.py -o out --stages 2 --workload batch=1:3;batch=50")
    assert re.search(r"^numbers for a mix: 75 % batch 1 \(.*s\); 25 % batch 50 \(.*s\)$", ended.out, re.MULTILINE)
    assert re.search(r"input +float32\[batch, 64\] +3\.3 KiB", ended.out)  # 13.25 rows on average


def test_another_function_of_the_file_makes_the_model(shell: Shell) -> None:
    shell.write({"model.py": DYNAMIC + "def small():\n    return nn.Linear(64, 3)\n"})
    assert shell.run("model.py:small -o out --stages 1").status == 0
    with Pipeline.load("out") as pipe:
        assert pipe(torch.ones(5, 64)).shape == (5, 3)


def test_a_file_may_import_its_neighbours(shell: Shell) -> None:
    shell.write({"lib/wide.py": "WIDTH = 64\n", "lib/model.py": f"from wide import WIDTH\n{MODEL}"})
    assert shell.run("lib/model.py -o out --stages 2").status == 0


def test_a_project_may_have_folders_of_our_names(shell: Shell) -> None:
    layer = "from torch import nn\n\ndef layer():\n    return nn.Linear(64, 64)\n"
    shell.write({"runtime/layers.py": layer, "model.py": f"from runtime.layers import layer\n{MODEL}"})
    ended = shell.run("model.py -o out --stages 2 --verify")
    assert ended.status == 0, ended.err


def test_a_plan_for_latency_says_the_latency_and_its_bound(shell: Shell) -> None:
    """In the JSON that the report and the manifest hold, too; `repr` is that of the plan."""
    ended = shell.run("model.py -o out --stages 2 --objective latency --weights none -v --json")
    plan = json.loads(ended.out)
    assert (plan["objective"], plan["quantity"]) == ("latency", "latency")
    assert plan["value_seconds"] >= plan["lower_bound_seconds"] > 0
    assert plan["value_seconds"] > plan["bottleneck_seconds"]
    said = re.search(r"2 stages, latency (.*), which no cut brings below (.*)\n", ended.err)
    assert said is not None
    assert said[1] == format_seconds(plan["value_seconds"])
    table = shell.run("model.py -o out --stages 2 --objective latency --weights none").out
    both = [format_seconds(plan[key]) for key in ("value_seconds", "bottleneck_seconds")]
    assert "latency {} · bottleneck {} · ".format(*both) in table


def test_flags_of_passes_reach_them(shell: Shell) -> None:
    text = DYNAMIC.replace("example_inputs", "model[3].weight = model[0].weight\nexample_inputs")
    shell.write({"model.py": text})
    placements = {}
    for shared in ("colocate", "replicate"):
        shell.run(f"model.py -o out --stages 2 --shared {shared} --objective latency --json")
        placements[shared] = len(json.loads(Path("out/manifest.json").read_text())["stages"])
    assert placements == {"colocate": 3, "replicate": 2}


def test_a_cluster_file_names_the_devices(shell: Shell) -> None:
    device = '[[device]]\nname = "{}"\nflops = 1e9\nbandwidth = "1GB"\nmemory = "1GiB"\n'
    link = 'link = { bandwidth = "4GB", latency = 1e-5 }\n'
    shell.write({"two.toml": link + device.format("cuda:0") + device.format("cuda:1")})
    assert shell.run("model.py -o out --cluster two.toml").status == 0
    stages = json.loads(Path("out/manifest.json").read_text())["stages"]
    assert [stage["device"] for stage in stages] == ["cuda:0", "cuda:1"]


def test_verify_compares_with_the_uncut_model(shell: Shell) -> None:
    assert "verify" in shell.run("model.py -o out --stages 2 --verify").err
    with Pipeline.load("out") as pipe:
        assert_same((2, 64), tuple(pipe(torch.ones(2, 64)).shape))


CHANGES = """
class Other(nn.Linear):
    def forward(self, x):
        return super().forward(x) + ({})

model = nn.Sequential(Other(64, 64), Other(64, 64))
"""


@pytest.mark.filterwarnings("default:while it is exported")
def test_verify_finds_a_difference_and_writes_nothing(shell: Shell) -> None:
    """A model that computes something else while it is exported."""
    shell.write({"model.py": MODEL + CHANGES.format("2 if type(x) is torch.Tensor else 1")})
    ended = shell.run("model.py -o out --stages 2 --verify")
    assert ended.status == 2
    assert "while it is exported, forward computes something else" in ended.err
    assert re.search(r"output 0 of the stages differs from the model's by at most [\d.]+", ended.err)
    assert list(shell.contents()) == ["model.py"]


def test_verify_says_so_where_a_model_is_not_deterministic(shell: Shell) -> None:
    shell.write({"model.py": MODEL + CHANGES.format("torch.rand(64)")})
    ended = shell.run("model.py -o out --stages 2 --verify")
    assert ended.status == 0
    assert "the model is not deterministic: two runs of it differ" in ended.err
    assert "note: stages 0 and 1 draw random numbers: under a seed these are not the model's, unless" in ended.err


def test_verify_of_a_model_with_state(shell: Shell) -> None:
    state = "\nmodel[0].register_buffer('calls', torch.zeros(()))\n"
    shell.write({"model.py": MODEL + CHANGES.format("self.calls.add_(1) if hasattr(self, 'calls') else 0") + state})
    ended = shell.run("model.py -o out --stages 2 --verify")
    assert ended.status == 0, ended.err
    assert "not deterministic" not in ended.err


def test_the_help_lists_the_options_of_passes(shell: Shell) -> None:
    ended = shell.run("--help")
    assert ended.status == 0
    for flag in ("--shared", "--objective", "--in-flight", "--time-limit", "--print-after"):
        assert flag in ended.out


PASSES = {cls.name for cls in DEFAULT_PASSES}


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("run --", {"--input", "--output"}),
        ("measure --", {"--threads"}),
        ("compile --", {"--stages"}),
        ("compile --objective ", {"throughput", "latency"}),
        ("compile --print-after ", PASSES | {"export", "all"}),
        ("compile --stop-after ", PASSES | {"export"}),
        ("compile --cluster h", {"h100x4", "h200x8"}),
        ("compile --cluster m", {"machines/", "mine.toml"}),
        ("compile --cluster machines/", {"machines/ours.toml"}),
    ],
)
def test_the_shell_completes_flags_and_values(
    typed: str, completed: set[str], shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.write({"mine.toml": "", "machines/ours.toml": "", "machines/notes.txt": ""})
    monkeypatch.setenv("_STAGECUT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"stagecut {typed}")
    monkeypatch.setenv("COMP_CWORD", str(typed.count(" ") + 1))
    with pytest.raises(SystemExit) as ended:
        main.run([])
    assert ended.value.code == 0
    found = set(capsys.readouterr().out.split())
    assert completed <= found
    assert all(text.startswith(typed.rpartition(" ")[2]) for text in found)
    assert PASSES.isdisjoint(found) or found == completed


def test_a_plan_for_smaller_calls_than_the_example_is_whole(shell: Shell) -> None:
    Path("sized.py").write_text(DYNAMIC)
    ended = shell.run("sized.py -o out --stages 2 --workload batch=1")
    assert ended.status == 0, ended.err
    assert "numbers for batch 1" in ended.out
