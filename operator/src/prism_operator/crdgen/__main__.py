"""`python -m prism_operator.crdgen FILE...`: write the CRD, the same to each file."""

from __future__ import annotations

import sys
from pathlib import Path

from prism_operator.crdgen import definition, to_yaml


def main(arguments: list[str]) -> int:
    """Exit code 2 without a file name."""
    if not arguments:
        print("usage: python -m prism_operator.crdgen FILE...", file=sys.stderr)
        return 2
    text = to_yaml(definition())
    for file in arguments:
        Path(file).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
