"""``python -m training COMMAND``: data sets, models and their figures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from slicewatch.model_registry import ModelError
from training.arguments import Subparsers
from training.data_commands import add_change_appearance, add_fetch, add_prepare
from training.model_commands import add_all, add_average, add_evaluate, add_export, add_train
from training.sources import BadSource

COMMANDS: tuple[Callable[[Subparsers], None], ...] = (
    add_prepare,
    add_fetch,
    add_change_appearance,
    add_train,
    add_average,
    add_evaluate,
    add_export,
    add_all,
)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 when it went well, 1 when its result would mislead, 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="From annotated images to a detector that Slicewatch serves.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except (BadSource, ModelError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        print(
            f"error: {error.name} is not installed: pip install -r {_REQUIREMENTS}",
            file=sys.stderr,
        )
    return 2


_REQUIREMENTS = Path("requirements-train.txt")

if __name__ == "__main__":
    sys.exit(main())
