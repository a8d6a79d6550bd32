"""The way in, for all doors: from a complete file in ``arriving`` to an acknowledged object."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edge.entries import PENDING, Entry, State, utc_now
from edge.journal import Journal
from edge.noting import Noting
from edge.spool import DiskFull, Spool, hash_of, header_of
from slicewatch.dicom import Header
from slicewatch.limits import Rejected
from slicewatch.records import Reason

_log = logging.getLogger(__name__)
_RECOUNT_S = 5.0


class Intake:
    """Takes objects in; safe under threads.

    Args:
        first_state: `State.LOOKING` when objects are screened on site first, else `State.READY`.
        arrived: called with the entries that reached the journal.
    """

    def __init__(
        self,
        spool: Spool,
        journal: Journal,
        *,
        max_object_bytes: int,
        first_state: State,
        arrived: Callable[[Sequence[Entry]], None],
    ) -> None:
        self._spool = spool
        self._journal = journal
        self._max = max_object_bytes
        self._first_state = first_state
        self.noting = Noting(journal, arrived)
        self._lock = threading.Lock()
        self._waiting = 0
        self._counted = float("-inf")
        self.taken = 0
        self.taken_bytes = 0
        self.refused = 0

    def check_space(self, size: int = 0) -> None:
        """Raises `DiskFull` before anything is lost: called before an object is received."""
        with self._lock:
            if time.monotonic() - self._counted > _RECOUNT_S:
                totals = self._journal.totals()
                self._waiting = sum(totals.get(state, (0, 0))[1] for state in PENDING)
                self._counted = time.monotonic()
            waiting = self._waiting
        self._spool.check_space(waiting, size)

    def take(
        self,
        arriving: Path | bytes,
        *,
        source: str,
        sha256: str = "",
        urgent: bool = False,
        expected: Callable[[Header], None] | None = None,
    ) -> Header:
        """Take an object in: a complete file out of ``arriving``, or its bytes. When this returns
        the object is safe.

        Args:
            source: who sent it, for the journal.
            sha256: of the file, where it is known already.
            expected: checks the header against what its sender said; raises `Rejected`.

        Raises:
            Rejected: it is no sound DICOM object; its sender keeps it.
            DiskFull: there is no room.
        """
        try:
            size = len(arriving) if isinstance(arriving, bytes) else arriving.stat().st_size
            self.check_space()
            header = header_of(arriving, self._max)
            if expected is not None:
                expected(header)
            sha256 = sha256 or hash_of(arriving)
            known = self._journal.state_of(sha256)
            if known not in (State.SENT, State.KEPT):
                self._spool.keep(arriving, sha256)
                entry = entry_of(header, sha256, size, source, self._first_state)
                self.noting.put(entry, urgent=urgent)
        except (Rejected, DiskFull):
            with self._lock:
                self.refused += 1
            raise
        finally:
            if isinstance(arriving, Path):
                arriving.unlink(missing_ok=True)
        with self._lock:
            self.taken += 1
            self.taken_bytes += size
            self._waiting += 0 if known else size
        return header


def entry_of(header: Header, sha256: str, size: int, source: str, state: State) -> Entry:
    """The journal's entry for an object."""
    return Entry(
        sha256=sha256,
        size=size,
        study=header.study_instance_uid,
        series=header.series_instance_uid,
        sop_instance=header.sop_instance_uid,
        sop_class=header.sop_class_uid,
        modality=header.modality,
        instance_number=header.instance_number or 0,
        source=source,
        received=utc_now(),
        state=state,
    )


def rebuild(
    spool: Spool, journal: Journal, state: State, *, journal_is_new: bool
) -> tuple[int, int]:
    """Bring journal and spool together after a start.

    A file whose entry is missing (the journal was lost, or the agent ended between the two) gets
    one; a file that is not what its name says is set aside.

    Args:
        journal_is_new: it was lost or never there, so lists of instances may lack some.

    Returns:
        How many entries were made, and how many files were set aside.
    """
    known = journal.spooled()
    made = aside = 0
    for sha256, path in spool.objects():
        # Retention removes what is sent; refused and kept objects stay.
        if sha256 in known:
            continue
        try:
            if hash_of(path) != sha256:
                raise Rejected(Reason.TRUNCATED, "it is not what its name says")
            entry = entry_of(header_of(path), sha256, path.stat().st_size, "recovered", state)
        except (Rejected, OSError) as error:
            spool.set_aside(path, str(error))
            aside += 1
            continue
        journal.add(entry, rebuilt=journal_is_new)
        made += 1
    return made, aside
