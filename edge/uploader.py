"""From the spool to the cloud: batches of ready objects, in order of urgency, until each has an
answer; then the closing of studies. Memory holds one chunk of one object a connection.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from edge.backoff import Backoff
from edge.config import Cloud
from edge.entries import Entry, State
from edge.journal import Journal
from edge.spool import Damaged, Spool
from edge.statement import Statement
from edge.stow_client import Answer, CloudClient, Part, Verdict, file_part

_log = logging.getLogger(__name__)

_IDLE_S = 1.0
_RATE_WINDOW_S = 60.0
_GATHER_S = 0.5


class MustStay(Exception):
    """An object may not leave the site; the text says why."""


type Prepare = Callable[[Entry], Part]
"""Gives an object as it may leave. Raises `MustStay` or `edge.spool.Damaged`."""


class Uploader:
    """Uploads in `config.connections` threads from `start` to `stop`.

    Args:
        prepare: see `Prepare`; `whole` for objects that leave as they came.
        outside: the UID that the cloud knows for one of the site's.
        keep_sent: whether files stay after they were sent.
        statement: what was screened on site, for the close of a study.
    """

    def __init__(
        self,
        config: Cloud,
        spool: Spool,
        journal: Journal,
        *,
        prepare: Prepare,
        outside: Callable[[str], str] = lambda uid: uid,
        keep_sent: bool = False,
        statement: Statement = lambda study: [],
    ) -> None:
        self._config = config
        self._spool = spool
        self._journal = journal
        self._prepare = prepare
        self._outside = outside
        self._keep_sent = keep_sent
        self._statement = statement
        self.backoff = Backoff(config.backoff_first_s, config.backoff_max_s)
        self._stop = threading.Event()
        self._work = threading.Condition()
        self._gathered = 0
        self._gathering_until = 0.0
        self._closing = threading.Lock()
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, int]] = deque()
        self.sent = 0
        self.sent_bytes = 0
        self.errors = 0
        self.last_error = ""
        self._threads = [
            threading.Thread(target=self._run, name=f"upload-{number}", daemon=True)
            for number in range(config.connections)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float) -> None:
        """Start no more requests and wait for those under way, `timeout` seconds at most; one
        that is cut off is offered again after the next start.
        """
        self._stop.set()
        self.wake()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def wake(self) -> None:
        """There may be something to do."""
        with self._work:
            self._work.notify_all()

    def arrived(self, objects: int) -> None:
        """Objects came that are ready: a batch is gathered before it leaves."""
        with self._work:
            if not self._gathered:
                self._gathering_until = time.monotonic() + _GATHER_S
            self._gathered += objects
            self._work.notify_all()

    def _gathering(self) -> float:
        """Seconds that a batch still waits for company; 0 when it may leave."""
        with self._work:
            left = self._gathering_until - time.monotonic()
            if left > 0 and 0 < self._gathered < self._config.batch_objects:
                return left
            self._gathered = 0
            return 0.0

    def rate(self) -> float:
        """Bytes a second that the cloud acknowledged over the last minute."""
        now = time.monotonic()
        with self._lock:
            while self._recent and now - self._recent[0][0] > _RATE_WINDOW_S:
                self._recent.popleft()
            return sum(size for _, size in self._recent) / _RATE_WINDOW_S

    # --- the threads ----------------------------------------------------------------------------

    def _run(self) -> None:
        client = CloudClient(self._config)
        try:
            while not self._stop.is_set():
                wait = self.backoff.left()
                if wait > 0:
                    self._stop.wait(wait)
                elif (left := self._gathering()) > 0:
                    with self._work:
                        self._work.wait(left)
                elif not self._step(client):
                    with self._work:
                        self._work.wait(_IDLE_S)
        finally:
            # What is unforeseen ends the thread with its traceback, and so the agent (`alive`).
            client.close()

    def alive(self) -> bool:
        """Whether every upload thread still runs."""
        return all(thread.is_alive() for thread in self._threads)

    def _step(self, client: CloudClient) -> bool:
        """Do one thing; whether there was one."""
        batch = self._journal.claim(self._config.batch_objects, self._config.batch_bytes)
        if batch:
            self._upload(client, batch)
            return True
        # Only when nothing is on its way, and one thread at a time.
        if not self._closing.acquire(blocking=False):
            return False
        try:
            return self._close_one(client)
        finally:
            self._closing.release()

    def _upload(self, client: CloudClient, batch: Sequence[Entry]) -> None:
        """Offer a batch, and settle each of its objects whatever happens."""
        open_entries = {entry.id: entry for entry in batch}
        try:
            pairs = []
            for entry in batch:
                part = self._part(entry)
                if part is None:
                    del open_entries[entry.id]
                else:
                    pairs.append((entry, part))
            if pairs:
                answer = client.store([part for _, part in pairs])
                self._settle(pairs, answer)
                open_entries.clear()
        finally:
            if open_entries:
                self._journal.settle(list(open_entries.values()), State.READY)

    def _part(self, entry: Entry) -> Part | None:
        """The object as it may leave; ``None`` when it does not, and that is in the journal."""
        try:
            return self._prepare(entry)
        except Damaged as damaged:
            self._spool.set_aside(self._spool.path(entry.sha256), str(damaged))
            self._journal.settle([entry], State.ASIDE, str(damaged))
            self._note("aside", str(damaged))
        except MustStay as stays:
            self._journal.settle([entry], State.REFUSED, str(stays))
            self._note("refused", str(stays))
        return None

    def _settle(self, pairs: Sequence[tuple[Entry, Part]], answer: Answer) -> None:
        entries = [entry for entry, _ in pairs]
        match answer.verdict:
            case Verdict.READ:
                self._settle_each(pairs, answer)
                self.backoff.succeeded()
            case Verdict.NOT_THESE if len(entries) == 1:
                self._refused(entries[0], answer.text)
                self.backoff.succeeded()
            case Verdict.NOT_THESE:
                self._failed(entries, answer, counts=True, pause=False)
            case Verdict.UNREADABLE | Verdict.BROKEN:
                self._failed(entries, answer, counts=True, pause=True)
            case Verdict.LATER | Verdict.MISCONFIGURED:
                self._failed(entries, answer, counts=False, pause=True)

    def _settle_each(self, pairs: Sequence[tuple[Entry, Part]], answer: Answer) -> None:
        sent, again = [], []
        for entry, part in pairs:
            if part.sop_instance in answer.stored:
                sent.append(entry)
            elif part.sop_instance in answer.failing_for_now or (
                part.sop_instance not in answer.failed and len(pairs) > 1
            ):
                again.append(entry)
            else:
                reason = answer.failed.get(part.sop_instance, "the answer does not mention it")
                self._refused(entry, reason)
        if sent:
            self._journal.settle(sent, State.SENT)
            self._count_sent(sent)
            if not self._keep_sent:
                for entry in sent:
                    self._spool.remove(entry.sha256)
        if again:
            self._journal.settle(again, State.READY, "not stored yet", failed=True)
            self.backoff.failed()

    def _failed(
        self, entries: Sequence[Entry], answer: Answer, *, counts: bool, pause: bool
    ) -> None:
        self._journal.settle(entries, State.READY, answer.text, failed=counts)
        if pause:
            wait = self.backoff.failed(answer.wait_s)
            _log.warning("upload: %s; next attempt in %.1f s", answer.text, wait)
        self._note("error", answer.text)

    def _refused(self, entry: Entry, reason: str) -> None:
        self._journal.settle([entry], State.REFUSED, reason)
        _log.error("the cloud refused an object: %s; it is kept in the spool", reason)
        self._note("refused", reason)

    # --- studies --------------------------------------------------------------------------------

    def _close_one(self, client: CloudClient) -> bool:
        due = self._journal.to_close()
        if not due:
            return False
        study, settled = due[0]
        instances = None
        if not study.rebuilt:
            instances = [
                uid if generated else self._outside(uid)
                for uid, generated in self._journal.instances(study.uid)
            ]
        answer = client.close_study(self._outside(study.uid), instances, self._statement(study.uid))
        if answer.verdict in (Verdict.READ, Verdict.NOT_THESE):
            self._journal.mark_closed(study.uid, settled)
            self.backoff.succeeded()
            if answer.verdict is Verdict.NOT_THESE:
                _log.error("the cloud refused to close a study: %s", answer.text)
                self._note("error", f"closing a study: {answer.text}")
        else:
            self.backoff.failed(answer.wait_s)
            self._note("error", f"closing a study: {answer.text}")
        return True

    # --- counting -------------------------------------------------------------------------------

    def _count_sent(self, entries: Sequence[Entry]) -> None:
        size = sum(entry.size for entry in entries)
        with self._lock:
            self.sent += len(entries)
            self.sent_bytes += size
            self._recent.append((time.monotonic(), size))

    def _note(self, kind: str, text: str) -> None:
        with self._lock:
            self.errors += 1
            repeated, self.last_error = text == self.last_error, text
        # A day without network must not be a day of journal writes.
        if not repeated:
            self._journal.note(kind, text)


def whole(spool: Spool) -> Prepare:
    """Objects leave as they came, after their bytes were checked."""

    def prepare(entry: Entry) -> Part:
        return file_part(entry.sop_instance, spool.verify(entry.sha256), entry.size)

    return prepare
