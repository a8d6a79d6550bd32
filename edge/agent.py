"""The agent: its parts, put together; start, run until told to stop, end cleanly."""

from __future__ import annotations

import datetime
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from edge.config import Config
from edge.database import DatabaseDamaged, DatabaseUnavailable
from edge.deidentify import Deidentifier, deidentified
from edge.entries import Entry, State, utc_now
from edge.folder_watch import FolderWatch
from edge.intake import Intake, rebuild
from edge.journal import Journal
from edge.look_first import LookingFirst
from edge.look_summary import summary_writer
from edge.pseudonyms import Pseudonyms
from edge.receiver import Receiver
from edge.snapshot import Snapshot
from edge.spool import DiskFull, Spool
from edge.statement import site_screening
from edge.status_server import StatusServer
from edge.study_watch import StudyWatch
from edge.uploader import Uploader, whole
from slicewatch.model_registry import Registry

_log = logging.getLogger(__name__)

_TICK_S = 0.2
_HOUSEKEEPING_S = 600.0
_STOP_S = 20.0
_FORGET_DAYS = 365


class AgentFailed(Exception):
    """A part of the agent ended by itself; a supervisor has to start it again."""


class Agent:
    """All parts of one configuration. `start` begins to serve; `run` stays until `stop`.

    Raises:
        DatabaseUnavailable: the disk is full, or cannot be written.
        DatabaseDamaged: the table of pseudonyms cannot be read.
        OSError: an address is taken, or the spool cannot be made.
        ModelError: look-first has no usable models.
        KeyTooShort: the key of de-identification could be guessed.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stop = threading.Event()
        spool = self._spool = Spool(
            config.spool.folder,
            min_free_bytes=config.spool.min_free_bytes,
            max_bytes=config.spool.max_bytes,
        )
        first_state = State.LOOKING if config.look_first else State.READY
        self._pseudonyms: Pseudonyms | None = None
        deidentifier = None
        if config.deidentify is not None:
            key = config.deidentify.key_file.read_bytes().strip()
            self._pseudonyms = Pseudonyms(key, config.spool.folder / "pseudonyms.sqlite")
            deidentifier = Deidentifier(config.deidentify, self._pseudonyms)
        journal_is_new = not spool.journal_file.exists()
        journal = self._journal = open_journal(spool)
        journal_is_new |= not journal.spooled()
        self._recover(first_state, journal_is_new)
        outside = deidentifier.outside if deidentifier else _same
        look_first = config.look_first
        registry = Registry.load(look_first.models) if look_first else None
        thresholds = {
            model.key: max(model.threshold, look_first.score if look_first else 0.0)
            for model in (registry.models if registry else ())
        }
        self._uploader = Uploader(
            config.cloud,
            spool,
            journal,
            prepare=deidentified(spool, deidentifier) if deidentifier else whole(spool),
            outside=outside,
            keep_sent=config.spool.keep_sent_h > 0,
            statement=site_screening(journal, thresholds, outside),
        )
        self._watch = StudyWatch(journal, config.study)
        intake = Intake(
            spool,
            journal,
            max_object_bytes=config.receive.max_object_bytes if config.receive else 1 << 40,
            first_state=first_state,
            arrived=self._arrived,
        )
        self._intake = intake
        self._looking: LookingFirst | None = None
        if look_first is not None and registry is not None:
            self._looking = LookingFirst(
                look_first,
                registry,
                spool,
                journal,
                self._uploader,
                summary_writer(spool, outside, deidentifier.clean if deidentifier else None),
            )
        self._folders = [
            FolderWatch(folder, spool, intake, self._watch) for folder in config.folders
        ]
        self.receiver = (
            Receiver(config.receive, spool, intake, self._watch) if config.receive else None
        )
        snapshot = Snapshot(
            spool, journal, intake, self._uploader, self._watch, self.receiver, deidentifier
        )
        self.status = StatusServer(config.status, snapshot, self.unfit)

    def start(self) -> None:
        """Begin to receive and to send."""
        self._uploader.start()
        if self._looking is not None:
            self._looking.start()
        for folder in self._folders:
            folder.start()
        self.status.start()
        if self.receiver is not None:
            self.receiver.start()
            _log.info("receiving on port %d", self.receiver.port)

    def run(self) -> None:
        """Do what is due from time to time, until `stop`. Raises `AgentFailed`."""
        cleaned = float("-inf")
        while not self._stop.wait(_TICK_S):
            try:
                self._tick()
                if time.monotonic() - cleaned > _HOUSEKEEPING_S:
                    cleaned = time.monotonic()
                    self._clean()
            except DatabaseUnavailable as unavailable:
                raise AgentFailed(str(unavailable)) from unavailable
            if fault := self.healthy():
                raise AgentFailed(fault)

    def _tick(self) -> None:
        if self._watch.close_due():
            self._uploader.wake()
        night = self._config.night.contains(datetime.datetime.now().time())
        if night and self._journal.release_night():
            self._uploader.wake()

    def _arrived(self, entries: Sequence[Entry]) -> None:
        """In the journal now: the door's own touch may have come before that."""
        for study in {entry.study for entry in entries}:
            self._watch.touch_again(study)
        self._uploader.arrived(len(entries))

    def stop(self) -> None:
        """Let `run` return; safe in a signal handler."""
        self._stop.set()

    def close(self) -> None:
        """End every part: what is received is answered, what is being sent is finished."""
        if self.receiver is not None:
            self.receiver.stop()
        for folder in self._folders:
            folder.stop()
        self._intake.noting.stop()
        if self._looking is not None:
            self._looking.stop()
        self._uploader.stop(_STOP_S)
        self.status.stop()
        self._journal.close()
        if self._pseudonyms is not None:
            self._pseudonyms.close()

    def healthy(self) -> str:
        """What is wrong with the agent itself; empty when nothing is."""
        if not self._uploader.alive():
            return "an upload thread has ended"
        if not self._intake.noting.alive():
            return "the thread that notes arrivals has ended"
        if self._looking is not None and not self._looking.alive():
            return "the look-first thread has ended"
        if not all(folder.alive() for folder in self._folders):
            return "a folder watch has ended"
        return ""

    def unfit(self) -> str:
        """Why it cannot take objects; empty when it can. A cloud that is away is no such reason."""
        try:
            self._intake.check_space()
        except DiskFull as full:
            return f"the disk is nearly full: {full}"
        return self.healthy()

    def _recover(self, first_state: State, journal_is_new: bool) -> None:
        """After a start: bring files and journal together, and offer again what is in doubt."""
        half_written = self._spool.clear_arriving()
        made, aside = rebuild(
            self._spool, self._journal, first_state, journal_is_new=journal_is_new
        )
        in_doubt = self._journal.recover()
        if half_written or made or aside or in_doubt:
            text = (
                f"recovered: {made} objects noted again, {in_doubt} offered again,"
                f" {aside} damaged files set aside, {half_written} unfinished removed"
            )
            _log.warning(text)
            self._journal.note("recovered", text)
        self._clean()

    def _clean(self) -> None:
        """Remove files of what the cloud has, and forget studies of long ago."""
        now = datetime.datetime.now(datetime.UTC)
        kept = datetime.timedelta(hours=self._config.spool.keep_sent_h)
        until = (now - kept).isoformat(timespec="milliseconds") if kept else utc_now()
        for sha256, _ in self._spool.objects():
            if self._journal.settled_before(sha256, State.SENT, until):
                self._spool.remove(sha256)
        long_ago = now - datetime.timedelta(days=_FORGET_DAYS)
        self._journal.forget_before(long_ago.isoformat(timespec="milliseconds"))


def open_journal(spool: Spool) -> Journal:
    """The spool's journal; a damaged one is set aside and begun anew."""
    try:
        return Journal(spool.journal_file)
    except DatabaseDamaged as damaged:
        _log.error("%s; it is set aside and rebuilt from the spool", damaged)
        spool.set_journal_aside(str(damaged))
        journal = Journal(spool.journal_file)
        journal.note("aside", str(damaged))
        return journal


def _same(uid: str) -> str:
    return uid


def spool_in(folder: Path) -> Spool:
    """A spool for reading what is there, without bounds."""
    return Spool(folder, min_free_bytes=0, max_bytes=1 << 62)
