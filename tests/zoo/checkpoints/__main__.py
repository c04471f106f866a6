"""Checkpoints as people have them, each made, cut in two and run.  `--write` puts the table into docs/coverage.md.

python -m tests.zoo.checkpoints [NAME …] [--write]
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Mapping

import transformers as hf

from tests.zoo.checkpoints import KINDS, tried
from tests.zoo.table import CHECKPOINTS, COVERAGE, with_section


def rows(results: Mapping[str, str]) -> Iterator[str]:
    for title, kinds in KINDS.items():
        yield f"| {title} | |\n|---|---|"
        yield from (f"| {name} | {results[name]} |" for name in kinds)
        yield ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="the kinds to try; all by default")
    parser.add_argument("--write", action="store_true", help="write the table into docs/coverage.md")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    hf.logging.set_verbosity_error()
    hf.logging.disable_progress_bar()
    results, faults = dict[str, str](), 0
    for name, kind in {name: kind for kinds in KINDS.values() for name, kind in kinds.items()}.items():
        if options.names and name not in options.names:
            continue
        try:
            results[name] = tried(kind)
        except Exception as e:
            results[name], faults = f"FAILS: {type(e).__name__}: {e}", faults + 1
        print(f"{name}: {results[name]}"[:200], flush=True)
    if options.write and not options.names:
        COVERAGE.write_text(with_section(COVERAGE.read_text(), CHECKPOINTS, "\n".join(rows(results))))
    print(f"{len(results) - faults} of {len(results)} are equal, or refused as they should be")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
