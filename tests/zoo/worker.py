"""Measures the models whose names come in, a line each, and answers with a line of JSON each."""

from __future__ import annotations

import json
import os
import sys
import warnings
from dataclasses import asdict

import torch

from tests.zoo import MODELS
from tests.zoo.measure import measure


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes elsewhere
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(asdict(measure(line.strip(), MODELS[line.strip()]))), file=answers)


if __name__ == "__main__":
    main()
