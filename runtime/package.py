"""The command line: write what another server needs to run an artifact.

    python -m runtime.package OUT --for torchserve|triton|ray|kserve -o DIR

Exit status: 0 done, 2 bad input (one message).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from runtime.errors import InputError, ManifestError
from runtime.serving.packages.flags import parser
from runtime.serving.packages.writing import write_package


def main(argv: Sequence[str] | None = None, prog: str = "python -m runtime.package") -> int:
    options = parser(prog).parse_args(argv)
    name = options.name or options.artifact.resolve().name
    try:
        written = write_package(options.artifact, options.server, options.out, name, options.serve_flag, options.force)
    except (InputError, ManifestError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    for file in written:
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
