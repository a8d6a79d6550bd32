"""What the agent knows of each object and study: a SQLite journal beside the spool.

Every change is one transaction that is on the disk before it counts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from edge.database import Database
from edge.entries import PENDING, Entry, Look, State, StudyRow, utc_now

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    id INTEGER PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, size INTEGER NOT NULL,
    study TEXT NOT NULL, series TEXT NOT NULL, sop_instance TEXT NOT NULL,
    sop_class TEXT NOT NULL, modality TEXT NOT NULL, instance_number INTEGER NOT NULL,
    source TEXT NOT NULL, received TEXT NOT NULL, state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '', attempts INTEGER NOT NULL DEFAULT 0,
    generated INTEGER NOT NULL DEFAULT 0, changed TEXT NOT NULL, in_doubt INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS objects_by_state ON objects (state, study, attempts);
CREATE INDEX IF NOT EXISTS objects_by_study ON objects (study);
CREATE TABLE IF NOT EXISTS studies (
    uid TEXT PRIMARY KEY, first_seen INTEGER NOT NULL, over INTEGER NOT NULL DEFAULT 0,
    urgent INTEGER NOT NULL DEFAULT 0, rebuilt INTEGER NOT NULL DEFAULT 0,
    settled_at_close INTEGER NOT NULL DEFAULT -1
) STRICT;
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS looks (
    sha256 TEXT PRIMARY KEY, outcome TEXT NOT NULL, model TEXT NOT NULL, model_sha256 TEXT NOT NULL,
    score REAL NOT NULL, detections INTEGER NOT NULL, position REAL
) STRICT;
"""

_ENTRY = (
    "sha256, size, study, series, sop_instance, sop_class, modality, instance_number, source,"
    " received, state, id, reason, attempts, generated"
)
_EVENTS_KEPT = 1000
_SINGLY_FROM = 1
_LAST_FROM = 3


class Journal:
    """Opens or makes the journal; safe under threads. `file` is readable for its owner only.

    Raises:
        DatabaseDamaged: it is there and cannot be used; the spool's files can rebuild it.
        DatabaseUnavailable: it cannot be read or written now; that goes for every change, too.
    """

    def __init__(self, file: Path) -> None:
        probe = f"SELECT {_ENTRY}, changed, in_doubt FROM objects LIMIT 0"
        self._database = Database(file, _SCHEMA, probe)
        self._transaction = self._database.transaction
        self._rows = self._database.rows

    def close(self) -> None:
        self._database.close()

    # --- arriving -------------------------------------------------------------------------------

    def add(self, entry: Entry, *, urgent: bool = False, rebuilt: bool = False) -> bool:
        """Note an object that is in the spool; on the disk when this returns.

        A study that was over is not any more, unless the agent made the object itself. Bytes that
        were noted before change nothing, but that what the cloud refused is offered once more.
        Returns whether there is something to do with the object.
        """
        with self._transaction() as db:
            return _add(db, entry, urgent, rebuilt)

    def add_all(self, entries: Sequence[tuple[Entry, bool]]) -> None:
        """Note objects, each with whether it is urgent, in one transaction; see `add`."""
        with self._transaction() as db:
            for entry, urgent in entries:
                _add(db, entry, urgent, False)

    def state_of(self, sha256: str) -> State | None:
        """The state of the object with these bytes; ``None`` when they were never noted."""
        rows = self._rows("SELECT state FROM objects WHERE sha256 = ?", sha256)
        return State(rows[0][0]) if rows else None

    # --- leaving --------------------------------------------------------------------------------

    def recover(self) -> int:
        """After a start: what was in a request is ready again. Returns how many."""
        with self._transaction() as db:
            return db.execute(
                "UPDATE objects SET state = 'ready', in_doubt = in_doubt + 1"
                " WHERE state = 'sending'"
            ).rowcount

    def claim(self, objects: int, size: int) -> list[Entry]:
        """Take the most urgent objects that are ready, of one study, into a request.

        Urgent studies come first, then the one that arrived first. What already failed goes
        alone, so that one bad object cannot hold others back; what failed often goes last. A
        batch has no two objects of one SOP instance UID: its answer could not tell them apart.
        """
        with self._transaction() as db:
            study = db.execute(
                "SELECT s.uid FROM (SELECT study, min(attempts >= ?) AS worn FROM objects"
                " WHERE state = 'ready' GROUP BY study) r JOIN studies s ON s.uid = r.study"
                " ORDER BY r.worn, s.urgent DESC, s.first_seen LIMIT 1",
                (_LAST_FROM,),
            ).fetchone()
            if study is None:
                return []
            rows = db.execute(
                f"SELECT {_ENTRY} FROM objects WHERE state = 'ready' AND study = ?"
                " ORDER BY attempts >= ?, attempts >= ?, id LIMIT ?",
                (study[0], _LAST_FROM, _SINGLY_FROM, objects),
            ).fetchall()
            batch = _batch([_entry(row) for row in rows], size)
            db.executemany(
                "UPDATE objects SET state = 'sending', changed = ? WHERE id = ?",
                [(utc_now(), entry.id) for entry in batch],
            )
            return batch

    def settle(
        self,
        entries: Sequence[Entry],
        state: State,
        reason: str = "",
        *,
        failed: bool = False,
    ) -> None:
        """Move objects to a state; `failed` counts an attempt."""
        with self._transaction() as db:
            db.executemany(
                "UPDATE objects SET state = ?, reason = ?, attempts = attempts + ?, changed = ?"
                " WHERE id = ?",
                [(state, reason, int(failed), utc_now(), entry.id) for entry in entries],
            )

    def release(self, state: State, study: str = "") -> int:
        """Make what was refused or kept ready again, of one study or of all. Returns how many."""
        with self._transaction() as db:
            return db.execute(
                "UPDATE objects SET state = 'ready', reason = '', attempts = 0, changed = ?"
                " WHERE state = ? AND (? = '' OR study = ?)",
                (utc_now(), state, study, study),
            ).rowcount

    def release_night(self) -> int:
        """The night window is open: what waited for it is ready. Returns how many."""
        if not self._rows("SELECT 1 FROM objects WHERE state = 'night' LIMIT 1"):
            return 0
        with self._transaction() as db:
            return db.execute(
                "UPDATE objects SET state = 'ready', changed = ? WHERE state = 'night'",
                (utc_now(),),
            ).rowcount

    def entries(self, state: State, *, study: str = "", limit: int = -1) -> list[Entry]:
        """Objects in a state, in order of arrival; of one study where it is given."""
        return [
            _entry(row)
            for row in self._rows(
                f"SELECT {_ENTRY} FROM objects WHERE state = ? AND (? = '' OR study = ?)"
                " ORDER BY id LIMIT ?",
                *(state, study, study, limit),
            )
        ]

    def spooled(self) -> dict[str, State]:
        """SHA-256 and state of every object."""
        return {row[0]: State(row[1]) for row in self._rows("SELECT sha256, state FROM objects")}

    def settled_before(self, sha256: str, state: State, when: str) -> bool:
        """Whether the object has been in a state since `when` (UTC ISO 8601) or longer."""
        return bool(
            self._rows(
                "SELECT 1 FROM objects WHERE sha256 = ? AND state = ? AND changed <= ?",
                *(sha256, state, when),
            )
        )

    def forget_before(self, when: str) -> int:
        """Drop studies all of whose objects the cloud had stored at `when`. Returns how many."""
        done = (
            "SELECT study FROM objects GROUP BY study"
            " HAVING sum(state <> 'sent' OR changed > ?) = 0"
        )
        with self._transaction() as db:
            gone = [row[0] for row in db.execute(done, (when,))]
            for table, key in (
                ("looks", "sha256 IN (SELECT sha256 FROM objects WHERE study = ?)"),
                ("objects", "study = ?"),
                ("studies", "uid = ?"),
            ):
                db.executemany(f"DELETE FROM {table} WHERE {key}", [(uid,) for uid in gone])
            return len(gone)

    # --- studies --------------------------------------------------------------------------------

    def studies(self, *, over: bool) -> list[StudyRow]:
        """Studies that are over, or not, in order of arrival."""
        return [
            StudyRow(row[0], bool(row[1]), bool(row[2]), bool(row[3]), row[4])
            for row in self._rows(
                "SELECT uid, over, urgent, rebuilt, settled_at_close FROM studies WHERE over = ?"
                " ORDER BY first_seen",
                int(over),
            )
        ]

    def mark_over(self, study: str) -> None:
        """Nothing more of the study is expected; an object that comes all the same undoes it."""
        with self._transaction() as db:
            db.execute("UPDATE studies SET over = 1 WHERE uid = ?", (study,))

    def mark_urgent(self, study: str) -> None:
        with self._transaction() as db:
            db.execute("UPDATE studies SET urgent = 1 WHERE uid = ?", (study,))

    def to_close(self) -> list[tuple[StudyRow, int]]:
        """Studies that are over, with nothing on its way and something new in the cloud since it
        was last told; and how many of their objects are settled.
        """
        rows = self._rows(
            "SELECT s.uid, s.over, s.urgent, s.rebuilt, s.settled_at_close,"
            " count(*) FILTER (WHERE o.state IN ('sent', 'refused')) AS settled"
            " FROM studies s JOIN objects o ON o.study = s.uid WHERE s.over = 1 GROUP BY s.uid"
            " HAVING settled <> s.settled_at_close"
            " AND count(*) FILTER (WHERE o.state = 'sent') > 0 AND count(*) FILTER"
            " (WHERE o.state IN ('looking', 'waiting', 'ready', 'sending')) = 0"
            " ORDER BY s.urgent DESC, s.first_seen"
        )
        return [
            (StudyRow(row[0], bool(row[1]), bool(row[2]), bool(row[3]), row[4]), row[5])
            for row in rows
        ]

    def mark_closed(self, study: str, settled: int) -> None:
        """The cloud knows that the study is complete."""
        with self._transaction() as db:
            db.execute("UPDATE studies SET settled_at_close = ? WHERE uid = ?", (settled, study))

    def instances(self, study: str) -> list[tuple[str, bool]]:
        """SOP instance UIDs of all that arrived of a study, wherever it is now, and whether the
        agent made the object itself.
        """
        rows = self._rows(
            "SELECT DISTINCT sop_instance, generated FROM objects WHERE study = ?"
            " ORDER BY sop_instance",
            study,
        )
        return [(row[0], bool(row[1])) for row in rows]

    # --- looking --------------------------------------------------------------------------------

    def note_look(self, look: Look) -> None:
        """Keep what was seen in an object on site."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO looks VALUES (?,?,?,?,?,?,?)",
                (
                    *(look.sha256, look.outcome, look.model, look.model_sha256),
                    *(look.score, look.detections, look.position),
                ),
            )

    def looks(self, study: str) -> list[tuple[Entry, Look]]:
        """What was seen in the objects of a study."""
        rows = self._rows(
            f"SELECT {_qualified()}, l.sha256, l.outcome, l.model, l.model_sha256, l.score,"
            " l.detections, l.position FROM objects o JOIN looks l ON l.sha256 = o.sha256"
            " WHERE o.study = ? ORDER BY o.id",
            study,
        )
        width = _ENTRY.count(",") + 1
        return [(_entry(row[:width]), Look(*row[width:])) for row in rows]

    # --- telling --------------------------------------------------------------------------------

    def note(self, kind: str, text: str) -> None:
        """Keep an event for `edge status`; no patient data."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO events (at, kind, text) VALUES (?, ?, ?)", (utc_now(), kind, text)
            )
            db.execute(
                "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", (_EVENTS_KEPT,)
            )

    def events(self, limit: int) -> list[tuple[str, str, str]]:
        """The last events: time, kind, text; newest first."""
        rows = self._rows("SELECT at, kind, text FROM events ORDER BY id DESC LIMIT ?", limit)
        return [(at, kind, text) for at, kind, text in rows]

    def totals(self) -> dict[State, tuple[int, int]]:
        """Objects and bytes by state."""
        rows = self._rows("SELECT state, count(*), sum(size) FROM objects GROUP BY state")
        return {State(row[0]): (row[1], row[2]) for row in rows}

    def oldest_pending(self) -> str:
        """When the oldest object that still has to leave was received; empty when there is none."""
        rows = self._rows(
            "SELECT received FROM objects WHERE id = (SELECT min(id) FROM objects"
            " WHERE state IN ('looking', 'waiting', 'night', 'ready', 'sending'))"
        )
        return rows[0][0] if rows else ""

    def in_doubt(self) -> int:
        """How often objects were offered again because the agent ended during their request."""
        count: int = self._rows("SELECT ifnull(sum(in_doubt), 0) FROM objects")[0][0]
        return count


def _add(db: sqlite3.Connection, entry: Entry, urgent: bool, rebuilt: bool) -> bool:
    known = db.execute("SELECT state FROM objects WHERE sha256 = ?", (entry.sha256,)).fetchone()
    if known is not None and known[0] not in (State.REFUSED, State.ASIDE):
        return known[0] in PENDING
    db.execute(
        "INSERT INTO studies (uid, first_seen, urgent, rebuilt)"
        " VALUES (?, (SELECT ifnull(max(first_seen), 0) + 1 FROM studies), ?, ?)"
        " ON CONFLICT (uid) DO UPDATE SET over = over AND ?,"
        " urgent = max(urgent, excluded.urgent)",
        (entry.study, int(urgent), int(rebuilt), int(entry.generated)),
    )
    db.execute(
        "INSERT INTO objects (sha256, size, study, series, sop_instance, sop_class,"
        " modality, instance_number, source, received, state, generated, changed)"
        " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (sha256) DO UPDATE SET"
        " state = excluded.state, reason = '', attempts = 0, changed = excluded.changed",
        (
            *(entry.sha256, entry.size, entry.study, entry.series, entry.sop_instance),
            *(entry.sop_class, entry.modality, entry.instance_number, entry.source),
            *(entry.received, entry.state, int(entry.generated), utc_now()),
        ),
    )
    return True


def _qualified() -> str:
    return ", ".join(f"o.{name.strip()}" for name in _ENTRY.split(","))


def _entry(row: Sequence[object]) -> Entry:
    values = list(row)
    values[10], values[14] = State(str(values[10])), bool(values[14])
    return Entry(*values)  # type: ignore[arg-type]


def _batch(ready: Sequence[Entry], size: int) -> list[Entry]:
    """The head of `ready` that may share a request; at least one object."""
    batch: list[Entry] = []
    total = 0
    names: set[str] = set()
    for entry in ready:
        alone = entry.attempts >= _SINGLY_FROM
        if batch and (alone or total + entry.size > size or entry.sop_instance in names):
            break
        batch.append(entry)
        total += entry.size
        names.add(entry.sop_instance)
        if alone:
            break
    return batch
