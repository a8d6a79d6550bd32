"""Arguments that several commands of ``python -m training`` take, and what they mean."""

from __future__ import annotations

import argparse
import fnmatch
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.domains import DOMAINS, Domain
from training.sources import BadSource

type Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

RUNS = Path("runs")
MODELS = Path("models")


def add_domain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("domain", choices=sorted(DOMAINS), help="which detector")
    add_size(parser)


def add_size(parser: argparse.ArgumentParser) -> None:
    sizes = ", ".join(f"{domain.name} {domain.size}" for domain in DOMAINS.values())
    parser.add_argument(
        "--size",
        type=int,
        help="edge of the network's input, pixels, a multiple of 32, the same for prepare, train "
        f"and export; default: what a CPU trains in hours ({sizes})",
    )


def domain_of(name: str, size: int | None) -> Domain:
    """The domain, with another input size where one is asked for. Raises `BadSource`."""
    domain = DOMAINS[name]
    if size is None:
        return domain
    if size < 64 or size % 32:
        raise BadSource(f"--size {size}: expected a multiple of 32 from 64 on")
    return replace(domain, size=size)


def add_label(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="NAME=CLASS",
        help="structures of that name (* and ? for any text, letter case aside) are of that "
        "class; may be repeated, the first that fits counts, before the usual names",
    )


def label_rules(pairs: list[str], classes: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    rules = []
    for pair in pairs:
        glob, found, label = pair.rpartition("=")
        if not found or not glob:
            raise BadSource(f"--label {pair}: expected NAME=CLASS")
        if label not in classes:
            raise BadSource(f"--label {pair}: the classes are {', '.join(classes)}")
        rules.append((fnmatch.translate(glob), label))
    return tuple(rules)


def add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="Ultralytics argument that wins over the recipe, such as epochs=3",
    )


def overrides_of(pairs: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for pair in pairs:
        key, found, text = pair.partition("=")
        if not found:
            raise BadSource(f"--set {pair}: expected KEY=VALUE")
        try:
            values[key] = json.loads(text)
        except json.JSONDecodeError:
            values[key] = text
    return values
