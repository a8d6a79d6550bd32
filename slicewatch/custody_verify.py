"""``python -m slicewatch.custody verify``: check an evidence bundle and say what was found."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from slicewatch.evidence_check import Report, check, check_log
from slicewatch.evidence_files import Bundle, Unreadable

_MOST_FAULTS = 20


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m slicewatch.custody``: exits with 0 when the bundle holds, 1 when it does not,
    2 when it cannot be looked at.
    """
    options = _parser().parse_args(arguments)
    try:
        keys = [path.read_bytes() for path in options.public_key]
        points = [*_given(options.checkpoints)]
        if options.export.suffix == ".jsonl":
            report = check_log(options.export.read_bytes(), keys=keys, checkpoints=points)
        else:
            report = check(Bundle(options.export), keys=keys, checkpoints=points)
    except (Unreadable, OSError) as error:
        print(f"{options.export}: {error}", file=sys.stderr)
        sys.exit(2)
    if options.json:
        print(json.dumps({"holds": report.holds, **report.to_json()}, indent=1))
    else:
        print("\n".join(map(_shown, _told(report))))
    sys.exit(0 if report.holds else 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m slicewatch.custody", description="Chain of custody of studies."
    )
    verify = parser.add_subparsers(required=True).add_parser(
        "verify",
        help="check an exported evidence bundle, offline",
        description="Check an exported evidence bundle, offline, and name the first entry of its "
        "log that does not hold. Status: 0 it holds, 1 it does not, 2 it cannot be read.",
    )
    verify.add_argument(
        "export",
        type=Path,
        help="the zip file, the folder it was unpacked to, or a log alone (*.jsonl)",
    )
    verify.add_argument(
        "--public-key",
        type=Path,
        action="append",
        default=[],
        metavar="PEM",
        help="a public key to trust, from elsewhere than the bundle; may be given again",
    )
    verify.add_argument(
        "--checkpoints",
        type=Path,
        metavar="FOLDER",
        help="checkpoints (*.json) that were kept elsewhere than in the bundle",
    )
    verify.add_argument("--json", action="store_true", help="report as JSON")
    return parser


def _given(folder: Path | None) -> Iterator[bytes]:
    if folder is not None:
        if not folder.is_dir():
            raise Unreadable(f"{folder} is no folder")
        for path in sorted(folder.rglob("*.json")):
            yield path.read_bytes()


def _shown(line: str) -> str:
    """A line as a terminal may have it: what a bundle says cannot end it, begin a line of its own,
    or steer the terminal.
    """
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in line)


def _told(report: Report) -> Iterator[str]:
    yield f"study       {report.study}"
    yield f"log         {report.entries} entries, {report.checkpoints} checkpoints"
    yield f"files       {report.files}"
    if report.signed_from is None:
        yield "signatures  NONE: unsigned mode; whoever can write the log can make it anew"
    else:
        since = "all entries" if report.signed_from == 0 else f"from entry {report.signed_from} on"
        source = "given" if report.trusted else "FROM THE BUNDLE; compare it with one you trust"
        yield f"signatures  {since}; key {source}: {', '.join(report.keys)}"
    if report.found:
        yield f"note        {report.found} objects were found in storage, their arrival not logged"
    if report.rejected:
        yield f"note        {report.rejected} objects came and were refused"
    if report.holds:
        yield "holds       yes"
        return
    yield "holds       NO"
    for fault in report.faults[:_MOST_FAULTS]:
        at = f"entry {fault.entry}" if fault.entry is not None else "bundle"
        yield f"  {at}: {fault.cause}" + (f" ({fault.file!r})" if fault.file else "")
    if len(report.faults) > _MOST_FAULTS:
        yield f"  and {len(report.faults) - _MOST_FAULTS} more"
