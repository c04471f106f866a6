"""Random modules, cut and compared: `--first 0 --count 5000 --jobs 8`, or SEEDs alone; status 1 where one is wrong."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

from tests.fuzz.generator import generate
from tests.fuzz.pool import Finding, fuzz, verdict_of

FOUND = Path("build/fuzz")  # a model file for each finding


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", nargs="*", type=int, metavar="SEED", help="print these modules and what comes of them")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=5000, help="how many seeds")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    options = parser.parse_args()
    if options.seeds:
        return max(map(alone, options.seeds))
    return many(range(options.first, options.first + options.count), options.jobs)


def alone(seed: int) -> int:
    program = generate(seed)
    print(program.source)
    verdict = verdict_of(program)
    print(*(f"refused: {reason}\n" for reason in verdict.refused_calls), sep="", end="")
    print(f"seed {seed}: {verdict.kind} {verdict.reason}".rstrip())
    return int(verdict.found)


def many(seeds: range, processes: int) -> int:
    """Print a line for each seed at fault, as it is found, what was refused and how often, and the total."""
    kinds, refused, calls, found = Counter[str](), Counter[str](), Counter[str](), 0
    for done, (_, verdict, finding) in enumerate(fuzz(seeds, processes), 1):
        kinds[verdict.kind] += 1
        refused.update([verdict.reason] * (verdict.kind == "refused"))
        calls.update(verdict.refused_calls)
        if finding is not None:
            found += 1
            print(written(finding), flush=True)
        if done % 100 == 0:
            print(f"{done} of {len(seeds)}: {dict(kinds)}", flush=True)
    for title, counts in [("refused", refused), ("sizes or calls refused", calls)]:
        print(f"\n{title}: {counts.total()}")
        for reason, count in counts.most_common(30):
            print(f"{count:6} {reason}")
    print(f"\n{len(seeds)} modules: {dict(kinds)}; {found} findings" + (f", in {FOUND}/" if found else ""))
    return int(found > 0)


def written(finding: Finding) -> str:
    """The line of a finding, whose module is written to a file that begins with the same line."""
    FOUND.mkdir(parents=True, exist_ok=True)
    line = f"seed {finding.seed}: {finding.verdict.kind}: {finding.verdict.reason}".replace("\n", " ")
    (FOUND / f"seed_{finding.seed}.py").write_text(f"# {line}\n{finding.source}")
    return line


if __name__ == "__main__":
    sys.exit(main())
