"""Commands that make data sets: ``prepare``, ``fetch`` and ``change-appearance``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from training.arguments import (
    RUNS,
    Subparsers,
    add_domain,
    add_label,
    domain_of,
    label_rules,
)
from training.prepare import Prepared, prepare
from training.sources import BadSource


def add_prepare(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "prepare", help="sources to a checked data set in YOLO layout, split by patient"
    )
    add_domain(parser)
    parser.add_argument("--out", type=Path, help="default: runs/data/DOMAIN")
    parser.add_argument(
        "--dicom",
        type=Path,
        action="append",
        default=[],
        help="folder of DICOM with RTSTRUCT, SEG or YOLO label files; may be repeated",
    )
    parser.add_argument(
        "--masked",
        type=Path,
        action="append",
        default=[],
        help="folder with index.csv (sample_id, patient_id, class), images and masks",
    )
    parser.add_argument(
        "--generated", type=int, default=0, help="generated studies to mix into training"
    )
    parser.add_argument(
        "--normal", type=int, default=0, help="slices of a normal brain to mix into training"
    )
    parser.add_argument(
        "--validation-share", type=float, default=0.2, help="share of the patients, by hash"
    )
    add_label(parser)
    parser.set_defaults(run=_run_prepare)


def _run_prepare(options: argparse.Namespace) -> int:
    domain = domain_of(options.domain, options.size)
    if not (options.dicom or options.masked or options.generated or options.normal):
        raise BadSource("no source was named: use --dicom, --masked, --generated or --normal")
    prepared = prepare(
        domain,
        options.out or RUNS / "data" / domain.name,
        dicom=tuple(options.dicom),
        masked=tuple(options.masked),
        generated=options.generated,
        normal=options.normal,
        validation_share=options.validation_share,
        labels=label_rules(options.label, domain.classes),
    )
    return tell(prepared)


def tell(prepared: Prepared) -> int:
    for (split, kind), count in sorted(prepared.counts.items()):
        print(f"{split:<6} {kind:<9} {count:>6} slices")
    print(f"{prepared.rejects} sources rejected; reasons in {prepared.folder / 'rejected.json'}")
    for problem in prepared.problems:
        print(f"misleading: {problem}")
    return 1 if prepared.problems else 0


def add_fetch(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "fetch", help="a data set that was prepared as a Function, onto this machine"
    )
    parser.add_argument("dataset", help="its name below training/inbox")
    parser.add_argument("--out", type=Path, help="default: runs/data/DATASET")
    parser.set_defaults(run=_run_fetch)


def _run_fetch(options: argparse.Namespace) -> int:
    from slicewatch.settings import SettingError
    from slicewatch.storage import StorageUnavailable, current
    from training.fetch import fetch

    out = options.out or RUNS / "data" / options.dataset
    try:
        fetched = fetch(current(), options.dataset, out)
    except (SettingError, StorageUnavailable) as error:
        raise BadSource(str(error)) from None
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    print(f"{fetched} files in {out}; the data set is {manifest['status']}")
    for problem in manifest["problems"]:
        print(f"misleading: {problem}")
    return 1 if manifest["problems"] else 0


def add_change_appearance(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "change-appearance",
        help="one split of a prepared data set as other scanners might have made it: what a "
        "detector loses there tells how much it leans on the scanners it knows",
    )
    parser.add_argument("data", type=Path, help="data set that prepare wrote")
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--split", default="val")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=_run_change_appearance)


def _run_change_appearance(options: argparse.Namespace) -> int:
    from training.appearance import write_changed

    count = write_changed(options.data, options.out, split=options.split, seed=options.seed)
    print(f"{options.out}: {count} pictures")
    return 0
