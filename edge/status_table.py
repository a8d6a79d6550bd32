"""`edge status`: what the agent says of itself, as a table."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from edge.agent import open_journal, spool_in
from edge.config import Config
from edge.snapshot import journal_facts

_CLEAR = "\x1b[H\x1b[2J"
_TIMEOUT_S = 3.0


def show(config: Config, *, as_json: bool, live: bool, every_s: float) -> int:
    """Print the state, again and again when `live`. Returns the exit status: 0 when the agent
    runs, 3 when it does not and the journal speaks for it, 4 when there is no journal either.
    """
    while True:
        facts, code = _facts(config)
        if as_json:
            print(json.dumps(facts, indent=2))
        else:
            text = table(facts) if facts else "no journal yet: the agent has never run here\n"
            sys.stdout.write((_CLEAR if live else "") + text)
            sys.stdout.flush()
        if not live:
            return code
        try:
            time.sleep(every_s)
        except KeyboardInterrupt:
            return code


def _facts(config: Config) -> tuple[dict[str, Any], int]:
    url = f"http://{config.status.address}:{config.status.port}/status"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            return {"running": True, **json.load(answer)}, 0
    except (urllib.error.URLError, OSError, ValueError):
        pass
    if not (config.spool.folder / "journal.sqlite").is_file():
        return {}, 4
    journal = open_journal(spool_in(config.spool.folder))
    try:
        return {"running": False, **journal_facts(journal)}, 3
    finally:
        journal.close()


def table(facts: dict[str, Any]) -> str:
    """The state as text."""
    rows = [("agent", "running" if facts["running"] else "NOT RUNNING")]
    rows += [
        (f"  {state}", _counted(counts)) for state, counts in facts["states"].items() if counts[0]
    ]
    rows.append(
        ("queue", f"{facts['pending_objects']:>8} objects  {_size(facts['pending_bytes']):>10}")
    )
    rows.append(("oldest waiting", _age(facts["oldest_pending_s"])))
    if facts["running"]:
        rows += [
            (
                "arriving",
                f"{facts['arriving_studies']} studies, {facts['associations']} associations",
            ),
            ("received", f"{facts['received_objects']} objects, {_size(facts['received_bytes'])}"),
            ("sent", f"{facts['sent_objects']} objects, {_size(facts['sent_bytes'])}"),
            ("rate", f"{_size(facts['bytes_a_second'])}/s over the last minute"),
            ("disk free", _size(facts["free_bytes"])),
            ("cloud", _cloud(facts)),
        ]
        rows += [
            ("refused", f"{count} × {reason}")
            for reason, count in sorted(facts["refused_arrivals"].items())
        ]
    width = max(len(name) for name, _ in rows) + 2
    lines = [f"{name:<{width}}{value}" for name, value in rows]
    if facts["events"]:
        lines.append("events")
        lines += [f"  {e['at']}  {e['kind']:<10} {e['text']}" for e in facts["events"]]
    return "\n".join(lines) + "\n"


def _cloud(facts: dict[str, Any]) -> str:
    failures = facts["cloud_failures_in_a_row"]
    if not failures:
        return "ok"
    return (
        f"{failures} failures, next attempt in {facts['next_attempt_s']} s: {facts['last_error']}"
    )


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _age(seconds: float) -> str:
    if not seconds:
        return "–"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _counted(counts: tuple[int, int]) -> str:
    return f"{counts[0]:>8} objects  {_size(counts[1]):>10}"
