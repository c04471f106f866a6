"""Put faults into an artifact and say which were not found: `make faults`, or `python -m tests.faults --count 1000`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from runtime.check.artifact import faults
from tests.faults.inject import inject
from tests.faults.sample import Sample


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Put faults into an artifact.")
    parser.add_argument("--count", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the number of the first, which seeds it")
    options = parser.parse_args()
    missed, grades = 0, Counter[str]()
    with TemporaryDirectory() as scratch:
        sample = Sample.compiled(Path(scratch) / "sample")
        assert not [*faults(sample.folder)]
        for number in range(options.first, options.first + options.count):
            outcome = inject(sample, number, Path(scratch))
            grades[outcome.grade] += 1
            if not outcome.found:
                missed += 1
                print(f"fault {number} was not found: {outcome.kind} ({outcome.grade})")
    print(f"{options.count - missed} of {options.count} faults found: {dict(grades)}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
