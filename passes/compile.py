"""`python -m passes.compile SOURCE -o OUT --stages N`, which is `stagecut compile`."""

from __future__ import annotations

import sys

from stagecut import main

if __name__ == "__main__":
    sys.argv.insert(1, "compile")
    main()
