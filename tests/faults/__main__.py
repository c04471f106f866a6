"""Faults put into an artifact, and which were not found: `python -m tests.faults --first 0 --count 1000 --jobs 8`."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults.inject import inject_in_sample


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Put faults into an artifact.")
    parser.add_argument("--first", type=int, default=0, help="the number of the first, which seeds it")
    parser.add_argument("--count", type=int, default=1000, help="how many")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    options = parser.parse_args()
    numbers = range(options.first, options.first + options.count)
    missed, grades = 0, Counter[str]()
    with (
        TemporaryDirectory() as scratch,
        ProcessPoolExecutor(min(options.jobs, options.count), get_context("spawn")) as pool,
    ):
        for outcome in pool.map(inject_in_sample, [Path(scratch)] * len(numbers), numbers, chunksize=8):
            grades[outcome.grade] += 1
            if not outcome.found:
                missed += 1
                print(f"fault {outcome.number} was not found: {outcome.kind} ({outcome.grade})", flush=True)
    print(f"{options.count - missed} of {options.count} faults found: {dict(grades)}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
