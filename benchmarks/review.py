"""What readers wait for: the worklist, claims, and images on the review page.

    python -m benchmarks.review --json figures.json

Each group of figures is a function of a module of its own; ``--only`` runs some of them.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import claims, review_page, worklist_query

GROUPS: dict[str, Callable[[], dict[str, float]]] = {
    "worklist": worklist_query.measure,
    "claims": claims.measure,
    "page": review_page.measure,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the figures; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.review", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS))
    options = parser.parse_args(arguments)
    logging.getLogger("azure").setLevel(logging.WARNING)
    figures: dict[str, float] = {}
    for name in options.only:
        figures |= GROUPS[name]()
    for name, value in figures.items():
        print(f"{name:48} {value:10.2f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
