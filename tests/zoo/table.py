"""The results of the zoo as lines and as docs/coverage.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ir.text.units import format_bytes, parse_bytes
from tests.zoo.measure import STAGES, Result
from tests.zoo.quantized import QUANTIZED
from tests.zoo.texts import TEXTS

HEAD = f"""# Coverage

Small models of many architectures, made from their configurations with random weights by `make zoo`: captured
with every size dynamic that the architecture allows, cut into {STAGES} stages, written, loaded and run at the sizes
under *ran at* (batch×length), of which the first was captured. *Difference* is the largest of any element of any
output from the uncut model.
"""

ROOT = Path(__file__).resolve().parents[2]
COVERAGE = ROOT / "docs/coverage.md"
CHECKPOINTS = """\
## Checkpoints

Each was made, cut in two and run by `python -m tests.zoo.checkpoints --write`. *Difference* is the largest of any
element of the output from that of the model whose weights were saved. What is refused says what to do.
With timm 1.0.31, open_clip 3.3 and gguf 0.19 installed, without which their rows are refused.
Adapters were also compared with what peft 0.21 merges (Llama, GPT-2, BERT, ViT, ResNet, Mixtral, Qwen3-MoE, gpt-oss;
ranks and scales by module, tied and replaced weights, single experts, all kinds below; 9e-8 for LoHa of convolutions,
else 0), also into the dequantized weights of GPTQ, AWQ, FP8, W4A16, INT8, NVFP4, GGUF, bitsandbytes and torchao (0;
kept beside them 5e-7); sentence embeddings with the modules of sentence-transformers: 0. Embeddings
that are the head, too, are adapted as they were trained: alone, or once for both with `ensure_weight_tying`. peft's
merge changes both in the first case, of which it warns, and adds the product twice in the second.
"""

LONG = 60  # characters of a condition
NAMES = ("model", "nodes", "stages", "over the cuts", "export", "difference", "ran at", "notes")
COLUMNS = "| " + " | ".join(NAMES) + " |\n|---|" + "--:|" * 5 + "---|---|"


def coverage(kinds: Mapping[str, Iterable[str]], results: Mapping[str, Result], before: str = "") -> str:
    """A table a kind, and the failures with their reasons below; what other commands wrote into `before` is kept."""
    good = sum(r.good for r in results.values())
    others = sum(name not in results for names in kinds.values() for name in names)
    missing = f"  {others} more have not been run yet." if others else ""
    ran = "; ".join(sorted({one for r in results.values() for one in r.versions.split("; ")} - {""}))
    equal = f"{good} of {len(results)} models return what they do uncut, bit for bit{f', with {ran}' if ran else ''}."
    parts = [HEAD, f"{equal}{missing}\n"]
    for kind, names in kinds.items():
        parts += [f"## {kind}\n", COLUMNS, *(_row(results[name]) for name in names if name in results), ""]
    parts += [*_failures(results.values()), "", TEXTS, QUANTIZED, section(before, CHECKPOINTS)]
    return "\n".join(parts).rstrip() + "\n"


def with_section(text: str, head: str, body: str) -> str:
    """The text with a section of it written anew, or added at its end."""
    title = head.splitlines()[0]
    before, _, rest = text.partition(f"{title}\n")
    _, mark, after = rest.partition("\n## ")
    return f"{before.rstrip()}\n\n{head}\n{body.rstrip()}\n" + (f"\n## {after}" if mark else "")


def section(text: str, head: str) -> str:
    """A section of the text with its title; empty where it has none."""
    _, mark, rest = text.partition(f"{head.splitlines()[0]}\n")
    return mark + rest.partition("\n## ")[0].rstrip() + "\n" if mark else ""


def recorded(text: str) -> dict[str, Result]:
    """The results that such a file holds, as far as it shows them."""
    reasons = dict(re.findall(r"^- \*\*(\w+)\*\*: (.+)$", text, re.MULTILINE))
    rows = [re.split(r"(?<!\\)\|", row) for row in re.findall(r"^\| (\w+ \| .*)\|$", text, re.MULTILINE)]
    cells = [[cell.strip() for cell in row] for row in rows if len(row) == len(NAMES)]  # and not of another table
    said = re.search(r"bit for bit, with (.*?)\.(?: |$)", text, re.MULTILINE)
    versions = said[1] if said else ""
    return {name: _result([name, *row], reasons.get(name, ""), versions) for name, *row in cells if name != NAMES[0]}


def _result(row: list[str], reason: str, versions: str) -> Result:
    name, nodes, stages, cut, seconds, difference, ran, notes = row
    if not nodes:
        return Result(name, failure=reason, versions=versions)
    return Result(
        name,
        nodes=int(nodes),
        stages=int(stages),
        cut_bytes=int(parse_bytes(cut)),
        export_seconds=float(seconds.removesuffix(" s")),
        difference=float(difference),
        ran=ran,
        notes=notes.replace("\\|", "|"),
        known=reason,
        versions=versions,
    )


def outcome(result: Result) -> str:
    """One line of progress."""
    if result.failure:
        return "FAILS  " + " ".join(result.failure.split())[:200]
    return (
        f"{'ok' if result.good else 'DIFFERS'}  {result.nodes} nodes, {result.stages} stages, "
        f"{result.export_seconds:.1f} s, {result.ran}" + f", off by {result.difference:.1e}" * (not result.good)
    )


def _row(r: Result) -> str:
    if r.failure:
        return f"| {r.name} | | | | | | | fails, see below |"
    cells = (r.name, r.nodes, r.stages, format_bytes(r.cut_bytes), f"{r.export_seconds:.1f} s", f"{r.difference:.2g}")
    return "| " + " | ".join(map(str, (*cells, r.ran, _short(r.notes).replace("|", "\\|")))) + " |"


def _short(notes: str) -> str:
    """Notes without conditions that nobody would read: those longer than a line's half are counted."""
    parts = " ".join(notes.split()).split("; ")
    long = [part for part in parts if part.startswith(("Eq(", "Ne(")) and len(part) > LONG]
    about = sorted({name for part in long for name in re.findall(r"\b[a-z_]\w*", part)})
    more = f"{len(long)} longer condition{'s' * (len(long) > 1)} on {' and '.join(about)}"
    return "; ".join([*(part for part in parts if part not in long), *([more] if long else [])])


def _failures(results: Iterable[Result]) -> Iterator[str]:
    failed = [r for r in results if not r.good]
    if failed:
        yield "## What fails or differs, and what to do\n"
    for r in sorted(failed, key=lambda r: r.name):
        yield f"- **{r.name}**: {' '.join((r.known or r.failure or 'not known yet').split())}"
