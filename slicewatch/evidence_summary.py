"""The printable summary of an evidence bundle: a PDF for people, with no authority of its own."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

from slicewatch import custody_chain
from slicewatch.records import DISCLAIMER, Review

_MOST_ROWS = 400
_DETAILS = ("door", "activity", "reader", "requester", "principal", "address", "found")


def summary_pdf(
    study: str, bundle: str, lines: Sequence[bytes], review: Review | None, files: int
) -> bytes:
    """The PDF: what the bundle holds, the review, the log entry by entry, how to check it.

    Args:
        lines: the entries of the custody log.
        review: the newest review; ``None`` when there is none yet.
        files: originals and results in the bundle.
    """
    from reportlab.lib.pagesizes import A4
    from reportlab.platypus import SimpleDocTemplate

    entries = [custody_chain.parse(line) for line in lines if _is_statement(line)]
    target = io.BytesIO()
    document = SimpleDocTemplate(
        target,
        pagesize=A4,
        title="Evidence of a study",
        author="Slicewatch",
        leftMargin=45,
        rightMargin=45,
        topMargin=45,
        bottomMargin=45,
        invariant=1,
    )
    document.build(
        [
            *_head(study, bundle, entries, len(lines), files),
            *_review(review),
            *_log(entries),
            *_checking(entries),
        ]
    )
    return target.getvalue()


def _is_statement(line: bytes) -> bool:
    try:
        custody_chain.parse(line)
    except custody_chain.Broken:
        return False
    return True


def _head(
    study: str, bundle: str, entries: list[custody_chain.Statement], lines: int, files: int
) -> list[Any]:
    signed = sum(one.signed for one in entries)
    counts = Counter(str(one.body.get("event")) for one in entries)
    rows = [
        ("Study instance UID", study),
        ("Bundle", bundle),
        ("Originals and results", str(files)),
        ("Entries of the log", f"{lines}, of which signed: {signed}"),
        ("Events", ", ".join(f"{event} {count}" for event, count in counts.items())),
        ("Hash of the last entry", entries[-1].hash if entries else "no entry can be read"),
    ]
    if len(entries) < lines:
        rows.append(("Attention", f"entries that cannot be read: {lines - len(entries)}"))
    return [
        _text("Evidence of a study", "Title"),
        _text(DISCLAIMER),
        _gap(),
        _table(rows, (120, 373)),
    ]


def _review(review: Review | None) -> list[Any]:
    heading = _text("Review", "Heading2")
    if review is None:
        return [heading, _text("No review of the study was published when this was made.")]
    cover = review.coverage
    rows = [
        ("Generation, status", f"{review.generation}, {review.status}"),
        ("Coverage", f"{cover.screened} of {cover.images} images screened; {cover.received_objects}"
         f" objects received; {len(cover.missing)} missing"),
        ("Policy", f"{review.policy_name} {review.policy_sha256}"),
        *(("Model", f"{one.name}@{one.version} {one.sha256}") for one in review.models),
        *((f"Lane {flag.lane}", f"priority {flag.priority}: {flag.summary}")
          for flag in review.lanes),
        *((f"Integrity: {one.severity}", f"{one.code}: {one.explanation}")
          for one in review.integrity),
    ]  # fmt: skip
    return [heading, _table(rows, (120, 373))]


def _log(entries: list[custody_chain.Statement]) -> list[Any]:
    rows = [("No.", "Time (UTC)", "Event", "Who and what", "Hash")]
    rows += [
        (
            str(one.body.get("sequence")),
            str(one.body.get("time")).removesuffix("+00:00"),
            str(one.body.get("event")),
            _detail(one.body),
            one.hash[:16],
        )
        for one in entries[:_MOST_ROWS]
    ]
    rest = len(entries) - _MOST_ROWS
    more = [_text(f"{rest} more entries are in log.jsonl.")] if rest > 0 else []
    return [_text("Custody log", "Heading2"), _table(rows, (28, 117, 52, 211, 85)), *more]


def _detail(body: dict[str, Any]) -> str:
    actor, data = body.get("actor") or {}, body.get("data") or {}
    # A log that was tampered with is exported as well: that is when its bundle is wanted.
    if not (isinstance(actor, dict) and isinstance(data, dict)):
        return "not spelt as this system writes it"
    told = [f"{key} {actor[key]}" for key in _DETAILS if actor.get(key)]
    for key, value in data.items():
        if isinstance(value, (str, int)):
            told.append(f"{key} {value}")
        elif isinstance(value, (dict, list)) and key != "counts":
            told.append(f"{key}: {len(value)}")
        else:
            told.append(f"{key} {json.dumps(value)}")
    return "; ".join(told)


def _checking(entries: list[custody_chain.Statement]) -> list[Any]:
    signings = sorted({str(one.body.get("signing")) for one in entries})
    return [
        _text("How to check this", "Heading2"),
        _text("This page proves nothing by itself. Check the bundle it came in, offline:"),
        _text("python -m slicewatch.custody verify BUNDLE.zip --public-key KEY.pem", "Code"),
        _text("Keys named by the entries; compare them with the key that you were given:"),
        *(_text(signing, "Code") for signing in signings),
    ]


def _gap() -> Any:
    from reportlab.platypus import Spacer

    return Spacer(0, 6)


def _text(text: str, style: str = "BodyText") -> Any:
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import Paragraph

    # The standard fonts of PDF have Latin-1 alone; what else a name has is spelt out.
    printable = text.encode("latin-1", "backslashreplace").decode("latin-1")
    return Paragraph(escape(printable), getSampleStyleSheet()[style])


def _table(rows: Sequence[tuple[str, ...]], widths: tuple[int, ...]) -> Any:
    from reportlab.lib import colors
    from reportlab.platypus import LongTable, TableStyle

    from_small = [[_small(cell) for cell in row] for row in rows]
    table = LongTable(from_small, colWidths=widths, hAlign="LEFT", splitInRow=1)
    table.setStyle(
        TableStyle(
            [
                ("LINEBELOW", (0, 0), (-1, -1), 0.25, colors.lightgrey),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("TOPPADDING", (0, 0), (-1, -1), 1),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
            ]
        )
    )
    return table


def _small(text: str) -> Any:
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.platypus import Paragraph

    printable = text.encode("latin-1", "backslashreplace").decode("latin-1")
    style = ParagraphStyle("cell", fontSize=7.5, leading=9, splitLongWords=1)
    return Paragraph(escape(printable), style)
