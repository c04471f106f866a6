"""Who may import whom, read from the files themselves."""

from __future__ import annotations

import ast
import re
import sys
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support.source_files import FILES, OURS, ROOT, Import, all_imports, defined, module_of, syntax

# What of ours a file may import; the first pattern that fits it counts.
FLOORS = {
    "ir/*": ["ir"],
    "runtime/flags.py": [],  # the flags of command lines, which help shows without torch
    "runtime/*/flags.py": ["runtime.flags"],
    "runtime/*": ["runtime"],
    "codegen/artifact/manifest.py": ["codegen", "ir", "runtime.manifest", "runtime.device.settings", "runtime.errors"],
    "codegen/*": ["codegen", "ir", "runtime.manifest", "runtime.device.settings"],
    "passes/partitioners/*": ["passes.partitioners"],
    "passes/cli/verify_stages.py": ["passes", "ir", "runtime"],  # --verify runs the stages
    "passes/compilation/auto.py": ["passes", "ir", "runtime"],  # the call that ends with a running pipeline
    "passes/cli/cut_first/prepared.py": ["ir", "stagecut"],  # it runs the command
    "passes/cli/cut_first/compile_flags.py": ["passes", "stagecut"],  # it runs the command
    "passes/__init__.py": ["passes"],
    "passes/compilation/given.py": ["passes", "ir", "codegen.artifact.cut_again"],  # an artifact may be cut again
    "passes/cli/command.py": ["passes", "ir", "codegen.artifact.cut_again"],
    "passes/compilation/job.py": ["passes", "ir", "codegen"],
    "passes/compilation/compare.py": ["passes", "ir", "codegen.picture"],
    "passes/compilation/padding.py": ["passes", "ir", "runtime.manifest"],  # what it finds is for the runtime alone
    # Each artifact is checked.
    "passes/compilation/compiler.py": ["passes", "ir", "codegen", "runtime.check", "runtime.manifest"],
    "passes/options/options.py": ["passes", "ir", "codegen.picture.detail"],
    "passes/compile.py": ["stagecut"],  # the same as the command
    "passes/report.py": ["passes", "ir", "codegen", "stagecut"],
    "passes/cli/main.py": ["passes", "ir", "stagecut"],  # its version
    "stagecut.py": ["passes", "runtime"],
    "passes/*": ["passes", "ir"],
    "examples/check.py": ["runtime"],
    "examples/diffusers_pipeline.py": ["stagecut"],  # a user's script
    "examples/serve_handler.py": ["runtime.serving.adapters"],
    "examples/own_decoder.py": ["ir.sources.decoder.rows"],  # the pages of a batch
    "examples/*": [],
    "tests/golden/*": [],
}

# What of others a file may import besides the standard library; the first pattern that fits it counts.
OTHERS = {
    "ir/machine/cluster.py": ["torch", "tomli"],  # Python 3.10 has no tomllib
    "ir/fused/fused_kernel.py": ["torch", "triton"],  # if it is installed
    "ir/paged/attention.py": ["torch", "triton"],  # if it is installed
    "ir/quantized_linear/languages.py": ["triton"],  # if it is installed
    "runtime/stage/linear/few_rows.py": ["torch", "triton"],  # if it is installed
    "ir/checkpoint/transformers.py": ["torch", "transformers"],  # only where a model of transformers is loaded
    "ir/sources/decoder/caches/layers.py": ["torch", "transformers"],
    "ir/sources/decoder/caches/sourced.py": ["torch", "transformers"],
    "ir/sources/decoder/caches/masks.py": ["torch", "transformers"],  # imported where a model of transformers is
    "ir/*": ["torch", "sympy"],
    "passes/partitioners/*": ["numpy", "ortools"],
    "passes/cli/main.py": ["typer"],  # the command line's help comes without torch
    "passes/cli/flags.py": ["typer"],
    "passes/cli/handed_on.py": ["typer"],
    "passes/cli/cut_first/prepared.py": [],
    "passes/cli/cut_first/serving.py": [],
    "passes/cli/cut_first/generating.py": [],
    "passes/cli/cut_first/compile_flags.py": [],
    "passes/cli/loading.py": [],
    "passes/cli/terminal.py": ["rich"],
    "passes/cli/*": ["torch", "rich"],
    "passes/options/*": [],
    "passes/compilation/job.py": ["rich"],
    "stagecut.py": [],
    "passes/*": ["torch", "sympy"],
    "codegen/text/formatting.py": ["ruff"],  # which knows where its program is
    "codegen/picture/*": ["torch", "sympy", "graphviz"],
    "codegen/*": ["torch", "sympy"],
    "runtime/check/*": [],  # an artifact is checked where torch is not installed
    "runtime/generation/prompts/text.py": ["tokenizers"],
    "runtime/generation/prompts/special_tokens.py": ["tokenizers"],
    "runtime/generation/prompts/chat_template.py": ["jinja2"],
    "runtime/serving/adapters/triton_texts.py": ["torch", "numpy", "triton_python_backend_utils"],  # in its stub
    "runtime/serving/adapters/triton.py": ["torch", "triton_python_backend_utils"],  # where that server runs it
    "runtime/serving/adapters/ray_serve.py": ["ray"],
    "runtime/serving/packages/flags.py": [],
    "runtime/serving/front/spans.py": ["opentelemetry"],  # if it is installed
    "runtime/serving/*": ["torch", "safetensors", "starlette", "uvicorn", "prometheus_client"],
    "runtime/flags.py": [],
    "runtime/*/flags.py": [],
    "runtime/*": ["torch", "safetensors"],
    "tests/golden/*": ["torch", "safetensors"],
}

# Public names that files of one folder may all define, each with its reason.
REPEATED = {
    "main": "what `python -m` runs",
    "parser": "the flags of what `python -m` runs",
}


def allowed(rules: dict[str, list[str]], i: Import) -> bool:
    fitting = (modules for pattern, modules in rules.items() if fnmatch(i.file, pattern))
    modules = next(fitting, None)
    return modules is None or i.within(modules)


def test_imports_of_ours_stay_on_their_floor() -> None:
    assert not [str(i) for i in all_imports() if i.top in OURS and not allowed(FLOORS, i)]


def test_imports_of_others_stay_on_their_floor() -> None:
    known = {*OURS, *sys.stdlib_module_names}
    assert not [str(i) for i in all_imports() if i.top not in known and not allowed(OTHERS, i)]


def test_no_pass_imports_another() -> None:
    files = [f for f in FILES if ROOT / "passes" in f.parents and "    name: ClassVar = " in f.read_text()]
    passes = {module_of(str(f.relative_to(ROOT))) for f in files}
    assert len(passes) > 10
    assert not [str(i) for i in all_imports() if module_of(i.file) in passes and i.module in passes]


def test_only_capture_knows_export_and_fx() -> None:
    knows = [i for i in all_imports() if i.within(["torch.export", "torch.fx"]) and i.file.startswith(OURS)]
    for_sizes = [
        i
        for i in knows
        if i.file == "runtime/stage/compiling/compiled_stage.py" and i.within(["torch.fx.experimental"])
    ]
    knows = [i for i in knows if i not in for_sizes]  # a setting of torch.compile lies there
    assert not [str(i) for i in knows if not i.file.startswith(("ir/capture/", "ir/sources/"))]


def test_no_late_import_of_ours() -> None:
    assert not [str(i) for i in all_imports() if i.late and i.top in OURS and i.file.startswith(OURS)]


def test_no_cycle() -> None:
    needs: dict[str, set[str]] = {}
    for i in all_imports():
        if i.top in OURS:
            needs.setdefault(module_of(i.file), set()).add(i.module)
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as e:
        pytest.fail("modules import one another: " + " <- ".join(e.args[1]))


def test_no_public_name_is_defined_twice_in_a_folder() -> None:
    homes: dict[tuple[Path, str], set[str]] = {}
    for file in FILES:
        if file.relative_to(ROOT).parts[0] in OURS:
            for name in defined(file):
                homes.setdefault((file.parent, name), set()).add(file.name)
    twice = {f"{folder.relative_to(ROOT)}: {name}": files for (folder, name), files in homes.items() if len(files) > 1}
    assert not {what: files for what, files in twice.items() if what.rpartition(" ")[2] not in REPEATED}


def test_the_map_of_a_folder_names_all_that_is_in_it() -> None:
    unnamed = []
    for init in (file for file in FILES if file.name == "__init__.py" and file.relative_to(ROOT).parts[0] in OURS):
        text = ast.get_docstring(syntax(init)) or ""
        inside = [file.stem for file in init.parent.glob("[!_]*.py")]
        inside += [file.parent.name for file in init.parent.glob("*/__init__.py")]
        if "\n" in text:  # a map; a small folder has one line
            listed = set(re.findall(r"^ *((?:\w+, )*\w+)/? +\S", text, re.MULTILINE))
            names = {name for line in listed for name in line.split(", ")} | set(re.findall(r"(\w+)/:", text))
            unnamed += [f"{init.relative_to(ROOT)}: {x}" for x in sorted({*inside} - names)]
    assert not unnamed


def test_no_file_hides_a_standard_module() -> None:
    assert not [str(f.relative_to(ROOT)) for f in FILES if f.stem in sys.stdlib_module_names]
